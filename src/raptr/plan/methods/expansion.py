"""Late expansion: almost the whole run trains a model of 0, 1 or a few layers; all others come at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raptr.errors import RaptrError
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.fields import check_count, check_fields, check_share
from raptr.plan.methods.growth_plan import GrowthPlan, Paths, Sources, bind_growth, prefixes, stages_around
from raptr.plan.methods.stacking import State
from raptr.plan.shape import ModelShape, StackShape

New = Literal["copy", "fresh", "silent"]
"""What new layers are: copies, their own initial values, or those with their output projections zeroed."""


@dataclass(frozen=True, kw_only=True)
class LateExpansion:
    """One growth step, late: from 0, 1 or k layers to all of them.

    New layers are, with ``new``,

    - ``"copy"``: copies of the trained layers, layer j of layer j mod k;
    - ``"fresh"``: as they were initialised;
    - ``"silent"``: as they were initialised, but with their output projections set to zero, so that the grown model
      (of pre-norm layers) begins where the small one ended.

    The paper uses a warm-up-stable-decay learning rate whose decay comes after the growth.

    Args:
        layers: k, from 0 on.
        at: the share of the run at which the model grows, between 0 and 1; the boundary is the nearest step.
        new: what new layers are.
        state: "copy" gives copied layers the optimizer state of those they are copied from, "reset" none.
        transition_lr: what the learning rate does at the boundary; nothing if not given.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if the model has no more layers than k.

    Example:
        >>> plan = LateExpansion(layers=1, at=0.8).plan(ModelShape.of(layers=4), steps=100)
        >>> plan.subnetwork(79).layers, [(copy.source, copy.target) for copy in plan.transition(80)]
        (((0,),), [(0, 1), (0, 2), (0, 3)])

    Reference:
        Zero/one-layer progressive training, arXiv 2511.04981.
    """

    layers: int = 1
    at: float = 0.8
    new: New = "copy"
    state: State = "copy"
    transition_lr: TransitionLR | None = None
    name = "late_expansion"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_count("layers", self.layers, least=0)
        check_share("at", self.at, least=1e-6, one=False)
        check_fields(self)
        if self.layers == 0 and self.new == "copy":
            raise RaptrError("layers=0 leaves nothing to copy; give new='fresh' or 'silent', or begin with a layer.")

    def __str__(self) -> str:
        return f"Late expansion {self.layers} at {self.at:.0%}"

    def plan(self, shape: ModelShape, steps: int) -> GrowthPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        for stack in shape.stacks:
            if stack.layers <= self.layers:
                raise RaptrError(
                    f"layers={self.layers} leaves nothing to grow: {stack.name!r} has {stack.layers}; begin with fewer."
                )

        def grow(sizes: Sequence[int], stack: StackShape) -> tuple[Paths, Sources]:
            paths = prefixes((self.layers, stack.layers))
            added = range(self.layers, stack.layers)
            if self.new == "copy":
                return paths, ({}, {layer: layer % self.layers for layer in added})
            return paths, ({}, {layer: layer for layer in added} if self.new == "silent" else {})

        return bind_growth(
            stages_around(self.at, shape, [self.layers] * len(shape.stacks), steps),
            shape,
            grow,
            reset=self.state == "reset" or self.new != "copy",
            silent=self.new == "silent",
            transition_lr=self.transition_lr,
        )
