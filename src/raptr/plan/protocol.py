"""What a method and a plan are, for everything that uses them.

A user's own plan needs only `subnetwork` and `transition` (`Trainable`), ten lines; what raptr
itself offers also knows its stages and its expected cost (`Plan`).
"""

from typing import Any, Protocol

from raptr.plan.schedule import Stage
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import Copy, Subnetwork

Keep = tuple[tuple[float, ...], ...]
"""The probability of each layer of each stack to be kept."""

Width = tuple[tuple[float, float], ...]
"""Of each stack, which share of its heads and of its neurons a kept layer runs."""


class Trainable(Protocol):
    """The two pure functions that training needs."""

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """What runs at this step (and micro-step, where gradients are accumulated)."""
        ...

    def transition(self, step: int) -> tuple[Copy, ...]:
        """What is copied before this step; empty except at the boundaries of growth methods."""
        ...


class Plan(Trainable, Protocol):
    """A method bound to a model's shape and a run's length: frozen, pure, any step in any order.

    Three more functions are asked for where a plan has them: ``width(stage)`` (see `width_of`), ``lr_factor(step)``
    (see `lr_factor_of`) and ``for_rows(rows)`` (see `for_rows`).
    """

    @property
    def shape(self) -> ModelShape:
        """The shape it was bound to."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, the warm-up first; they cover the run without a gap."""
        ...

    def stage(self, step: int) -> Stage:
        """The stage of a step."""
        ...

    def keep(self, stage: Stage) -> Keep:
        """The probability of each layer to be kept at a step of this stage, on average over it."""
        ...


class Method(Protocol):
    """The rule that says which subnetwork is trained at which step: a frozen, serialisable spec.

    A spec whose plans do not just skip layers says so in an attribute ``skips`` (see `skips_of`).
    """

    @property
    def name(self) -> str:
        """The method's key in `raptr.plan.METHODS`."""
        ...

    def plan(self, shape: ModelShape, steps: int) -> Plan:
        """Bind to a model's shape and a run's length; everything that can be wrong is refused here."""
        ...


def skips_of(method: Any) -> frozenset[str]:
    """Return what steps of a method leave out: its attribute ``skips``, or layers if it has none.

    Args:
        method: a spec or its class. ``skips`` is a tuple of any of "layers", "width" (heads or neurons of kept layers)
            and "sequences" (of the batch, of kept layers).

    Example:
        >>> from raptr.plan.methods import DepthWidthRaPTr, Full
        >>> sorted(skips_of(DepthWidthRaPTr)), sorted(skips_of(Full))
        (['layers', 'width'], [])
    """
    return frozenset(getattr(method, "skips", ("layers",)))


def width_of(plan: Plan, stage: Stage) -> Width:
    """Which shares of its heads and neurons a kept layer runs in a stage: ``plan.width(stage)``, or all of them."""
    width = getattr(plan, "width", None)
    found: Width = ((1.0, 1.0),) * len(plan.shape.stacks) if width is None else width(stage)
    return found


def for_rows(plan: Plan, rows: int) -> Plan:
    """Return a plan whose expected costs are those of micro-batches of ``rows`` sequences: ``plan.for_rows(rows)``.

    A plan without this function does not depend on the size of a micro-batch, and is returned as it is. The plan's
    subnetworks are the same either way.

    Args:
        plan: of any method.
        rows: sequences of one micro-batch of one rank.

    Raises:
        RaptrError: the method would skip nothing with so few sequences.

    Example:
        >>> from raptr.plan.methods import SequenceLayerDropout
        >>> plan = SequenceLayerDropout(rate=0.6).plan(ModelShape.of(layers=2), steps=1)
        >>> [round(for_rows(plan, rows).keep(plan.stages[0])[0][1], 6) for rows in (2, 64)]  # 0.4 + 0.6**B / B
        [0.58, 0.4]
    """
    bind = getattr(plan, "for_rows", None)
    found: Plan = plan if bind is None else bind(rows)
    return found


def trained_part(plan: Plan, step: int) -> Subnetwork | None:
    """The layers that some step up to the end of this one's stage trains; None where that is every layer.

    Before its last boundary, the full model of a growth method holds layers that were never trained: its own loss then
    says nothing, and that of this part is what has been reached.
    """
    now = plan.stages.index(plan.stage(step))
    kept = [plan.keep(stage) for stage in plan.stages[: now + 1]]
    layers = tuple(
        tuple(layer for layer in range(count) if any(keep[i][layer] > 0 for keep in kept))
        for i, count in enumerate(plan.shape.layers)
    )
    part = Subnetwork(layers)
    return None if part == Subnetwork.full(plan.shape) else part


def lr_factor_of(plan: Trainable, step: int) -> float:
    """What the learning rate of a step is multiplied with: ``plan.lr_factor(step)``, or 1."""
    factor = getattr(plan, "lr_factor", None)
    return 1.0 if factor is None else float(factor(step))
