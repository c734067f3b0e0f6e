"""RaPTr: random paths that grow in stages until they are the whole model."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from raptr.errors import RaptrError
from raptr.plan import draw
from raptr.plan.protocol import Keep
from raptr.plan.schedule import Schedule, Stage, stage_at
from raptr.plan.shape import ModelShape, StackShape
from raptr.plan.subnetwork import Copy, Subnetwork

Sampler = Literal["fixed", "bernoulli"]


@dataclass(frozen=True)
class RaPTr:
    """Progressive subnetwork training by depth.

    In a stage of size n of a stack of L layers with fixed set I, every layer of I is kept, and

    - ``sampler="fixed"``: n - |I| of the other layers, every such set equally likely;
    - ``sampler="bernoulli"``: each other layer by itself, with p = (n - |I|) / (L - |I|).

    Either way a layer outside I is kept with probability p. One path is drawn per step and used by
    the whole batch; stacks draw independently.

    Args:
        schedule: a `Schedule`, or its sizes as text, "6-8-10-12" or "50%-75%-100%".
        fixed: layers that are always kept, negative from the end; in every stack. The layers that a
            stack requires are added.
        sampler: "fixed" keeps exactly n layers, so that steps of a stage cost the same.
        seed: of the paths, from 0 to 2**64 - 1.

    Raises:
        RaptrError: here if the schedule or sampler cannot be right for any model, at `plan` if
            they do not fit this one.

    Example:
        >>> plan = RaPTr("6-8-10-12").plan(ModelShape.of(layers=12), steps=400)
        >>> [stage.label for stage in plan.stages], len(plan.subnetwork(0).layers[0])
        (['6', '8', '10', '12'], 6)

    Reference:
        "Efficient Stagewise Pretraining via Progressive Subnetworks", arXiv 2402.05913. The paper
        draws Bernoulli paths; the exact count is ours (docs/deviations.md).
    """

    schedule: Schedule | str
    _: KW_ONLY
    fixed: tuple[int, ...] = (0, -1)
    sampler: Sampler = "fixed"
    seed: int = 0
    name = "raptr"

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", Schedule.parse(self.schedule))
        if not isinstance(self.schedule, Schedule):
            raise RaptrError(f'schedule {self.schedule!r} is neither a Schedule nor text such as "6-8-10-12".')
        if not isinstance(self.fixed, Iterable):
            raise RaptrError(f"fixed={self.fixed!r} is not a tuple of layer numbers such as (0, -1).")
        object.__setattr__(self, "fixed", tuple(self.fixed))
        if self.sampler not in get_args(Sampler):
            raise RaptrError(f"sampler {self.sampler!r} is not known; expected 'fixed' or 'bernoulli'.")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**64:
            raise RaptrError(f"seed {self.seed} is not between 0 and 2**64 - 1.")

    def __str__(self) -> str:
        return f"RaPTr {self.schedule}"

    def plan(self, shape: ModelShape, steps: int) -> "RaPTrPlan":
        """Bind to a model's shape and a run of ``steps`` steps.

        Raises:
            RaptrError: a fixed layer is out of range, a stage is smaller than the fixed set or the
                stage before it, the last stage is not the whole model, or the schedule does not fit.
        """
        assert isinstance(self.schedule, Schedule)
        fixed = _with_required([_resolve_fixed(self.fixed, stack) for stack in shape.stacks], shape.stacks)
        stages = self.schedule.bind(shape, steps)
        grown = [stage for stage in stages if not stage.warmup]
        for stack, always, *sizes in zip(shape.stacks, fixed, *(stage.sizes for stage in grown), strict=True):
            if sizes[0] < len(always):
                raise RaptrError(
                    f"schedule {self.schedule} begins with {sizes[0]} layers of {stack.name!r}, but its fixed set "
                    f"{always} holds {len(always)}; begin with more layers or fix fewer."
                )
            if sizes != sorted(sizes):
                raise RaptrError(
                    f"schedule {self.schedule} shrinks ({'-'.join(map(str, sizes))} layers of {stack.name!r}); "
                    "RaPTr grows: give sizes that do not fall."
                )
            if sizes[-1] != stack.layers:
                raise RaptrError(
                    f"schedule {self.schedule} ends with {sizes[-1]} of the {stack.layers} layers of "
                    f"{stack.name!r}; the last stage trains the whole model: end with {stack.layers} or 100%."
                )
        return RaPTrPlan(shape=shape, stages=stages, fixed=fixed, sampler=self.sampler, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class RaPTrPlan:
    """`RaPTr`, bound to a shape and a number of steps; ``fixed`` is resolved per stack."""

    shape: ModelShape
    stages: tuple[Stage, ...]
    fixed: tuple[tuple[int, ...], ...]
    sampler: Sampler
    seed: int

    @cached_property
    def _free(self) -> tuple[tuple[int, ...], ...]:
        """The layers of each stack that are not fixed."""
        pairs = zip(self.shape.layers, self.fixed, strict=True)
        return tuple(tuple(i for i in range(count) if i not in always) for count, always in pairs)

    def stage(self, step: int) -> Stage:
        """The stage of a step."""
        return stage_at(self.stages, step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """The path of a step: a function of (seed, step, micro, stack)."""
        stage = self.stage(step)
        return Subnetwork(tuple(self._path(i, stage.sizes[i], step, micro) for i in range(len(stage.sizes))))

    def transition(self, step: int) -> tuple[Copy, ...]:
        """RaPTr copies nothing: the layers are there from the start."""
        return ()

    def keep(self, stage: Stage) -> Keep:
        """1 for fixed layers, p for the others."""
        return tuple(
            tuple(1.0 if layer in always else self._probability(i, stage.sizes[i]) for layer in range(count))
            for i, (count, always) in enumerate(zip(self.shape.layers, self.fixed, strict=True))
        )

    def _probability(self, stack: int, size: int) -> float:
        free = len(self._free[stack])
        return (size - len(self.fixed[stack])) / free if free else 1.0

    def _path(self, stack: int, size: int, step: int, micro: int) -> tuple[int, ...]:
        free, always = self._free[stack], self.fixed[stack]
        if size == self.shape.layers[stack]:
            return tuple(range(size))
        words = draw.words(self.seed, draw.PATHS, (step, micro, stack), len(free))
        if self.sampler == "fixed":
            chosen = np.argsort(words, kind="stable")[: size - len(always)]
        else:
            chosen = np.flatnonzero(draw.uniforms(words) < self._probability(stack, size))
        return tuple(sorted((*always, *(free[i] for i in chosen))))


def _resolve_fixed(fixed: tuple[int, ...], stack: StackShape) -> tuple[int, ...]:
    for layer in fixed:
        if not isinstance(layer, int) or not -stack.layers <= layer < stack.layers:
            raise RaptrError(
                f"fixed layer {layer} is out of range: {stack.name!r} has the layers 0 to {stack.layers - 1} "
                f"(or {-stack.layers} to -1 from the end)."
            )
    return tuple(sorted({layer % stack.layers for layer in fixed}))


def _with_required(fixed: Sequence[tuple[int, ...]], stacks: Sequence[StackShape]) -> tuple[tuple[int, ...], ...]:
    """The fixed sets with the layers that the stacks require; what is added is said."""
    result, added = [], []
    for always, stack in zip(fixed, stacks, strict=True):
        more = {layer: reason for layer, reason in stack.required if layer not in always}
        added += [f"layer {layer} of {stack.name!r}: {reason}" for layer, reason in more.items()]
        result.append(tuple(sorted({*always, *more})))
    if added:
        warnings.warn(
            f"the fixed set was enlarged by layers that cannot be left out ({'; '.join(added)}); "
            "they are kept at every step, and count in the sizes of the schedule.",
            stacklevel=3,
        )
    return tuple(result)
