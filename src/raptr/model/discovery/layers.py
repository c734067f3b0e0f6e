"""Everything that is checked before a model is touched."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from raptr.errors import RaptrError
from raptr.model.discovery.meta_twin import Inputs
from raptr.model.discovery.recorded_run import repeated
from raptr.model.discovery.verify import Verified, verify
from raptr.model.gate.batch_subset import other_order
from raptr.model.gate.outputs import Returns, Signature
from raptr.model.stacks import Blocks, Stack, find_stacks, is_hugging_face, shape_of
from raptr.model.width.locate import LayerWidth, Unsupported, find_width
from raptr.plan import ModelShape, StackShape


@dataclass(frozen=True)
class Layers:
    """A model's stacks and what is known of them.

    Attributes:
        stacks: in running order.
        verified: what a recorded run showed of each; None where the layers are taken on trust.
        widths: the heads and neurons that can be chosen in each, or why none can.
    """

    stacks: tuple[Stack, ...]
    verified: tuple[Verified, ...] | None
    widths: tuple[tuple[LayerWidth, ...] | Unsupported, ...]

    @cached_property
    def shape(self) -> ModelShape:
        """The stacks, their layers, and which of them are required."""
        shape = shape_of(self.stacks, [found.required for found in self.verified or ()])
        return ModelShape(tuple(map(_with_width, shape.stacks, self.widths)))

    @cached_property
    def orders(self) -> tuple[tuple[str | None, ...], ...]:
        """Of each layer of each stack, why the sequences of its batch cannot be told apart; None if nothing says so."""
        return tuple(tuple(map(other_order, stack.blocks)) for stack in self.stacks)

    @cached_property
    def in_part(self) -> tuple[bool, ...]:
        """Of each stack, whether every layer is known to scale its update, and to run on some sequences only."""
        return tuple(
            found is not None and not found.aside and all(b.residual for b in found.branches) and not any(orders)
            for found, orders in zip(self.verified or (None,) * len(self.stacks), self.orders, strict=True)
        )

    @cached_property
    def pre_norm(self) -> bool:
        """Whether every layer is known to return its input plus an update, as those with their norms before do."""
        return self.verified is not None and all(b.residual for found in self.verified for b in found.branches)

    def returns(self, stack: int) -> Returns:
        """What the blocks of a stack return, as far as it is known before they run."""
        name = self.stacks[stack].name
        if self.verified is None:
            return Returns(name)
        return Returns(name, verified=True, pattern=self.verified[stack].pattern)


def find_layers(model: nn.Module, blocks: Blocks | None = None, inputs: Inputs | None = None) -> Layers:
    """Find a model's layers and tell which of them can be skipped; the model is not touched.

    Args:
        model: the model.
        blocks: as for `raptr.attach`.
        inputs: as for `raptr.attach`.

    Raises:
        RaptrError: the layers cannot be told, or cannot be left out; with what was seen, and what to do.
    """
    _refuse_layerdrop(model)
    try:
        stacks = find_stacks(model, blocks)
    except RaptrError as error:
        reason = repeated(model) if blocks is None and is_hugging_face(model) else None
        if reason is None:
            raise
        raise RaptrError(f"{type(model).__name__} cannot be trained by parts: {reason}.") from error
    for stack in stacks:
        for block in stack.blocks:
            Signature.of(block)
    trusted = inputs is None and (blocks is not None or not is_hugging_face(model))
    return Layers(stacks, None if trusted else verify(model, stacks, inputs), tuple(map(find_width, stacks)))


def _with_width(shape: StackShape, found: tuple[LayerWidth, ...] | Unsupported) -> StackShape:
    """With the heads and neurons that can be chosen, or why none can."""
    if isinstance(found, Unsupported):
        return replace(shape, narrow=found.reason)
    return replace(shape, heads=found[0].heads, neurons=found[0].neurons)


def _refuse_layerdrop(model: nn.Module) -> None:
    """Refuse a model that leaves out layers at random by itself."""
    found: dict[str, Any] = {
        f"{name}.layerdrop".lstrip("."): module.layerdrop
        for name, module in model.named_modules()
        if is_hugging_face(module) and hasattr(module, "layerdrop")
    }
    if not found and is_hugging_face(model):
        names = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")
        found = {f"config.{name}": getattr(model.config, name, 0.0) for name in names}
    for name, value in found.items():
        if isinstance(value, float) and value > 0:
            raise RaptrError(
                f"{type(model).__name__} leaves out layers at random by itself ({name} = {value}), which would change "
                f"the paths that a plan says; set it to 0 (model.{name} = 0.0) before attaching."
            )
