"""The samples that a run trains on and those it is measured on, as torch's DataLoader takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import numpy as np

from raptr.data.samples.mixture import Mixture
from raptr.data.samples.sequences import Ints, Sequences
from raptr.errors import RaptrError

Part = Literal["all", "tuning", "report"]

_SOURCE = 2**40
"""Where the numbers of the next source's sequences begin."""


class Item(TypedDict):
    """One sample: its tokens, shape (length,), the epoch it is seen in, and which sequence it is.

    ``index`` is the number of the sequence in its source, plus 2**40 times the number of the source: no two
    sequences share it, and it does not change when another source grows.
    """

    tokens: Ints
    epoch: int
    index: int


@dataclass(frozen=True)
class TrainingData:
    """All samples of a run in their order, as a map-style dataset for torch's DataLoader.

    It is already shuffled: read it in order (``shuffle=False``).

    Args:
        mixture: the train text of all sources.
        seed: the run's seed, from 0 to 2**64 - 1.
        samples: how many the run sees, steps times sequences a step; may be several epochs.

    Raises:
        RaptrError: ``seed`` or ``samples`` is out of range.

    Example:
        >>> import numpy as np
        >>> data = TrainingData(Mixture((Sequences(np.arange(8), 4),), (2,)), seed=0, samples=6)
        >>> sorted(data[i]["index"] for i in (2, 3)), data[3]["epoch"]
        ([0, 1], 1)
    """

    mixture: Mixture
    seed: int
    samples: int

    def __post_init__(self) -> None:
        check_run(self.seed, self.samples)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, sample: int) -> Item:
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> list[Item]:
        check_range(samples, self.samples)
        places = self.mixture.places(samples, self.seed)
        if len(self.mixture.sources) == 1:
            return _items(0, self.mixture.sources[0], places.epoch, places.sequence)
        found = dict[int, Item]()
        for number in set(places.source.tolist()):
            mine = np.flatnonzero(places.source == number)
            items = _items(number, self.mixture.sources[number], places.epoch[mine], places.sequence[mine])
            found |= zip(mine.tolist(), items, strict=True)
        return [found[place] for place in range(len(samples))]


@dataclass(frozen=True)
class ValidationData:
    """``count`` sequences spread evenly over the validation text of a source, always the same ones.

    Of the n sequences, "tuning" is the first n // 2 and "report" the others, so that what chooses
    hyper-parameters and what is reported share none. Of a part that begins at a and has m sequences, the
    i-th is a + i * m // count. Epochs are 0.

    Args:
        sequences: the validation text.
        count: how many; None for all.
        part: "all", "tuning" or "report".
        source: the number of the source, from 0.

    Raises:
        RaptrError: there are fewer sequences than ``count``.

    Example:
        >>> import numpy as np
        >>> data = ValidationData(Sequences(np.arange(40), 4), count=3)
        >>> [data[i]["index"] for i in range(len(data))]
        [0, 3, 6]
    """

    sequences: Sequences
    count: int | None = None
    part: Part = "all"
    source: int = 0

    def __post_init__(self) -> None:
        there = self._stop - self._start
        if not 1 <= (there if self.count is None else self.count) <= there:
            asked = "all" if self.count is None else str(self.count)
            where = "" if self.part == "all" else f" in its part {self.part!r}"
            raise RaptrError(
                f"{asked} validation sequences were asked for; the validation text has {there} of "
                f"{self.sequences.length} tokens{where}. Ask for 1 to {there}, or hold out more text."
            )

    def at_most(self, count: int) -> "ValidationData":
        """The same text and part, with ``count`` sequences where there are more."""
        return replace(self, count=min(count, len(self)))

    @property
    def _start(self) -> int:
        return len(self.sequences) // 2 if self.part == "report" else 0

    @property
    def _stop(self) -> int:
        return len(self.sequences) // 2 if self.part == "tuning" else len(self.sequences)

    def __len__(self) -> int:
        return self._stop - self._start if self.count is None else self.count

    def __getitem__(self, sample: int) -> Item:
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> list[Item]:
        check_range(samples, len(self))
        step = self._stop - self._start
        sequences = np.array([self._start + sample * step // len(self) for sample in samples], dtype=np.int64)
        return _items(self.source, self.sequences, np.zeros_like(sequences), sequences)


def check_run(seed: int, samples: int) -> None:
    """Refuse a seed, or a number of training samples, that no run has."""
    if not 0 <= seed < 2**64:
        raise RaptrError(f"the seed is {seed}; expected a whole number from 0 to 2**64 - 1.")
    if samples < 1:
        raise RaptrError(f"{samples} training samples were asked for; expected at least 1.")


def check_range(samples: Sequence[int], size: int) -> None:
    """Refuse places that a dataset of this size does not have."""
    for sample in samples:
        if not 0 <= sample < size:  # an IndexError is also what ends a plain loop over a dataset
            raise IndexError(f"sample {sample} was asked for; there are 0 to {size - 1}")


def _items(source: int, sequences: Sequences, epochs: Ints, numbers: Ints) -> list[Item]:
    """Samples of one source, read at once."""
    indices = (source * _SOURCE + numbers).tolist()
    return [
        {"tokens": tokens, "epoch": epoch, "index": index}
        for tokens, epoch, index in zip(sequences.rows(numbers), epochs.tolist(), indices, strict=True)
    ]
