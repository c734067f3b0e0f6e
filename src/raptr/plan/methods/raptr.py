"""RaPTr: random paths that grow in stages until they are the whole model."""

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from raptr.errors import RaptrError
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.fields import as_layers, as_schedule, check_fields
from raptr.plan.methods.path_plan import Kept, PathPlan, bind_paths, check_sizes
from raptr.plan.methods.spec_parts import HALF_DEPTH, Redraw, Sampler, Scaling, always_kept
from raptr.plan.schedule import Schedule
from raptr.plan.shape import ModelShape

Fixed = tuple[int, ...] | tuple[tuple[int, ...], ...]
"""Layers that are always kept; or one such tuple for each stage."""


@dataclass(frozen=True)
class RaPTr:
    """Progressive subnetwork training by depth: random paths, longer from stage to stage, at last the whole model.

    One path is drawn per step and used by the whole batch; stacks draw independently. The rules by which
    layers are drawn and scaled are those of `raptr.plan.methods.path_plan.PathPlan`.

    Args:
        schedule: a `Schedule`, or its sizes as text, "6-8-10-12" or "50%-75%-100%".
        fixed: layers that are always kept, negative from the end; in every stack. One tuple for all stages,
            or a tuple of one for each stage of the schedule. The layers that a stack requires are added.
        sampler: "fixed" keeps exactly n layers, so that steps of a stage cost the same; "bernoulli" keeps each
            free layer by itself, n of them on average.
        scaling: "none", "inverse" or "sqrt": the factor on a kept layer's residual update; pre-norm layers only.
        redraw: "step" draws a path for each optimizer step, "micro_step" for each micro-step.
        seed: of the paths, from 0 to 2**64 - 1.
        transition_lr: what the learning rate does at stage boundaries; nothing if not given.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if it does not fit this one.

    Example:
        >>> plan = RaPTr("6-8-10-12").plan(ModelShape.of(layers=12), steps=400)
        >>> [stage.label for stage in plan.stages], len(plan.subnetwork(0).layers[0])
        (['6', '8', '10', '12'], 6)

    Reference:
        "Efficient Stagewise Pretraining via Progressive Subnetworks", arXiv 2402.05913. The paper
        draws Bernoulli paths; the exact count is ours (docs/deviations.md).
    """

    schedule: Schedule | str = HALF_DEPTH
    _: KW_ONLY
    fixed: Fixed = (0, -1)
    sampler: Sampler = "fixed"
    scaling: Scaling = "none"
    redraw: Redraw = "step"
    seed: int = 0
    transition_lr: TransitionLR | None = None
    name = "raptr"
    skips = ("layers",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", as_schedule(self.schedule))
        object.__setattr__(self, "fixed", _as_fixed(self.fixed, self._schedule))
        check_fields(self)

    def __str__(self) -> str:
        return f"RaPTr {self.schedule}"

    @property
    def _schedule(self) -> Schedule:
        assert isinstance(self.schedule, Schedule)
        return self.schedule

    def plan(self, shape: ModelShape, steps: int) -> PathPlan:
        """Bind to a model's shape and a run of ``steps`` steps.

        Raises:
            RaptrError: a fixed layer is out of range, a stage is smaller than its fixed set or the
                stage before it, the last stage is not the whole model, or the schedule does not fit.
        """
        stages = self._schedule.bind(shape, steps)
        grown = [stage for stage in stages if not stage.warmup]
        fixed = _of_stages(self.fixed, len(grown), shape)
        check_sizes(self._schedule, grown, fixed, shape)
        for stack, *sizes in zip(shape.stacks, *(stage.sizes for stage in grown), strict=True):
            if sizes != sorted(sizes):
                raise RaptrError(
                    f"schedule {self.schedule} shrinks ({'-'.join(map(str, sizes))} layers of {stack.name!r}); "
                    "RaPTr grows: give sizes that do not fall (a control that shrinks is the method 'reversed')."
                )
            if sizes[-1] != stack.layers:
                raise RaptrError(
                    f"schedule {self.schedule} ends with {sizes[-1]} of the {stack.layers} layers of "
                    f"{stack.name!r}; the last stage trains the whole model: end with {stack.layers} or 100%."
                )
        return bind_paths(self, shape, stages, (fixed[0],) * (len(stages) - len(grown)) + fixed, self.transition_lr)


def _as_fixed(fixed: Any, schedule: Schedule) -> Fixed:
    given = tuple(fixed) if isinstance(fixed, Iterable) else fixed
    if not isinstance(given, tuple) or not any(isinstance(each, Iterable) for each in given):
        return as_layers(given)
    sets = tuple(map(as_layers, given))
    if len(sets) != len(schedule.sizes):
        raise RaptrError(
            f"fixed has {len(sets)} sets for the {len(schedule.sizes)} stages of schedule {schedule}; "
            "give one for each stage, or one tuple of layer numbers for all."
        )
    return sets


def _of_stages(fixed: Fixed, count: int, shape: ModelShape) -> tuple[Kept, ...]:
    """The fixed layers of each stage, for each stack."""
    if any(isinstance(each, tuple) for each in fixed):
        return tuple(always_kept(each, shape) for each in fixed if isinstance(each, tuple))
    return (always_kept(tuple(each for each in fixed if isinstance(each, int)), shape),) * count
