"""Tokens -> sequences of one length, and the order in which a run sees them.

A sequence is ``length`` tokens in a row: documents follow one another and nothing is padding. In every
epoch each sequence is seen once. Which one is the i-th sample of a run is a function of (seed, i), of
nothing else: every method sees the same data in the same order, however many steps it trains, and a
run can go on anywhere.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from raptr.data.store import Tokens
from raptr.errors import RaptrError
from raptr.plan import draw

Ints = npt.NDArray[np.int64]


class Item(TypedDict):
    """One sample: its tokens, shape (length,), the epoch it is seen in, and which sequence it is."""

    tokens: Ints
    epoch: int
    index: int


@dataclass(frozen=True)
class Sequences:
    """A stream of tokens as sequences of ``length``; the remainder at its end is dropped.

    Args:
        tokens: one-dimensional, like ``TokenStore.train``.
        length: tokens a sequence.

    Raises:
        RaptrError: there are not enough tokens for one sequence.

    Example:
        >>> Sequences(np.arange(10, dtype=np.uint16), 4).rows([1, 0])
        array([[4, 5, 6, 7],
               [0, 1, 2, 3]])
    """

    tokens: Tokens
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise RaptrError(f"the sequence length is {self.length}; expected at least 1.")
        if len(self.tokens) < self.length:
            raise RaptrError(
                f"the text has {len(self.tokens)} tokens and one sequence needs {self.length}; give more text or "
                "shorter sequences."
            )

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def rows(self, indices: npt.ArrayLike) -> Ints:
        """The sequences of these numbers, int64 of shape (B, length)."""
        grid = self.tokens[: len(self) * self.length].reshape(len(self), self.length)
        return grid[np.asarray(indices, dtype=np.int64)].astype(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a worker process the name of a memory-mapped file, not the tokens in it."""
        tokens = self.tokens
        if isinstance(tokens, np.memmap) and isinstance(tokens.base, mmap.mmap):  # not a part of one
            return _reopened, (tokens.filename, tokens.dtype.str, tokens.offset, tokens.shape, self.length)
        return Sequences, (tokens, self.length)


def _reopened(name: str, dtype: str, offset: int, shape: tuple[int], length: int) -> Sequences:
    return Sequences(np.memmap(name, dtype=dtype, mode="r", offset=offset, shape=shape), length)


def order(n: int, seed: int, epoch: int) -> Ints:
    """In which order n sequences are seen in one epoch: a permutation of 0 .. n-1.

    The sequences are sorted by their random words (Philox, ``raptr.plan.draw``).

    Args:
        n: how many sequences there are.
        seed: the run's seed, from 0 to 2**64 - 1.
        epoch: counted from 0.

    Returns:
        int64 of shape (n,).

    Example:
        >>> sorted(order(5, seed=0, epoch=3).tolist())
        [0, 1, 2, 3, 4]
    """
    return np.argsort(draw.words(seed, draw.ORDER, (epoch, 0, 0), n), kind="stable").astype(np.int64)


@lru_cache(maxsize=2)  # the epoch at hand, and its neighbour for a batch that spans two
def _order(n: int, seed: int, epoch: int) -> Ints:
    permutation = order(n, seed, epoch)
    permutation.flags.writeable = False
    return permutation


def locate(sample: int, n: int, seed: int) -> tuple[int, int]:
    """The (epoch, index) of the i-th sample of a run over n sequences.

    epoch = i // n, index = order(n, seed, epoch)[i % n].

    Args:
        sample: i, counted from 0 over the whole run.
        n: how many sequences there are.
        seed: the run's seed.

    Returns:
        In which pass over the data the sample is seen, and which sequence it is.

    Example:
        >>> [locate(i, 2, seed=0)[0] for i in range(5)]
        [0, 0, 1, 1, 2]
    """
    epoch, place = divmod(sample, n)
    return epoch, int(_order(n, seed, epoch)[place])


@dataclass(frozen=True)
class TrainingData:
    """All samples of a run in their order, as a map-style dataset for torch's DataLoader.

    It is already shuffled: read it in order (``shuffle=False``).

    Args:
        sequences: the train text.
        seed: the run's seed, from 0 to 2**64 - 1.
        samples: how many the run sees, steps times sequences a step; may be several epochs.

    Raises:
        RaptrError: ``seed`` or ``samples`` is out of range.

    Example:
        >>> data = TrainingData(Sequences(np.arange(8), 4), seed=0, samples=6)
        >>> sorted(data[i]["index"] for i in (2, 3)), data[3]["epoch"]
        ([0, 1], 1)
    """

    sequences: Sequences
    seed: int
    samples: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise RaptrError(f"the seed is {self.seed}; expected a whole number from 0 to 2**64 - 1.")
        if self.samples < 1:
            raise RaptrError(f"{self.samples} training samples were asked for; expected at least 1.")

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, sample: int) -> Item:
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> list[Item]:
        _check_range(samples, self.samples)
        places = [locate(sample, len(self.sequences), self.seed) for sample in samples]
        return _items(self.sequences, places)


@dataclass(frozen=True)
class ValidationData:
    """``count`` sequences spread evenly over the validation text, always the same ones.

    The i-th is sequence i * n // count of n; its epoch is 0.

    Args:
        sequences: the validation text.
        count: how many; None for all.

    Raises:
        RaptrError: there are fewer sequences than ``count``.

    Example:
        >>> data = ValidationData(Sequences(np.arange(40), 4), count=3)
        >>> [data[i]["index"] for i in range(len(data))]
        [0, 3, 6]
    """

    sequences: Sequences
    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None and not 1 <= self.count <= len(self.sequences):
            raise RaptrError(
                f"{self.count} validation sequences were asked for; the validation text has {len(self.sequences)} of "
                f"{self.sequences.length} tokens. Ask for 1 to {len(self.sequences)}, or hold out more text."
            )

    def __len__(self) -> int:
        return len(self.sequences) if self.count is None else self.count

    def __getitem__(self, sample: int) -> Item:
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> list[Item]:
        _check_range(samples, len(self))
        places = [(0, sample * len(self.sequences) // len(self)) for sample in samples]
        return _items(self.sequences, places)


def _check_range(samples: Sequence[int], size: int) -> None:
    for sample in samples:
        if not 0 <= sample < size:  # an IndexError is also what ends a plain loop over a dataset
            raise IndexError(f"sample {sample} was asked for; there are 0 to {size - 1}")


def _items(sequences: Sequences, places: list[tuple[int, int]]) -> list[Item]:
    rows = sequences.rows([index for _, index in places])
    return [
        {"tokens": tokens, "epoch": epoch, "index": index} for tokens, (epoch, index) in zip(rows, places, strict=True)
    ]
