"""The shape of a model: all that a method needs to know of it."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raptr.errors import RaptrError

MOST_LAYERS = 100_000
"""Of a stack: no model comes near, and what a plan holds of each layer fits into memory."""


@dataclass(frozen=True)
class StackShape:
    """One stack of a model.

    Attributes:
        name: its name in the model ("model.layers").
        layers: its number of layers.
        required: (layer, reason) pairs of the layers that no path can leave out, because they make
            something that others need (T5's first layer: the position bias).
        heads: how many attention heads each layer has that can be chosen one by one: under grouped-query
            attention its groups, which keep their keys and values together. None where width cannot be chosen.
        neurons: how many neurons the MLP of each layer has; None where width cannot be chosen.
        narrow: why width cannot be chosen, for messages; empty where it can, and where nobody looked.

    Raises:
        RaptrError: fewer than 1 layer, head or neuron, more layers than `MOST_LAYERS`, or a required layer that is not
            one of them or named twice.
    """

    name: str
    layers: int
    required: tuple[tuple[int, str], ...] = ()
    heads: int | None = None
    neurons: int | None = None
    narrow: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int) or self.layers < 1:
            raise RaptrError(f"stack {self.name!r} has {self.layers} layers; a stack has at least 1.")
        if self.layers > MOST_LAYERS:
            raise RaptrError(f"stack {self.name!r} has more than {MOST_LAYERS:,} layers; give the model's own number.")
        for what, count in (("heads", self.heads), ("neurons", self.neurons)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise RaptrError(f"stack {self.name!r} has {count} {what} in each layer; give at least 1, or None.")
        try:
            pairs = sorted((operator.index(layer), str(reason)) for layer, reason in self.required)
        except (TypeError, ValueError) as error:
            raise RaptrError(
                f"required={self.required!r} of stack {self.name!r} are not (layer, reason) pairs; "
                "give one for each layer that no path can leave out."
            ) from error
        object.__setattr__(self, "required", tuple(pairs))
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
        if not isinstance(self.stacks, tuple) or not all(isinstance(stack, StackShape) for stack in self.stacks):
            raise RaptrError(
                f"stacks {self.stacks!r} are not a tuple of StackShape; ModelShape.of(layers=12) makes a shape "
                "without a model."
            )
        names = [stack.name for stack in self.stacks]
        if not names or len(set(names)) != len(names):
            raise RaptrError(f"a model has at least one stack, each with a name of its own; given: {names}.")

    @classmethod
    def of(cls, *, layers: int | Sequence[int], heads: int | None = None, neurons: int | None = None) -> "ModelShape":
        """A shape without a model: ``layers=12`` for one stack, ``layers=(12, 12)`` for two.

        ``heads`` and ``neurons`` of each layer are only needed by methods that choose among them.
        """
        if not isinstance(layers, int | Iterable):
            raise RaptrError(f"layers={layers!r} is not a number of layers, nor one for each stack.")
        counts = (layers,) if isinstance(layers, int) else tuple(layers)
        if not counts:
            raise RaptrError("layers is empty; give one number of layers per stack, e.g. layers=12.")
        names = ("layers",) if len(counts) == 1 else tuple(f"stack{i}" for i in range(len(counts)))
        pairs = zip(names, counts, strict=True)
        return cls(tuple(StackShape(name, count, heads=heads, neurons=neurons) for name, count in pairs))

    @property
    def layers(self) -> tuple[int, ...]:
        """The number of layers of each stack."""
        return tuple(stack.layers for stack in self.stacks)
