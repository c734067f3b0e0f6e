"""`GrowthPlan`: a deterministic path that grows, with copies where it does. What stacking methods become when bound.

A growth method trains a small model, and makes it larger at stage boundaries. Here the small model is a path inside
the full-size one, and growing it copies layers onto layers that have not been trained yet, parameters and
optimizer state, in place. No parameter is created, so optimizer, scheduler, DDP, FSDP and checkpoints know
nothing of it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from raptr.errors import RaptrError
from raptr.messages import warn
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.protocol import Keep
from raptr.plan.schedule import Schedule, Stage, check_steps, nearest, stage_at, stage_number_at
from raptr.plan.shape import ModelShape, StackShape
from raptr.plan.subnetwork import Copy, Subnetwork

Paths = tuple[tuple[int, ...], ...]
"""Of one stack, the path of each stage."""

Sources = tuple[dict[int, int], ...]
"""Of one stack and each stage, which layer is copied onto which new one, target -> source."""


@dataclass(frozen=True, kw_only=True)
class GrowthPlan:
    """A growing path, bound to a shape and a number of steps.

    Attributes:
        shape: of the model.
        stages: of the run.
        paths: the path of each stage.
        copies: of each stage, what is made before its first step.
        transition_lr: what the learning rate does at stage boundaries.
    """

    shape: ModelShape
    stages: tuple[Stage, ...]
    paths: tuple[Subnetwork, ...]
    copies: tuple[tuple[Copy, ...], ...]
    transition_lr: TransitionLR | None = None

    def stage(self, step: int) -> Stage:
        """The stage of a step."""
        return stage_at(self.stages, step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """The path of the step's stage."""
        return self.paths[stage_number_at(self.stages, step)]

    def transition(self, step: int) -> tuple[Copy, ...]:
        """The copies of the stage that begins with this step; nothing within a stage."""
        stage = self.stage(step)
        return self.copies[self.stages.index(stage)] if step == stage.start else ()

    def keep(self, stage: Stage) -> Keep:
        """1 for the layers of the stage's path, 0 for the others."""
        paths = map(frozenset, self.paths[self.stages.index(stage)].layers)
        return tuple(
            tuple(float(layer in kept) for layer in range(count))
            for count, kept in zip(self.shape.layers, paths, strict=True)
        )

    def lr_factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied with."""
        return 1.0 if self.transition_lr is None else self.transition_lr.factor(self.stages, step)


Grow = Callable[[Sequence[int], StackShape], tuple[Paths, Sources]]
"""From the sizes of one stack, stage by stage, its paths and what is copied; refuses sizes that cannot be."""


def bind_growth(
    stages: Sequence[Stage],
    shape: ModelShape,
    grow: Grow,
    *,
    reset: bool,
    silent: bool = False,
    transition_lr: TransitionLR | None = None,
) -> GrowthPlan:
    """The plan of a growth method.

    Args:
        stages: of the run, with the number of layers that each stack of the growing model has.
        shape: of the model.
        grow: the method's own rule.
        reset: whether the optimizer state of new layers begins anew.
        silent: whether new layers begin as the identity.
        transition_lr: what the learning rate does at stage boundaries.

    Raises:
        RaptrError: sizes that do not rise to the whole model, or that the method's rule cannot make.
    """
    found = []
    for i, stack in enumerate(shape.stacks):
        sizes = [int(stage.sizes[i]) for stage in stages]
        _check_rising(sizes, stack)
        found.append(grow(sizes, stack))
    paths, copies = [], []
    for k in range(len(stages)):
        kept = [_with_required(path[k], stack) for (path, _), stack in zip(found, shape.stacks, strict=True)]
        paths.append(Subnetwork(tuple(kept)))
        made = []
        for i, (_, sources) in enumerate(found):
            there = frozenset(paths[k - 1].layers[i] if k else ())
            made += [
                Copy(stack=i, source=source, target=target, reset=reset, silent=silent)
                for target, source in sorted(sources[k].items())
                if target not in there
            ]
        copies.append(tuple(made))
    _say_required(paths, found, shape)
    return GrowthPlan(
        shape=shape,
        stages=tuple(replace(stage, sizes=path.sizes) for stage, path in zip(stages, paths, strict=True)),
        paths=tuple(paths),
        copies=tuple(copies),
        transition_lr=transition_lr,
    )


def prefixes(sizes: Sequence[int]) -> Paths:
    """Paths of the first layers, as many as each stage has."""
    return tuple(tuple(range(size)) for size in sizes)


def stages_around(at: float, shape: ModelShape, before: Sequence[int], steps: int) -> tuple[Stage, Stage]:
    """The two stages of a method that grows once, at a share of the run.

    Args:
        at: the share; the boundary is the nearest step.
        shape: of the model, which the second stage trains whole.
        before: the number of layers of each stack in the first stage.
        steps: of the run.

    Raises:
        RaptrError: one of the stages would have no step.
    """
    check_steps(steps)
    boundary = nearest(Fraction(at).limit_denominator(10**9) * steps)
    if not 0 < boundary < steps:
        raise RaptrError(
            f"at={at:g} leaves no step {'after' if boundary else 'before'} the growth in a run of {steps} steps; "
            "train longer, or grow at another time."
        )
    small = Stage(start=0, stop=boundary, sizes=tuple(before))
    return small, Stage(start=boundary, stop=steps, sizes=shape.layers)


def check_no_warmup(schedule: Schedule, name: str) -> None:
    """Refuse a full-model warm-up: a method that grows has no full model yet."""
    if schedule.warmup:
        raise RaptrError(
            f"{name} was given a warm-up of the full model, {schedule.warmup}, but its model has still to grow; "
            "leave it out."
        )


def _check_rising(sizes: Sequence[int], stack: StackShape) -> None:
    text = f"{'-'.join(map(str, sizes))} layers of {stack.name!r}"
    if any(after <= before for before, after in itertools.pairwise(sizes)):
        raise RaptrError(
            f"the schedule does not grow at each boundary ({text}); give sizes that rise, or fewer of them."
        )
    if sizes[-1] != stack.layers:
        raise RaptrError(
            f"the schedule ends with {sizes[-1]} of the {stack.layers} layers of {stack.name!r} ({text}); "
            f"the last stage trains the whole model: end with {stack.layers} or 100%."
        )


def _with_required(path: tuple[int, ...], stack: StackShape) -> tuple[int, ...]:
    return tuple(sorted({*path, *(layer for layer, _ in stack.required)}))


def _say_required(paths: Sequence[Subnetwork], found: Sequence[tuple[Paths, Sources]], shape: ModelShape) -> None:
    """Say which layers run earlier than the method would have them, because others need them."""
    added = [
        f"layer {layer} of {stack.name!r}: {reason}"
        for i, stack in enumerate(shape.stacks)
        for layer, reason in stack.required
        if layer in paths[0].layers[i] and layer not in found[i][0][0]
    ]
    if added:
        warn(
            f"layers that cannot be left out run from the beginning ({'; '.join(added)}); nothing is copied onto them.",
            inside=("raptr.plan.",),
        )
