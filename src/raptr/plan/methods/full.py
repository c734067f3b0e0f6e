"""Full training: the whole model at every step. The baseline of every comparison."""

from dataclasses import dataclass
from functools import cached_property

from raptr.plan.protocol import Keep
from raptr.plan.schedule import Stage, check_steps, stage_at
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import Copy, Subnetwork


@dataclass(frozen=True, kw_only=True)
class Full:
    """Standard training of all layers at every step.

    Example:
        >>> Full().plan(ModelShape.of(layers=4), steps=10).subnetwork(3).layers
        ((0, 1, 2, 3),)
    """

    name = "full"
    skips = ()

    def __str__(self) -> str:
        return "Full"

    def plan(self, shape: ModelShape, steps: int) -> "FullPlan":
        """Bind to a model's shape and a run of ``steps`` steps."""
        check_steps(steps)
        return FullPlan(shape=shape, stages=(Stage(start=0, stop=steps, sizes=shape.layers),))


@dataclass(frozen=True, kw_only=True)
class FullPlan:
    """`Full`, bound: every layer at every step."""

    shape: ModelShape
    stages: tuple[Stage, ...]

    @cached_property
    def _all(self) -> Subnetwork:
        return Subnetwork.full(self.shape)

    def stage(self, step: int) -> Stage:
        """The stage of a step: there is one."""
        return stage_at(self.stages, step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """The whole model."""
        self.stage(step)
        return self._all

    def transition(self, step: int) -> tuple[Copy, ...]:
        """Nothing is ever copied."""
        return ()

    def keep(self, stage: Stage) -> Keep:
        """Every layer is kept with probability 1."""
        return tuple((1.0,) * count for count in self.shape.layers)
