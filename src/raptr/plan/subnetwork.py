"""What runs at one step: the kept layers of every stack, and what each kept layer runs of itself."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raptr.errors import RaptrError
from raptr.plan.layer_part import WHOLE, LayerPart, all_whole, rises
from raptr.plan.shape import ModelShape

Parts = tuple[Sequence[LayerPart], ...]
"""Of each stack, what its kept layers run of themselves, in their order."""


@dataclass(frozen=True)
class Subnetwork:
    """The kept layers of every stack: one rising tuple of layer numbers per stack.

    Attributes:
        layers: ``((0, 2, 5),)`` keeps layers 0, 2 and 5 of a model with one stack.
        parts: what each kept layer runs of itself, in the order of ``layers``; nothing where every kept
            layer is whole.

    Raises:
        RaptrError: a stack's layers are not in rising order, or negative, or have not one part each.

    Example:
        >>> Subnetwork.of((0, 2, 5)).sizes
        (3,)
    """

    layers: tuple[tuple[int, ...], ...]
    parts: Parts = ()

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
            if not rises(path):
                raise RaptrError(
                    f"kept layers {path} are not rising numbers from 0 on; "
                    "give each kept layer once, in order, counted from 0."
                )
        if not isinstance(self.parts, tuple) or self.parts:
            object.__setattr__(self, "parts", _checked(self.parts, self.sizes))

    @classmethod
    def of(cls, *paths: tuple[int, ...]) -> "Subnetwork":
        """A depth subnetwork from one tuple of kept layers per stack."""
        return cls(paths)

    @classmethod
    def unchecked(cls, layers: tuple[tuple[int, ...], ...], parts: Parts = ()) -> "Subnetwork":
        """For a plan, which makes one at each step: nothing is looked at again that is known of what it made.

        Args:
            layers: tuples of whole numbers that rise from 0 on.
            parts: one for each layer, or none; all with all heads and neurons, which are not scaled.

        Example:
            >>> Subnetwork.unchecked(((0, 2),)) == Subnetwork.of((0, 2))
            True
        """
        made = object.__new__(cls)
        made.__dict__.update(layers=layers, parts=_needed(parts), narrow=False)
        return made

    @classmethod
    def full(cls, shape: ModelShape) -> "Subnetwork":
        """The whole model."""
        return cls(tuple(tuple(range(count)) for count in shape.layers))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of kept layers of each stack."""
        return tuple(len(path) for path in self.layers)

    @cached_property
    def narrow(self) -> bool:
        """Whether some layer runs a part of its heads or neurons, or scales their outputs."""
        for parts in filter(None, self.parts):
            _, heads, neurons, head_scales, neuron_scales, *_ = zip(*parts, strict=True)  # all layers at once: faster
            whole = heads.count(None), neurons.count(None), head_scales.count(1), neuron_scales.count(1)
            if min(whole) < len(parts):
                return True
        return False

    def kept(self, stack: int) -> Iterator[tuple[int, LayerPart]]:
        """The kept layers of a stack, each with what it runs of itself."""
        path = self.layers[stack]
        return zip(path, self.parts[stack] if self.parts else (WHOLE,) * len(path), strict=True)

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
        if not self.narrow:
            return
        for parts, stack in zip(self.parts, shape.stacks, strict=False):
            for part in parts:
                for what, kept, count in (("head", part.heads, stack.heads), ("neuron", part.neurons, stack.neurons)):
                    if kept is not None and count is None:
                        why = f": {stack.narrow}" if stack.narrow else ""
                        raise RaptrError(f"{what}s of {stack.name!r} were to be chosen, but cannot be{why}.")
                    if kept is not None and count is not None and kept[-1] >= count:
                        raise RaptrError(
                            f"{what} {kept[-1]} was to be kept, but the layers of {stack.name!r} have the {what}s "
                            f"0 to {count - 1}."
                        )


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One change to a layer at a stage boundary: what it gets from another layer.

    Attributes:
        stack: the stack's number.
        source: the layer that is read.
        target: the layer that is overwritten; with ``source`` itself, its own parameters stay.
        reset: whether the target's optimizer state begins anew, instead of being copied too.
        silent: whether the target's output projections are then set to zero, so that it begins as the identity.
    """

    stack: int = 0
    source: int
    target: int
    reset: bool = False
    silent: bool = False


def _checked(given: Any, sizes: tuple[int, ...]) -> Parts:
    """Parts, one for each kept layer; nothing where all of them are whole."""
    try:
        parts = tuple(map(tuple, given))
    except TypeError:
        parts = ((None,),)
    if not all({LayerPart}.issuperset(map(type, each)) for each in parts):
        raise RaptrError(f"parts {given!r} are not one tuple of LayerPart for each stack.")
    if tuple(map(len, parts)) != sizes:
        raise RaptrError(
            f"parts of {tuple(map(len, parts))} layers were given for {sizes} kept ones; "
            "give one LayerPart per kept layer of every stack, or none at all."
        )
    return _needed(parts)


def _needed(parts: Parts) -> Parts:
    return () if all(map(all_whole, parts)) else parts
