"""`PathPlan`: random paths whose size is set by stages. What RaPTr and its controls become when they are bound."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from raptr.errors import RaptrError
from raptr.plan import rng
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.layer_part import WHOLE, LayerPart
from raptr.plan.methods.spec_parts import Redraw, Sampler, Scaling
from raptr.plan.protocol import Keep
from raptr.plan.schedule import Schedule, Stage, stage_at, stage_number_at
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import Copy, Subnetwork

Kept = tuple[tuple[int, ...], ...]
"""Layers of each stack."""


@dataclass(frozen=True, kw_only=True)
class PathPlan:
    """Random paths by stages, bound to a shape and a number of steps.

    In a stage of size n of a stack of L layers with fixed set I, every layer of I is kept, and

    - ``sampler="fixed"``: n - |I| of the other layers, every such set equally likely;
    - ``sampler="bernoulli"``: each other layer by itself, with p = (n - |I|) / (L - |I|).

    Either way a layer outside I is kept with probability p. A kept layer's residual update is multiplied with 1
    (``scaling="none"``), with 1 / p, of a layer of I with 1 (``"inverse"``), or with sqrt(L / k), where k layers of
    the stack are kept (``"sqrt"``).

    Attributes:
        shape: of the model.
        stages: of the run.
        fixed: of each stage, the layers of each stack that are always kept.
        sampler: how many layers a path keeps.
        scaling: the factor on a kept layer's residual update.
        redraw: whether a path holds for a step or a micro-step.
        seed: of the paths.
        transition_lr: what the learning rate does at stage boundaries.
    """

    shape: ModelShape
    stages: tuple[Stage, ...]
    fixed: tuple[Kept, ...]
    sampler: Sampler = "fixed"
    scaling: Scaling = "none"
    redraw: Redraw = "step"
    seed: int = 0
    transition_lr: TransitionLR | None = None

    @cached_property
    def _free(self) -> tuple[Kept, ...]:
        """Of each stage, the layers of each stack that are not fixed."""
        return tuple(
            tuple(
                tuple(i for i in range(count) if i not in always)
                for count, always in zip(self.shape.layers, map(frozenset, kept), strict=True)
            )
            for kept in self.fixed
        )

    def stage(self, step: int) -> Stage:
        """The stage of a step."""
        return stage_at(self.stages, step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """The path of a step: a function of (seed, step, stack), and of the micro-step where it is drawn for each."""
        k = stage_number_at(self.stages, step)
        place = (step, micro if self.redraw == "micro_step" else 0)
        paths = tuple(self._path(k, i, (*place, i)) for i in range(len(self.shape.stacks)))
        if self.scaling == "none":
            return Subnetwork.unchecked(paths)
        return Subnetwork.unchecked(paths, tuple(self._parts(k, i, path) for i, path in enumerate(paths)))

    def transition(self, step: int) -> tuple[Copy, ...]:
        """Nothing is copied: the layers are there from the start."""
        return ()

    def keep(self, stage: Stage) -> Keep:
        """1 for fixed layers, p for the others."""
        k = self.stages.index(stage)
        always = tuple(map(frozenset, self.fixed[k]))
        drawn = tuple(self._probability(k, i) for i in range(len(always)))
        return tuple(
            tuple(1.0 if layer in always[i] else drawn[i] for layer in range(count))
            for i, count in enumerate(self.shape.layers)
        )

    def lr_factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied with."""
        return 1.0 if self.transition_lr is None else self.transition_lr.factor(self.stages, step)

    def _probability(self, k: int, i: int) -> float:
        free = len(self._free[k][i])
        return (self.stages[k].sizes[i] - len(self.fixed[k][i])) / free if free else 1.0

    def _path(self, k: int, i: int, place: tuple[int, int, int]) -> tuple[int, ...]:
        free, always, size = self._free[k][i], self.fixed[k][i], int(self.stages[k].sizes[i])
        if size == self.shape.layers[i]:
            return tuple(range(size))
        words = rng.words(self.seed, rng.PATHS, place, len(free))
        if self.sampler == "fixed":
            chosen: Sequence[int] = rng.subset(words, size - len(always))
        else:
            chosen = rng.below(words, self._probability(k, i)).nonzero()[0].tolist()
        return tuple(sorted((*always, *map(free.__getitem__, chosen))))

    def _parts(self, k: int, i: int, path: tuple[int, ...]) -> tuple[LayerPart, ...]:
        if self.scaling == "sqrt":
            part = LayerPart(scale=(self.shape.layers[i] / len(path)) ** 0.5) if path else WHOLE
            return (part,) * len(path)
        part = LayerPart(scale=1 / p) if (p := self._probability(k, i)) else WHOLE
        return tuple(WHOLE if layer in self.fixed[k][i] else part for layer in path)


class Drawn(Protocol):
    """What the specs of random paths have in common."""

    @property
    def sampler(self) -> Sampler: ...

    @property
    def scaling(self) -> Scaling: ...

    @property
    def redraw(self) -> Redraw: ...

    @property
    def seed(self) -> int: ...


def bind_paths(
    spec: Drawn,
    shape: ModelShape,
    stages: tuple[Stage, ...],
    fixed: tuple[Kept, ...],
    transition_lr: TransitionLR | None = None,
) -> PathPlan:
    """The plan of a spec whose stages and fixed layers are known."""
    return PathPlan(
        shape=shape,
        stages=stages,
        fixed=fixed,
        sampler=spec.sampler,
        scaling=spec.scaling,
        redraw=spec.redraw,
        seed=spec.seed,
        transition_lr=transition_lr,
    )


def check_sizes(schedule: Schedule, stages: Sequence[Stage], fixed: Sequence[Kept], shape: ModelShape) -> None:
    """Refuse a stage that is smaller than its fixed set.

    Args:
        schedule: for the message.
        stages: without the warm-up.
        fixed: of each stage.
        shape: of the model.
    """
    for stage, kept in zip(stages, fixed, strict=True):
        for stack, always, size in zip(shape.stacks, kept, stage.sizes, strict=True):
            if size < len(always):
                raise RaptrError(
                    f"schedule {schedule} has a stage of {size:g} layers of {stack.name!r}, but its fixed set "
                    f"{always} holds {len(always)}; use more layers there or fix fewer."
                )
