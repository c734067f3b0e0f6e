"""What runs at one step: the kept layers of every stack, and what each kept layer runs of itself."""

import operator
from collections.abc import Iterator, Sequence
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


class SequenceKey(NamedTuple):
    """What decides which sequences of a batch run through the layers of a stack, beside the rank and their share.

    Attributes:
        seed: of the method.
        step: the step.
        micro: the micro-step.
        stack: the stack's number.
    """

    seed: int
    step: int
    micro: int = 0
    stack: int = 0

    def kept(self, layer: int, share: float, batch: int, rank: int = 0) -> tuple[int, ...]:
        """The sequences of a rank that run through a layer: at least one, so that every rank runs the layer.

        Args:
            layer: its number.
            share: the probability of each sequence to be kept, by itself.
            batch: how many sequences the rank has.
            rank: its number.

        Example:
            >>> SequenceKey(seed=0, step=7).kept(layer=3, share=1.0, batch=4)
            (0, 1, 2, 3)
        """
        place = (self.step, draw.pair(self.micro, rank), draw.pair(self.stack, layer))
        words = draw.words(self.seed, draw.SEQUENCES, place, batch)
        chosen = (draw.uniforms(words) < share).nonzero()[0]
        return tuple(chosen.tolist()) or (int(words.argmin()),)


def _is_factor(value: Any) -> bool:
    """Whether it is a finite number above 0."""
    try:
        return bool(0 < value < _INF)
    except TypeError:
        return False


class _Part(NamedTuple):
    scale: float
    heads: tuple[int, ...] | None
    neurons: tuple[int, ...] | None
    head_scale: float
    neuron_scale: float
    share: float
    sequences: SequenceKey | None


class LayerPart(_Part):
    """What a kept layer runs of itself; by default all of it. A tuple, since a step can make a hundred of these.

    Attributes:
        scale: factor on the layer's residual update: x + scale * (layer(x) - x).
        heads: the kept attention heads (groups of heads that share keys and values), rising; None for all.
        neurons: the kept neurons of the MLP, rising; None for all.
        head_scale: factor on the output of the attention, before its bias.
        neuron_scale: factor on the output of the MLP, before its bias.
        share: the probability of each sequence of the batch to run through the layer.
        sequences: what they are drawn from; None where all of them run.

    Raises:
        RaptrError: heads or neurons that are not rising numbers from 0 on, a scale that is not above 0, or a share
            of the sequences that is not between 0 and 1 or says not what it is drawn from.
    """

    __slots__ = ()

    def __new__(
        cls,
        scale: float = 1.0,
        heads: tuple[int, ...] | None = None,
        neurons: tuple[int, ...] | None = None,
        head_scale: float = 1.0,
        neuron_scale: float = 1.0,
        share: float = 1.0,
        sequences: SequenceKey | None = None,
    ) -> "LayerPart":
        if heads is not None:
            _check_kept("heads", heads)
        if neurons is not None:
            _check_kept("neurons", neurons)
        if not (_is_factor(scale) and _is_factor(head_scale) and _is_factor(neuron_scale)):
            raise RaptrError(
                f"scales {scale!r}, {head_scale!r} and {neuron_scale!r} of a layer: "
                "each must be a finite number above 0."
            )
        if share != 1 and not (_is_factor(share) and share < 1 and isinstance(sequences, SequenceKey)):
            raise RaptrError(
                f"a layer was to run on a share of {share!r} of the sequences, drawn from {sequences!r}; give a number "
                "above 0 and up to 1, and where it is not 1 a SequenceKey that says what they are drawn from."
            )
        drawn = None if share == 1 else sequences
        return super().__new__(cls, scale, heads, neurons, head_scale, neuron_scale, share, drawn)

    def rows(self, layer: int, batch: int, rank: int = 0) -> Sequence[int]:
        """The sequences of a rank's batch that run through the layer of this number, rising; at least one.

        Example:
            >>> list(LayerPart().rows(layer=3, batch=4))
            [0, 1, 2, 3]
        """
        return range(batch) if self.sequences is None else self.sequences.kept(layer, self.share, batch, rank)

    @classmethod
    def of_each(
        cls, scales: npt.ArrayLike, shares: Sequence[float] = (), key: SequenceKey | None = None
    ) -> tuple["LayerPart", ...]:
        """A part for each layer of a stack, of its scale: much faster than one by one, for deep models.

        Args:
            scales: of the layers.
            shares: of their sequences; none for all.
            key: what these are drawn from.

        Raises:
            RaptrError: a scale that is not above 0.

        Example:
            >>> LayerPart.of_each((1.0, 2.0)) == (LayerPart(), LayerPart(scale=2.0))
            True
        """
        each: list[float] = np.asarray(scales, dtype=np.float64).tolist()
        if not (min(each, default=1.0) > 0 and sum(each) < _INF):
            for scale in each:
                cls(scale=scale)  # says what is wrong
        nothing, one = repeat(None), repeat(1.0)
        keys = [None if share == 1 else key for share in shares] if 1 in shares else repeat(key)
        fields = zip(each, nothing, nothing, one, one, shares or one, keys, strict=False)
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
    def unchecked(
        cls, layers: tuple[tuple[int, ...], ...], parts: tuple[tuple[LayerPart, ...], ...] = ()
    ) -> "Subnetwork":
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
    return _needed(parts)


def _needed(parts: tuple[tuple[LayerPart, ...], ...]) -> tuple[tuple[LayerPart, ...], ...]:
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
