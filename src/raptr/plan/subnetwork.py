"""What runs at one step, and what is copied where at a stage boundary."""

import operator
from dataclasses import dataclass

from raptr.errors import RaptrError
from raptr.plan.shape import ModelShape


@dataclass(frozen=True)
class Subnetwork:
    """The kept layers of every stack: one rising tuple of layer numbers per stack.

    Attributes:
        layers: ``((0, 2, 5),)`` keeps layers 0, 2 and 5 of a model with one stack.

    Raises:
        RaptrError: a stack's layers are not in rising order, or negative.

    Example:
        >>> Subnetwork.of((0, 2, 5)).sizes
        (3,)
    """

    layers: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        try:
            layers = tuple(tuple(map(operator.index, path)) for path in self.layers)
        except TypeError as error:
            raise RaptrError(
                f"layers {self.layers} are not one tuple of layer numbers per stack; "
                "for one stack write Subnetwork.of((0, 2, 5))."
            ) from error
        object.__setattr__(self, "layers", layers)
        for path in layers:
            if not all(map(operator.lt, (-1, *path), path)):
                raise RaptrError(
                    f"kept layers {path} are not rising numbers from 0 on; "
                    "give each kept layer once, in order, counted from 0."
                )

    @classmethod
    def of(cls, *paths: tuple[int, ...]) -> "Subnetwork":
        """A depth subnetwork from one tuple of kept layers per stack."""
        return cls(paths)

    @classmethod
    def full(cls, shape: ModelShape) -> "Subnetwork":
        """The whole model."""
        return cls(tuple(tuple(range(count)) for count in shape.layers))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of kept layers of each stack."""
        return tuple(len(path) for path in self.layers)

    def check(self, shape: ModelShape) -> None:
        """Refuse a subnetwork that is not a part of a model of this shape, or leaves out a required layer."""
        if len(self.layers) != len(shape.stacks):
            raise RaptrError(
                f"the subnetwork has {len(self.layers)} stacks, the model {len(shape.stacks)} "
                f"({', '.join(stack.name for stack in shape.stacks)}); give one tuple of layers per stack."
            )
        for path, stack in zip(self.layers, shape.stacks, strict=True):
            if path and path[-1] >= stack.layers:
                raise RaptrError(
                    f"layer {path[-1]} was to be kept, but {stack.name!r} has the layers 0 to {stack.layers - 1}."
                )
            for layer, reason in stack.required:
                if layer not in path:
                    raise RaptrError(
                        f"layer {layer} of {stack.name!r} cannot be left out: {reason}. "
                        f"The path {path} leaves it out; keep it in every path."
                    )


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy at a stage boundary: a layer's parameters and optimizer state onto another layer.

    Attributes:
        stack: the stack's number.
        source: the layer that is read.
        target: the layer that is overwritten.
    """

    stack: int = 0
    source: int
    target: int
