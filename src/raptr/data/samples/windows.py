"""Windows of several lengths, one behind the other, so that no token is left out and none is seen twice.

The text is cut into stretches, which are shuffled and mixed as sequences are (`raptr.data.samples.mixture`). A
batch of B rows reads B streams: stretches j, j + B, j + 2 B, ... follow one another in the stream of row j, and
windows are cut from it one behind the other, each as long as its kind asks for. Which kind the t-th window of a row
is of is drawn, in fixed shares in every block of `BLOCK`; so all blocks of a row hold equally many tokens,
and where a window begins is known from its block alone: any window of a run can be asked for, at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from raptr.data.samples.datasets import ValidationData, check_range, check_run
from raptr.data.samples.mixture import Mixture
from raptr.data.samples.quotas import quotas_of, spread
from raptr.errors import RaptrError
from raptr.objectives.protocol import Ints
from raptr.plan import rng

BLOCK = 2**12
"""Windows of a row in which the shares of kinds are met exactly; they are rounded to multiples of 1 / BLOCK."""

STRETCH = 8
"""How many times a sequence's length a stretch has: a longer one is cut across less often, and shuffled less."""


class Window(TypedDict):
    """One sample: its raw tokens, the epoch it is seen in, its number, and which kind it is of."""

    tokens: Ints
    epoch: int
    index: int
    kind: int


@dataclass(frozen=True)
class Turns:
    """Which kind each window of a row is of, and how many tokens of the row come before it.

    Args:
        quotas: windows of each kind in a block.
        sizes: tokens of a window of each kind.

    Example:
        >>> turns = turns_of([0.5, 0.5], [10, 30])
        >>> turns.per_window
        20.0
        >>> (kind, start), (_, after) = turns.at(0, seed=0), turns.at(1, seed=0)
        >>> start, after == (10, 30)[kind]
        (0, True)
    """

    quotas: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def block(self) -> int:
        """Windows of a block."""
        return sum(self.quotas)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each kind in the windows, exactly."""
        return tuple(quota / self.block for quota in self.quotas)

    @property
    def per_window(self) -> float:
        """Tokens of a window, the mean over a block."""
        return sum(quota * size for quota, size in zip(self.quotas, self.sizes, strict=True)) / self.block

    def at(self, turn: int, seed: int, row: int = 0) -> tuple[int, int]:
        """The kind of a row's window, and the tokens of the row before it."""
        block, place = divmod(turn, self.block)
        kinds, starts = _block(self, seed, block, row)
        whole = sum(quota * size for quota, size in zip(self.quotas, self.sizes, strict=True))
        return int(kinds[place]), block * whole + int(starts[place])


def turns_of(shares: Sequence[float], sizes: Sequence[int]) -> Turns:
    """Turns in which each kind has its share, as nearly as a block allows."""
    return Turns(quotas_of(shares, BLOCK), tuple(sizes))


