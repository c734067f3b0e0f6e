"""What one kept layer runs of itself, and the same of all layers of a stack."""

import operator
from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from raptr.errors import RaptrError
from raptr.plan import rng

Array = npt.NDArray[np.float64]

_NONE: Array = np.empty(0)

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
        """Return the sequences of a rank that run through a layer: at least one, so that every rank runs the layer.

        If none is drawn, the sequence with the smallest random number is kept; see `run_probability`.

        Args:
            layer: its number.
            share: the probability of each sequence to be kept, by itself.
            batch: how many sequences the rank has.
            rank: its number.

        Example:
            >>> SequenceKey(seed=0, step=7).kept(layer=3, share=1.0, batch=4)
            (0, 1, 2, 3)
        """
        place = (self.step, rng.pair(self.micro, rank), rng.pair(self.stack, layer))
        words = rng.words(self.seed, rng.SEQUENCES, place, batch)
        chosen = rng.below(words, share).nonzero()[0]
        return tuple(chosen.tolist()) or (int(words.argmin()),)


ONE_SEQUENCE = (
    "layers are dropped by sequence, but a micro-batch has one sequence, which runs through every layer: nothing would "
    "be skipped. Use micro-batches of at least 2 sequences without packing them into one row, or a method that drops "
    "layers for the whole batch (layerdrop, stochastic_depth, pld)."
)
"""The error of a method that drops layers by sequence, without the choice."""


def run_probability(share: float, batch: int) -> float:
    """Return the probability q of one sequence to run through a layer of which at least one sequence must run.

        q = p + (1 - p)**B / B

    Each of the B sequences of a rank's micro-batch is drawn with probability p. No sequence is drawn with probability
    (1 - p)**B. Then the sequence with the smallest random number runs, which is each of the B with probability 1 / B.

    Args:
        share: p, the probability of each sequence to be drawn.
        batch: B, the sequences of a rank's micro-batch.

    Example:
        >>> [round(run_probability(0.7, batch), 4) for batch in (1, 2, 4, 8)]
        [1.0, 0.745, 0.702, 0.7]
    """
    return share + (1 - share) ** batch / batch


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
    inverse: bool


