"""What runs at one step: the kept layers of every stack, and what each kept layer runs of itself."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raptr.errors import RaptrError
from raptr.plan import draw
from raptr.plan.shape import ModelShape

_INF = float("inf")


class SequenceMask(NamedTuple):
    """Which sequences of a batch a layer is trained on: a pure function of these fields and the rank.

    Attributes:
        keep: the probability of each sequence to be kept, by itself.
        seed: of the method.
        step: the step.
        micro: the micro-step.
        stack: the stack's number.
        layer: the layer's.
    """

    keep: float
    seed: int
    step: int
    micro: int = 0
    stack: int = 0
    layer: int = 0

    def kept(self, batch: int, rank: int = 0) -> tuple[int, ...]:
        """The kept ones of a rank's ``batch`` sequences: at least one, so that every rank runs the layer."""
        place = (self.step, draw.pair(self.micro, rank), draw.pair(self.stack, self.layer))
        words = draw.words(self.seed, draw.SEQUENCES, place, batch)
        chosen = (draw.uniforms(words) < self.keep).nonzero()[0]
        return tuple(chosen.tolist()) or (int(words.argmin()),)

    @classmethod
    def of_each(
        cls, keep: Sequence[float], seed: int, place: tuple[int, int, int]
    ) -> tuple["SequenceMask | None", ...]:
        """A mask for each layer of a stack, None where all sequences are kept: faster than one by one.

        Args:
            keep: of each layer.
            seed: of the method.
            place: step, micro-step and stack.

        Example:
            >>> SequenceMask.of_each((1.0, 0.5), 0, (7, 0, 0)) == (None, SequenceMask(0.5, 0, 7, layer=1))
            True
        """
        fields = zip(keep, repeat(seed), *map(repeat, place), range(len(keep)), strict=False)
        masks: list[SequenceMask | None] = list(map(tuple.__new__, repeat(cls), fields))
        for layer, probability in enumerate(keep):
            if probability >= 1:
                masks[layer] = None
        return tuple(masks)


class _Part(NamedTuple):
    scale: float
    heads: tuple[int, ...] | None
    neurons: tuple[int, ...] | None
    head_scale: float
    neuron_scale: float
    sequences: SequenceMask | None


class LayerPart(_Part):
    """What a kept layer runs of itself; by default all of it. A tuple, since a step can make a hundred of these.

    Attributes:
        scale: factor on the layer's residual update: x + scale * (layer(x) - x).
        heads: the kept attention heads (groups of heads that share keys and values), rising; None for all.
        neurons: the kept neurons of the MLP, rising; None for all.
        head_scale: factor on the output of the attention, before its bias.
        neuron_scale: factor on the output of the MLP, before its bias.
        sequences: which sequences of the batch run through the layer; None for all.

    Raises:
        RaptrError: heads or neurons that are not rising numbers from 0 on, or a scale that is not above 0.
    """

    __slots__ = ()

    def __new__(
        cls,
        scale: float = 1.0,
        heads: tuple[int, ...] | None = None,
        neurons: tuple[int, ...] | None = None,
        head_scale: float = 1.0,
        neuron_scale: float = 1.0,
        sequences: SequenceMask | None = None,
    ) -> "LayerPart":
        if heads is not None:
            _check_kept("heads", heads)
        if neurons is not None:
            _check_kept("neurons", neurons)
        try:
            valid = 0 < scale < _INF and 0 < head_scale < _INF and 0 < neuron_scale < _INF
        except TypeError:
            valid = False
        if not valid:
            raise RaptrError(
                f"scales {scale!r}, {head_scale!r} and {neuron_scale!r} of a layer: "
                "each must be a finite number above 0."
            )
        return super().__new__(cls, scale, heads, neurons, head_scale, neuron_scale, sequences)

    @classmethod
    def of_each(
        cls, scales: npt.ArrayLike, sequences: Iterable[SequenceMask | None] = repeat(None)
    ) -> tuple["LayerPart", ...]:
        """A part for each layer, of its scale and its sequences: much faster than one by one, for deep models.

        Raises:
            RaptrError: a scale that is not above 0.

        Example:
            >>> LayerPart.of_each((1.0, 2.0)) == (LayerPart(), LayerPart(scale=2.0))
            True
        """
        factors = np.asarray(scales, dtype=np.float64)
        each: list[float] = factors.tolist()
        wrong = ~((factors > 0) & (factors < _INF))
        if wrong.any():
            cls(scale=each[wrong.argmax()])  # says what is wrong
        fields = zip(each, repeat(None), repeat(None), repeat(1.0), repeat(1.0), sequences, strict=False)
        return tuple(map(tuple.__new__, repeat(cls), fields))


WHOLE = LayerPart()
"""A layer that runs all of itself."""


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
    parts: tuple[tuple[LayerPart, ...], ...] = ()

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
            if not _rises(path):
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
            _, heads, neurons, *scales, _ = zip(*parts, strict=True)  # all layers at once, which is faster
            if any(heads) or any(neurons) or any(set(each) != {1} for each in scales):
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


def _checked(given: Any, sizes: tuple[int, ...]) -> tuple[tuple[LayerPart, ...], ...]:
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
    return () if all(part is WHOLE or part == WHOLE for each in parts for part in each) else parts


def _check_kept(name: str, kept: Any) -> None:
    if not (isinstance(kept, tuple) and kept and _rises(kept)):
        shown = f"({', '.join(map(str, kept[:12]))}, ...)" if isinstance(kept, tuple) and len(kept) > 12 else repr(kept)
        raise RaptrError(f"kept {name} {shown} are not a tuple of rising numbers from 0 on; give at least one.")


def _rises(numbers: tuple[int, ...]) -> bool:
    try:
        return all(map(operator.lt, (-1, *numbers), numbers))
    except TypeError:
        return False
