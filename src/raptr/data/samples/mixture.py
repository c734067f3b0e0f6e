"""Which sequence a run sees when: one source in epochs, or several in fixed shares.

Which sequence is the i-th sample of a run is a function of (seed, i), of nothing else: every method sees
the same data in the same order, however many steps it trains, and a run can go on anywhere.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raptr.data.samples.quotas import quotas_of, spread
from raptr.data.samples.sequences import Ints, Sequences
from raptr.plan import rng

BLOCK = 2**16
"""Samples in which weights are met exactly; they are rounded to multiples of 1 / BLOCK."""


class Place(NamedTuple):
    """Which source a sample is from, in which pass over it, and which of its sequences it is."""

    source: int
    epoch: int
    sequence: int


class Places(NamedTuple):
    """`Place` of many samples: an array of each, int64 of shape (samples,)."""

    source: Ints
    epoch: Ints
    sequence: Ints


@dataclass(frozen=True)
class Mixture:
    """Sequences of one or several sources, and how many of each there are in a block of samples.

    A block holds ``quotas[k]`` samples of source k. The n-th of them is put at the time
    (n + u) / quotas[k], with u drawn in [0, 1), and all are taken in the order of their times. So over
    any number of samples, source k of K is seen its share times that number, to within
    1 + (K - 2) share. Each source runs through epochs of its own in an order of its own.

    Args:
        sources: the sequences of each, all of one length.
        quotas: samples of each in a block, from 0 on.

    Example:
        >>> some, more = Sequences(np.arange(40), 4), Sequences(np.arange(80), 4)
        >>> mixed = mix({"some": some, "more": more}, {"some": 0.5, "more": 0.5})
        >>> abs([mixed.locate(i, seed=0).source for i in range(1000)].count(0) - 500) <= 1
        True
    """

    sources: tuple[Sequences, ...]
    quotas: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.sources) == len(self.quotas), "one quota for each source"
        assert min(self.quotas) >= 0 < sum(self.quotas), "quotas from 0 on, not all of them 0"

    def __len__(self) -> int:
        """The sequences of all sources that are trained on."""
        return sum(len(sequences) for sequences, quota in zip(self.sources, self.quotas, strict=True) if quota)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each source in the samples, exactly."""
        return tuple(quota / sum(self.quotas) for quota in self.quotas)

    def epochs(self, samples: float) -> tuple[float, ...]:
        """How often so many samples see each source."""
        pairs = zip(self.shares, self.sources, strict=True)
        return tuple(samples * share / len(sequences) for share, sequences in pairs)

    def locate(self, sample: int, seed: int) -> Place:
        """The i-th sample of a run: ``sample`` i counted from 0 over the whole run.

        With b, j = divmod(i, sum of quotas), source k is the j-th of block b, and the sample is the m-th of
        that source, m = b quotas[k] + (how often k is among the first j of the block). Its epoch is
        m // n_k, its index order(n_k, seed, epoch, k)[m % n_k].
        """
        source, epoch, sequence = self.places([sample], seed)
        return Place(int(source[0]), int(epoch[0]), int(sequence[0]))

    def places(self, samples: Iterable[int], seed: int) -> Places:
        """The same of many samples at once."""
        block, place = np.divmod(np.fromiter(samples, dtype=np.int64), sum(self.quotas))
        if len(self.quotas) == 1:
            return Places(np.zeros_like(place), *self._of(0, block, place, seed))
        source, rank, epoch, sequence = np.empty((4, len(place)), dtype=np.int64)
        for number in _present(block):
            mine = block == number
            sources, ranks = _block(self.quotas, seed, number)
            source[mine], rank[mine] = sources[place[mine]], ranks[place[mine]]
        for number in _present(source):
            mine = source == number
            epoch[mine], sequence[mine] = self._of(number, block[mine], rank[mine], seed)
        return Places(source, epoch, sequence)

    def _of(self, source: int, block: Ints, rank: Ints, seed: int) -> tuple[Ints, Ints]:
        """The epochs and sequences of samples of one source, the ``rank``-th of it in its block."""
        n = len(self.sources[source])
        epoch, rank = np.divmod(block * self.quotas[source] + rank, n)
        numbers, orders = _present(epoch), _orders(n, seed, source)
        if len(numbers) == 1:
            return epoch, orders(numbers[0])[rank]
        sequence = np.empty_like(rank)
        for number in numbers:
            mine = epoch == number
            sequence[mine] = orders(number)[rank[mine]]
        return epoch, sequence


def _present(numbers: Ints) -> list[int]:
    """Which numbers there are, each once."""
    return sorted(set(numbers.tolist()))


def mix(sources: Mapping[str, Sequences], weights: Mapping[str, float] | None = None) -> Mixture:
    """Mix sources by weight; without weights by size, so that an epoch sees every sequence once.

    Args:
        sources: the sequences by name.
        weights: each one's share, summing to 1; 0 for a source that is not trained on.

    Example:
        >>> mix({"a": Sequences(np.arange(40), 4), "b": Sequences(np.arange(80), 4)}).quotas
        (10, 20)
    """
    if weights is None:
        return Mixture(tuple(sources.values()), tuple(map(len, sources.values())))
    return Mixture(tuple(sources.values()), quotas_of([weights[name] for name in sources], BLOCK))


def order(n: int, seed: int, epoch: int, source: int = 0) -> Ints:
    """In which order the n sequences of a source are seen in one epoch: a permutation of 0 .. n-1.

    The sequences are sorted by their random words (Philox, ``raptr.plan.rng``).

    Args:
        n: how many sequences there are.
        seed: the run's seed, from 0 to 2**64 - 1.
        epoch: counted from 0.
        source: the number of the source in its mixture.

    Returns:
        int64 of shape (n,).

    Example:
        >>> sorted(order(5, seed=0, epoch=3).tolist())
        [0, 1, 2, 3, 4]
    """
    return np.argsort(rng.words(seed, rng.ORDER, (epoch, source, 0), n), kind="stable").astype(np.int64)


@lru_cache(maxsize=64)
def _orders(n: int, seed: int, source: int) -> Callable[[int], Ints]:
    """The order of an epoch of one source; of each source the last two are kept, for a batch that spans two."""
    return lru_cache(maxsize=2)(lambda epoch: order(n, seed, epoch, source))


@lru_cache(maxsize=2)
def _block(quotas: tuple[int, ...], seed: int, block: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """The source of every sample of a block, and how many of that source came before it in the block."""
    return spread(quotas, seed, rng.MIXTURE, block)
