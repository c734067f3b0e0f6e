"""The shape of a model: all that a method needs to know of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from raptr.errors import RaptrError


@dataclass(frozen=True)
class StackShape:
    """One stack of a model.

    Attributes:
        name: its name in the model ("model.layers").
        layers: its number of layers.
        required: (layer, reason) pairs of the layers that no path can leave out, because they make
            something that others need (T5's first layer: the position bias).

    Raises:
        RaptrError: fewer than 1 layer, or a required layer that is not one of them or named twice.
    """

    name: str
    layers: int
    required: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int) or self.layers < 1:
            raise RaptrError(f"stack {self.name!r} has {self.layers} layers; a stack has at least 1.")
        object.__setattr__(self, "required", tuple(sorted((layer, reason) for layer, reason in self.required)))
        needed = [layer for layer, _ in self.required]
        if len(set(needed)) != len(needed) or not all(0 <= layer < self.layers for layer in needed):
            raise RaptrError(
                f"required layers {needed} of stack {self.name!r} are not different layers from 0 to {self.layers - 1}."
            )


@dataclass(frozen=True)
class ModelShape:
    """The stacks of a model, in the order in which they run.

    BERT and decoder-only models have one stack, encoder-decoder models two.

    Example:
        >>> ModelShape.of(layers=12).layers
        (12,)
    """

    stacks: tuple[StackShape, ...]

    def __post_init__(self) -> None:
        names = [stack.name for stack in self.stacks]
        if not names or len(set(names)) != len(names):
            raise RaptrError(f"a model has at least one stack, each with a name of its own; given: {names}.")

    @classmethod
    def of(cls, *, layers: int | Sequence[int]) -> "ModelShape":
        """A shape without a model: ``layers=12`` for one stack, ``layers=(12, 12)`` for two."""
        counts = (layers,) if isinstance(layers, int) else tuple(layers)
        if not counts:
            raise RaptrError("layers is empty; give one number of layers per stack, e.g. layers=12.")
        names = ("layers",) if len(counts) == 1 else tuple(f"stack{i}" for i in range(len(counts)))
        return cls(tuple(StackShape(name, count) for name, count in zip(names, counts, strict=True)))

    @property
    def layers(self) -> tuple[int, ...]:
        """The number of layers of each stack."""
        return tuple(stack.layers for stack in self.stacks)