@lru_cache(maxsize=4096)  # of every row of a batch the block at hand
def _block(turns: Turns, seed: int, block: int, row: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    kinds, _ = spread(turns.quotas, seed, rng.DENOISERS, block, row)
    sizes = np.asarray(turns.sizes)[kinds]
    return kinds, np.cumsum(sizes) - sizes


@dataclass(frozen=True)
class WindowData:
    """All windows of a run in their order, as a map-style dataset for torch's DataLoader.

    The i-th sample is the t-th window of row j, with t, j = divmod(i, rows).

    Args:
        mixture: the stretches of all sources.
        turns: the kinds.
        seed: the run's seed, from 0 to 2**64 - 1.
        samples: how many the run sees.
        rows: windows of a (micro-)batch.
        alike: whether the windows of a batch are all of one kind; otherwise each row has kinds of its own.

    Raises:
        RaptrError: ``seed`` or ``samples`` is out of range.

    Example:
        >>> from raptr.data.samples.sequences import Sequences
        >>> mixture = Mixture((Sequences(np.arange(64), 16),), (4,))
        >>> data = WindowData(mixture, turns_of([1.0], [6]), seed=0, samples=10, rows=1, alike=True)
        >>> together = np.concatenate([data[i]["tokens"] for i in range(10)])
        >>> len(together), len(set(together.tolist()))
        (60, 60)
    """

    mixture: Mixture
    turns: Turns
    seed: int
    samples: int
    rows: int
    alike: bool

    def __post_init__(self) -> None:
        check_run(self.seed, self.samples)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, sample: int) -> Window:
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> list[Window]:
        check_range(samples, self.samples)
        length = self.mixture.sources[0].length
        kinds, stretches, cuts, ends = list[int](), list[int](), list[tuple[int, int]](), list[int]()
        last, kind, start = -1, 0, 0
        for sample in samples:
            turn, row = divmod(sample, self.rows)
            if not self.alike or turn != last:
                last, (kind, start) = turn, self.turns.at(turn, self.seed, 0 if self.alike else row)
            number, begin = divmod(start, length)
            end = begin + self.turns.sizes[kind]
            while end > 0:  # a window may run across the end of a stretch
                stretches.append(number * self.rows + row)
                cuts.append((begin, min(end, length)))
                number, begin, end = number + 1, 0, end - length
            ends.append(len(cuts))
            kinds.append(kind)
        parts, epochs = self._read(stretches, cuts)
        return [
            {
                "tokens": parts[first] if end == first + 1 else np.concatenate(parts[first:end]),
                "epoch": epochs[first],
                "index": sample,
                "kind": kind,
            }
            for sample, kind, first, end in zip(samples, kinds, [0, *ends[:-1]], ends, strict=True)
        ]

    def _read(self, stretches: Sequence[int], cuts: Sequence[tuple[int, int]]) -> tuple[list[Ints], list[int]]:
        """A part of each of these stretches, of the type it is stored in, and the epoch it is seen in."""
        length = self.mixture.sources[0].length
        stored = [np.asarray(source.tokens) for source in self.mixture.sources]  # memory maps are slow to cut
        places = self.mixture.places(stretches, self.seed)
        firsts = zip(places.source.tolist(), (places.sequence * length).tolist(), cuts, strict=True)
        return [stored[source][first + a : first + b] for source, first, (a, b) in firsts], places.epoch.tolist()


@dataclass(frozen=True)
class WindowValidation:
    """The validation sequences of a source, shortened to windows of every kind, in turn by kind.

    Of ``count`` sequences each kind has its share, and one at least; which sequences it has is spread over the text.

    Args:
        sequences: as long as the longest window.
        turns: the kinds and their sizes.
        predicted: of each kind, positions with a loss in a window.

    Raises:
        RaptrError: there are fewer sequences than kinds.
    """

    sequences: ValidationData
    turns: Turns
    predicted: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.sequences) < len(self.turns.sizes):
            raise RaptrError(
                f"{len(self.sequences)} validation sequences of {self.sequences.sequences.length} tokens are there or "
                f"asked for, and there are {len(self.turns.sizes)} denoisers, each of which needs one; raise "
                "evaluation.sequences, or hold out more text."
            )

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, sample: int) -> Window:
        kinds, places = _spread_over(self.turns, len(self))
        kind = int(kinds[sample])
        item = self.sequences[int(places[sample])]
        tokens = item["tokens"][: self.turns.sizes[kind]]
        return {"tokens": tokens, "epoch": item["epoch"], "index": item["index"], "kind": kind}

    def at_most(self, count: int) -> "WindowValidation":
        """The same with ``count`` sequences where there are more."""
        return WindowValidation(self.sequences.at_most(count), self.turns, self.predicted)

    @property
    def mean_predicted(self) -> float:
        """Positions with a loss in a window, the mean over all."""
        return float(np.asarray(self.predicted)[_spread_over(self.turns, len(self))[0]].mean())


@lru_cache(maxsize=64)
def _spread_over(turns: Turns, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The kind of each of ``count`` samples, rising, and the number of the sequence it is."""
    quotas = quotas_of(turns.shares, count)
    while sum(quotas) > count:  # each kind has at least one: the largest give
        most = quotas.index(max(quotas))
        quotas = (*quotas[:most], quotas[most] - 1, *quotas[most + 1 :])
    times = np.concatenate([(np.arange(quota) + 0.5) / quota for quota in quotas])
    places = np.empty(count, dtype=np.int64)
    places[np.argsort(times, kind="stable")] = np.arange(count)
    return np.repeat(np.arange(len(quotas)), quotas), places
