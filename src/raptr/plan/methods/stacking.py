"""Stacking: a small model is trained first, and its layers are copied to make it larger."""

import itertools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from fractions import Fraction
from typing import Literal

from raptr.errors import RaptrError
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.fields import as_schedule, check_count, check_fields, check_share
from raptr.plan.methods.growth_plan import (
    GrowthPlan,
    Paths,
    Sources,
    bind_growth,
    check_no_warmup,
    prefixes,
    stages_around,
)
from raptr.plan.schedule import Schedule
from raptr.plan.shape import ModelShape, StackShape

State = Literal["copy", "reset"]
"""What new layers begin with: the optimizer state of the layers they are copied from, or none."""


@dataclass(frozen=True)
class GradualStacking:
    """The model grows by a block of layers per stage, on top, and each new block is a copy of the last one.

    Growing from n to n + b layers copies layers n - b .. n - 1 onto n .. n + b - 1.

    Args:
        schedule: a `Schedule` whose sizes rise to the whole model, or its sizes as text.
        state: "copy" gives new layers the optimizer state of those they are copied from, "reset" none.
        transition_lr: what the learning rate does at stage boundaries; nothing if not given.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if a stage grows by more layers than
            there are, or the schedule does not fit.

    Example:
        >>> plan = GradualStacking("6-9-12").plan(ModelShape.of(layers=12), steps=300)
        >>> [(copy.source, copy.target) for copy in plan.transition(100)]
        [(3, 6), (4, 7), (5, 8)]

    Reference:
        "Efficient Training of Language Models using Few-Shot Learning", Reddi et al., ICML 2023; compared in
        arXiv 2402.05913 as 6-9-12.
    """

    schedule: Schedule | str = "50%-75%-100%"
    _: KW_ONLY
    state: State = "copy"
    transition_lr: TransitionLR | None = None
    name = "gradual_stacking"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_fields(self)
        check_no_warmup(self._schedule, self.name)

    def __str__(self) -> str:
        return f"Gradual stacking {self.schedule}"

    @property
    def _schedule(self) -> Schedule:
        assert isinstance(self.schedule, Schedule)
        return self.schedule

    def plan(self, shape: ModelShape, steps: int) -> GrowthPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        stages = self._schedule.bind(shape, steps)
        return bind_growth(stages, shape, _last_block, reset=self.state == "reset", transition_lr=self.transition_lr)


@dataclass(frozen=True, kw_only=True)
class ProgressiveStacking:
    """The depth doubles at each boundary: the whole trained stack is copied on top of itself.

    Growing from n to 2 n layers copies layer i onto n + i. The sizes follow from the model's depth: it is halved as
    often as it can be, ``doublings`` times at most (12 layers: 3-6-12).

    Args:
        doublings: how often the depth doubles, at least 1.
        lengths: of the stages, as for `Schedule`.
        state: "copy" gives new layers the optimizer state of those they are copied from, "reset" none.
        transition_lr: what the learning rate does at stage boundaries; nothing if not given.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if the depth is odd.

    Example:
        >>> plan = ProgressiveStacking().plan(ModelShape.of(layers=12), steps=300)
        >>> [stage.label for stage in plan.stages], [(copy.source, copy.target) for copy in plan.transition(100)]
        (['3', '6', '12'], [(0, 3), (1, 4), (2, 5)])

    Reference:
        "Efficient Training of BERT by Progressively Stacking", Gong et al., ICML 2019.
    """

    doublings: int = 2
    lengths: str | tuple[int, ...] | tuple[float, ...] = "equal"
    state: State = "copy"
    transition_lr: TransitionLR | None = None
    name = "progressive_stacking"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_count("doublings", self.doublings, least=1)
        checked = Schedule((1,) * (self.doublings + 1), lengths=self.lengths)
        object.__setattr__(self, "lengths", checked.lengths)
        check_fields(self)

    def __str__(self) -> str:
        return "Progressive stacking"

    def plan(self, shape: ModelShape, steps: int) -> GrowthPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        times = min(self.doublings, *(_twos(count) for count in shape.layers))
        if not times:
            raise RaptrError(
                f"progressive stacking doubles the depth, but the model has {'+'.join(map(str, shape.layers))} layers; "
                "use an even number of layers, or gradual_stacking."
            )
        schedule = Schedule(tuple(Fraction(1, 2**k) for k in reversed(range(times + 1))), lengths=self.lengths)
        stages = schedule.bind(shape, steps)
        return bind_growth(stages, shape, _whole_stack, reset=self.state == "reset", transition_lr=self.transition_lr)