class LayerPart(_Part):
    """What a kept layer runs of itself; by default all of it. A tuple, since a step can make a hundred of these.

    Attributes:
        scale: factor on the layer's residual update: x + scale * (layer(x) - x).
        heads: the kept attention heads (groups of heads that share keys and values), rising; None for all.
        neurons: the kept neurons of the MLP, rising; None for all.
        head_scale: factor on the output of the attention, before its bias.
        neuron_scale: factor on the output of the MLP, before its bias.
        share: the probability of each sequence of the batch to be drawn, see `run_probability`.
        sequences: what they are drawn from; None where all of them run.
        inverse: whether the update is also divided by the probability that a sequence runs, see `factor`.

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
        inverse: bool = False,
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
        inverse = inverse and drawn is not None
        return super().__new__(cls, scale, heads, neurons, head_scale, neuron_scale, share, drawn, inverse)

    def factor(self, batch: int | None = None) -> float:
        """Return the factor on the residual update of the sequences that run.

            scale, or scale / q if ``inverse``

        Args:
            batch: sequences of a rank's micro-batch, which decide q (`run_probability`). None for so many that q is
                the share.

        Example:
            >>> part = LayerPart(share=0.5, sequences=SequenceKey(seed=0, step=7), inverse=True)
            >>> part.factor(), part.factor(batch=2)
            (2.0, 1.6)
        """
        if not self.inverse:
            return self.scale
        return self.scale / (self.share if batch is None else run_probability(self.share, batch))

    def rows(self, layer: int, batch: int, rank: int = 0) -> Sequence[int]:
        """The sequences of a rank's batch that run through the layer of this number, rising; at least one.

        Example:
            >>> list(LayerPart().rows(layer=3, batch=4))
            [0, 1, 2, 3]
        """
        return range(batch) if self.sequences is None else self.sequences.kept(layer, self.share, batch, rank)


WHOLE = LayerPart()
"""A layer that runs all of itself."""


class LayerParts(Sequence[LayerPart]):
    """The parts of a stack's kept layers that differ in their scales and shares only; each is made when asked for.

    A method that scales every layer anew at each step says so in numbers here: to make a hundred `LayerPart`s takes
    longer than all else that choosing a subnetwork needs.

    Args:
        scales: of the layers.
        shares: of their sequences; none for all.
        key: what these are drawn from.
        inverse: whether updates are also divided by the probability that a sequence runs.

    Raises:
        RaptrError: a scale that is not above 0, or shares that are not one for each layer, are drawn from
            nothing, or are not above 0 and up to 1.

    Example:
        >>> LayerParts((1.0, 2.0)) == (LayerPart(), LayerPart(scale=2.0))
        True
    """

    __slots__ = ("_inverse", "_key", "_scales", "_shares")

    def __init__(
        self,
        scales: npt.ArrayLike,
        shares: npt.ArrayLike = (),
        key: SequenceKey | None = None,
        inverse: bool = False,
    ) -> None:
        self._scales, self._shares = np.array(scales, np.float64), np.array(shares, np.float64)
        self._key, self._inverse = key, inverse
        count = len(self._shares)
        if count and (key is None or count != len(self._scales)):
            raise RaptrError(
                f"{count} shares of the sequences were given for {len(self._scales)} layers, drawn from {key!r}; "
                "give one share for each layer, and a SequenceKey."
            )
        for scale, share in zip(self._scales.tolist(), self._shares.tolist() or repeat(1.0), strict=False):
            LayerPart(scale=scale, share=share, sequences=key)  # says what is wrong

    @classmethod
    def unchecked(
        cls, scales: Array, shares: Array = _NONE, key: SequenceKey | None = None, inverse: bool = False
    ) -> "LayerParts":
        """For a plan, which makes one at each step: nothing is looked at again that is known of what it made.

        Args:
            scales: finite and above 0; kept as they are given.
            shares: none, or one for each layer, above 0 and up to 1.
            key: what these are drawn from.
            inverse: whether updates are also divided by the probability that a sequence runs.

        Example:
            >>> LayerParts.unchecked(np.array((1.0, 2.0))) == LayerParts((1.0, 2.0))
            True
        """
        made = object.__new__(cls)
        made._scales, made._shares, made._key, made._inverse = scales, shares, key, inverse
        return made

    def __len__(self) -> int:
        return len(self._scales)

    @overload
    def __getitem__(self, at: int) -> LayerPart: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[LayerPart]: ...

    def __getitem__(self, at: int | slice) -> LayerPart | Sequence[LayerPart]:
        if isinstance(at, slice):
            return tuple(self)[at]
        share = self._shares.item(at) if len(self._shares) else 1.0
        key = None if share == 1 else self._key
        inverse = self._inverse and key is not None
        return LayerPart._make((self._scales.item(at), None, None, 1.0, 1.0, share, key, inverse))  # known to be right

    @property
    def whole(self) -> bool:
        """Whether each of them is a whole layer."""
        given = [numbers for numbers in (self._scales, self._shares) if len(numbers)]
        return all(numbers.item(-1) == 1 for numbers in given) and all((numbers == 1).all() for numbers in given)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def all_whole(parts: Sequence[LayerPart]) -> bool:
    """Whether all of these parts are whole layers."""
    return parts.whole if isinstance(parts, LayerParts) else all(part is WHOLE or part == WHOLE for part in parts)


def _check_kept(name: str, kept: Any) -> None:
    if not (isinstance(kept, tuple) and kept and rises(kept)):
        shown = f"({', '.join(map(str, kept[:12]))}, ...)" if isinstance(kept, tuple) and len(kept) > 12 else repr(kept)
        raise RaptrError(f"kept {name} {shown} are not a tuple of rising numbers from 0 on; give at least one.")


def rises(numbers: tuple[int, ...]) -> bool:
    """Whether they are whole numbers that rise from 0 on."""
    try:
        return all(map(operator.lt, (-1, *numbers), numbers))
    except TypeError:
        return False
