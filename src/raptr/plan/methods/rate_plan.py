"""`RatePlan`: layers that are dropped by themselves, each at its own rate. What layer dropping becomes when bound."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from raptr.errors import RaptrError
from raptr.plan import rng
from raptr.plan.layer_part import ONE_SEQUENCE, LayerPart, LayerParts, SequenceKey
from raptr.plan.methods.spec_parts import Redraw, always_kept
from raptr.plan.protocol import Keep
from raptr.plan.schedule import Stage, check_steps, stage_at
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import Copy, Subnetwork

Depths = tuple[float, ...]
"""Of each layer of a stack, what the rate of a step is multiplied with."""

Array = npt.NDArray[np.float64]


class Rule(Protocol):
    """A spec of this family: at step t, layer l is dropped with probability depths[l] * rate(t)."""

    @property
    def redraw(self) -> Redraw: ...

    @property
    def seed(self) -> int: ...

    def depths(self, layers: int) -> Depths:
        """Of each layer of a stack of so many, its share of the rate."""
        ...

    def scaled(self, layers: int) -> Depths:
        """The same of the probabilities that kept layers are divided by: 1 - scaled[l] * rate(t). All 0 for none."""
        ...

    def rate_at(self, step: int, steps: int) -> float:
        """The rate of a step in a run of ``steps``."""
        ...

    def mean_rate(self, steps: int) -> float:
        """The mean of the rate over a run."""
        ...


@dataclass(frozen=True, kw_only=True)
class RatePlan:
    """Layers dropped by themselves, bound to a shape and a number of steps: one stage.

    At step t, layer l is kept with probability 1 - depths[l] * rate(t), by itself, and its residual update is divided
    by 1 - scaled[l] * rate(t), where ``rule`` says depths, scaled and rate. Fixed layers are kept, and not scaled.

    If each sequence drops layers by itself, one of the B sequences of a rank's micro-batch is kept anyway. A sequence
    then runs with q = p + (1 - p)**B / B, where p = 1 - depths[l] * rate(t) (`raptr.plan.layer_part.run_probability`).
    Updates are divided by q, and a plan that knows B expects the cost of q.

    Attributes:
        shape: of the model.
        stages: the only one; its size is the mean over the run.
        rule: the spec.
        fixed: the layers of each stack that are always kept.
        sequences: whether each sequence of the batch drops the layer by itself, instead of the whole batch. Such rules
            scale by the probabilities with which they drop, or not at all.
        rows: B; None if it is not known, or so large that q is p.
    """

    shape: ModelShape
    stages: tuple[Stage, ...]
    rule: Rule
    fixed: tuple[tuple[int, ...], ...]
    sequences: bool = False
    rows: int | None = None

    def for_rows(self, rows: int) -> "RatePlan":
        """Return the plan of micro-batches of so many sequences on each rank; see `raptr.plan.for_rows`.

        Raises:
            RaptrError: layers are dropped by sequence, and there is one sequence, which runs through every layer.
        """
        if not self.sequences:
            return self
        if rows == 1 and any(p < 1 for stack in self.keep(self.stages[0]) for p in stack):
            raise RaptrError(ONE_SEQUENCE)
        return _sized(replace(self, rows=rows))

    def stage(self, step: int) -> Stage:
        """The stage of a step: there is one."""
        return stage_at(self.stages, step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """The layers that a step keeps, each with its scale, or all of them, each on its share of the sequences.

        A function of (seed, step, stack, layer), and of the micro-step where it is drawn for each.
        """
        rate = self.rule.rate_at(step, self.stage(step).stop)
        place = (step, micro if self.rule.redraw == "micro_step" else 0)
        of_stack = self._masked if self.sequences else self._dropped
        paths, parts = zip(*(of_stack(i, rate, place) for i in range(len(self.shape.stacks))), strict=True)
        return Subnetwork.unchecked(paths, parts if self.sequences or self._scales else ())

    def transition(self, step: int) -> tuple[Copy, ...]:
        """Nothing is copied."""
        return ()

    def keep(self, stage: Stage) -> Keep:
        """Return the mean probability of each layer to be kept (of a sequence to run through it) over the run."""
        return self._mean

    @cached_property
    def _mean(self) -> Keep:
        rate, rows = self.rule.mean_rate(self.stages[-1].stop), self.rows
        keep = [1 - depths * rate for depths, _ in self._of_stacks]
        if rows is not None:  # the mean of q over the steps: p, and (depths * rate)**B / B
            forced = self._mean_power(rows) / rows
            keep = [p + depths**rows * forced for p, (depths, _) in zip(keep, self._of_stacks, strict=True)]
        return tuple(tuple(p.tolist()) for p in keep)

    def _mean_power(self, power: int) -> float:
        """Return the mean of rate(t)**power over the run, of a long run by the trapezoidal rule."""
        last = self.stages[-1].stop - 1
        at = np.linspace(0, last, min(last, 4096) + 1).astype(np.int64)
        values = np.array([self.rule.rate_at(step, last + 1) for step in at.tolist()]) ** power
        inner = (values[1:] + values[:-1]) / 2 @ np.diff(at)
        return float(inner + (values[0] + values[-1]) / 2) / (last + 1)

    @cached_property
    def _of_stacks(self) -> tuple[tuple[Array, Array], ...]:
        """Of each stack, depths and scaled, 0 for its fixed layers; the same array twice, where they are equal."""
        result = []
        for count, always in zip(self.shape.layers, self.fixed, strict=True):
            depths, scaled = np.array(self.rule.depths(count)), np.array(self.rule.scaled(count))
            depths[list(always)] = scaled[list(always)] = 0.0
            result.append((depths, depths if np.array_equal(depths, scaled) else scaled))
        return tuple(result)

    @cached_property
    def _scales(self) -> bool:
        """Whether kept layers are scaled at all."""
        return any(scaled.any() for _, scaled in self._of_stacks)

    def _dropped(self, i: int, rate: float, place: tuple[int, int]) -> tuple[tuple[int, ...], Sequence[LayerPart]]:
        depths, scaled = self._of_stacks[i]
        words = rng.words(self.rule.seed, rng.PATHS, (*place, i), len(depths))
        keep = 1 - depths * rate
        kept = rng.below(words, keep).nonzero()[0]
        if not self._scales:
            return tuple(kept.tolist()), ()
        divisor = keep if scaled is depths else 1 - scaled * rate
        return tuple(kept.tolist()), LayerParts.unchecked(1 / divisor[kept])

    def _masked(self, i: int, rate: float, place: tuple[int, int]) -> tuple[tuple[int, ...], Sequence[LayerPart]]:
        depths, _ = self._of_stacks[i]
        key = SequenceKey(self.rule.seed, *place, i)
        parts = LayerParts.unchecked(np.ones(len(depths)), 1 - depths * rate, key, inverse=self._scales)
        return tuple(range(len(depths))), parts


def bind_rates(
    rule: Rule, fixed: tuple[int, ...], shape: ModelShape, steps: int, *, sequences: bool = False
) -> RatePlan:
    """The plan of a spec of this family.

    Raises:
        RaptrError: no steps, or a fixed layer that is out of range.
    """
    check_steps(steps)
    whole = Stage(start=0, stop=steps, sizes=shape.layers)
    plan = RatePlan(shape=shape, stages=(whole,), rule=rule, fixed=always_kept(fixed, shape), sequences=sequences)
    return _sized(plan)


def _sized(plan: RatePlan) -> RatePlan:
    """Return the plan with the mean number of kept layers as the size of its stage."""
    (stage,) = plan.stages
    sizes = tuple(round(sum(stack), 6) for stack in plan.keep(stage))
    return replace(plan, stages=(replace(stage, sizes=sizes),))