@dataclass(frozen=True)
class MIDAS:
    """The model grows by a block of layers per stage, and each new block is a copy of the *middle* one, put behind it.

    With blocks of b layers, growing from k of them copies block ceil(k / 2); where a stage's growth does not divide
    its depth n, the b layers from (n - b) // 2 on. Stage lengths are proportional to s**alpha.

    Layers stay where they will be at last: a stage's path is a part of the final model, so that nothing but new
    layers is written (docs/deviations.md).

    Args:
        schedule: a `Schedule` whose sizes rise to the whole model, or its sizes as text, then with lengths
            proportional to s (alpha = 1).
        state: "copy" gives new layers the optimizer state of those they are copied from, "reset" none.
        transition_lr: what the learning rate does at stage boundaries; nothing if not given.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if a stage grows by more layers than
            there are, or the schedule does not fit.

    Example:
        >>> plan = MIDAS("3-6-9-12").plan(ModelShape.of(layers=12), steps=1000)
        >>> plan.paths[0].layers, [(copy.source, copy.target) for copy in plan.copies[1]]
        (((0, 1, 2),), [(0, 9), (1, 10), (2, 11)])

    Reference:
        "On the Inductive Bias of Stacking Towards Improving Reasoning", arXiv 2409.19044.
    """

    schedule: Schedule | str = "25%-50%-75%-100%"
    _: KW_ONLY
    state: State = "copy"
    transition_lr: TransitionLR | None = None
    name = "midas"
    skips = ("layers",)

    def __post_init__(self) -> None:
        schedule = as_schedule(self.schedule)
        if isinstance(self.schedule, str):
            schedule = replace(schedule, lengths="proportional")
        object.__setattr__(self, "schedule", schedule)
        check_no_warmup(schedule, self.name)
        check_fields(self)

    def __str__(self) -> str:
        return f"MIDAS {self.schedule}"

    def plan(self, shape: ModelShape, steps: int) -> GrowthPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        assert isinstance(self.schedule, Schedule)
        stages = self.schedule.bind(shape, steps)
        return bind_growth(stages, shape, _middle_block, reset=self.state == "reset", transition_lr=self.transition_lr)


@dataclass(frozen=True, kw_only=True)
class GStack:
    """One growth step: a model of L / g layers is trained, then its whole depth is repeated g times.

    At the boundary layer j is a copy of layer j mod (L / g).

    Args:
        growth: g, at least 2; it must divide the number of layers.
        at: the share of the run that the small model is trained for, between 0 and 1; the boundary is the nearest step.
        state: "copy" gives new layers the optimizer state of those they are copied from, "reset" none.
        transition_lr: what the learning rate does at the boundary; nothing if not given.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if g does not divide its depth.

    Example:
        >>> plan = GStack(growth=4, at=0.25).plan(ModelShape.of(layers=8), steps=100)
        >>> [(copy.source, copy.target) for copy in plan.transition(25)]
        [(0, 2), (1, 3), (0, 4), (1, 5), (0, 6), (1, 7)]

    Reference:
        "Stacking Your Transformers: A Closer Look at Model Growth for Efficient LLM Pre-Training", arXiv 2405.15319.
    """

    growth: int = 4
    at: float = 0.1
    state: State = "copy"
    transition_lr: TransitionLR | None = None
    name = "gstack"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_count("growth", self.growth, least=2)
        check_share("at", self.at, least=1e-6, one=False)
        check_fields(self)

    def __str__(self) -> str:
        return f"G_stack {self.growth}x at {self.at:.0%}"

    def plan(self, shape: ModelShape, steps: int) -> GrowthPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        for stack in shape.stacks:
            if stack.layers % self.growth:
                divisors = [str(g) for g in range(2, stack.layers + 1) if stack.layers % g == 0]
                raise RaptrError(
                    f"growth={self.growth} does not divide the {stack.layers} layers of {stack.name!r}; "
                    f"use {' or '.join(divisors) if divisors else 'a model of more layers'}."
                )
        stages = stages_around(self.at, shape, [count // self.growth for count in shape.layers], steps)
        return bind_growth(stages, shape, _whole_stack, reset=self.state == "reset", transition_lr=self.transition_lr)


def _last_block(sizes: Sequence[int], stack: StackShape) -> tuple[Paths, Sources]:
    sources: list[dict[int, int]] = [{}]
    for before, after in itertools.pairwise(sizes):
        _check_block(before, after, stack)
        sources.append({layer: layer - (after - before) for layer in range(before, after)})
    return prefixes(sizes), tuple(sources)


def _whole_stack(sizes: Sequence[int], stack: StackShape) -> tuple[Paths, Sources]:
    copied = [{layer: layer % before for layer in range(before, after)} for before, after in itertools.pairwise(sizes)]
    return prefixes(sizes), ({}, *copied)


def _middle_block(sizes: Sequence[int], stack: StackShape) -> tuple[Paths, Sources]:
    order = list(range(sizes[0]))  # layers by the time they were made, in the order in which they run
    grown = [tuple(order)]
    copied: list[dict[int, int]] = [{}]
    for before, after in itertools.pairwise(sizes):
        _check_block(before, after, stack)
        block = after - before
        start = ((before // block + 1) // 2 - 1) * block if before % block == 0 else (before - block) // 2
        new = range(before, after)
        copied.append(dict(zip(new, order[start : start + block], strict=True)))
        order[start + block : start + block] = new
        grown.append(tuple(order))
    place = {layer: position for position, layer in enumerate(order)}
    paths = tuple(tuple(place[layer] for layer in path) for path in grown)
    return paths, tuple({place[new]: place[old] for new, old in each.items()} for each in copied)


def _check_block(before: int, after: int, stack: StackShape) -> None:
    if after - before > before:
        raise RaptrError(
            f"a stage grows from {before} to {after} layers of {stack.name!r}, but only {before} layers are there "
            "to be copied; grow by fewer layers at a time."
        )


def _twos(count: int) -> int:
    """How often a number can be halved."""
    return (count & -count).bit_length() - 1
