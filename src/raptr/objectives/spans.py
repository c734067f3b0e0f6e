"""Which tokens of a window are taken out: as many and in as many spans as its numbers say, placed at random.

B windows of n tokens, of which N are taken out in S spans.
"""

import numpy as np
import numpy.typing as npt

from raptr.objectives.forms import Example
from raptr.objectives.protocol import Ints
from raptr.plan import rng

Int64s = npt.NDArray[np.int64]


def segment_lengths(example: Example, *, seed: int, epochs: Ints, indices: Ints, place: int = 0) -> Int64s:
    """How long the segments of each window are: what is kept, and the span behind it, in turn.

    Both the N tokens and the n - N kept ones are divided into S parts, every division into parts of at least one
    token equally likely, as in T5. A kept part comes first: a window begins with a kept token and ends with a span.
    Without kept tokens the first part is empty.

    Args:
        example: the numbers of a window.
        seed: the run's seed.
        epochs: shape (B,).
        indices: shape (B,).
        place: which example of its sequence this is.

    Returns:
        int64 of shape (B, 2 S), of sum n in every row.

    Example:
        >>> one = segment_lengths(Example(6, 3, 1), seed=0, epochs=np.array([0]), indices=np.array([0]))
        >>> one.tolist()  # one span is always at the end
        [[3, 3]]
    """
    rows, kept = len(epochs), example.tokens - example.noise
    lengths = np.empty((rows, 2 * example.spans), dtype=np.int64)
    if example.spans == 1:
        lengths[:] = kept, example.noise
        return lengths
    count = example.tokens - 2  # N - 1 places to cut the one, n - N - 1 to cut the other
    places = [(epoch, index, place) for epoch, index in zip(epochs.tolist(), indices.tolist(), strict=True)]
    words = rng.halves(rng.table(seed, rng.SPANS, places, (count + 1) // 2))
    lengths[:, 0::2] = _parts(words[:, example.noise - 1 : count], kept, example.spans)
    lengths[:, 1::2] = _parts(words[:, : example.noise - 1], example.noise, example.spans)
    return lengths


def _parts(words: rng.Halves, total: int, parts: int) -> Int64s:
    """``total`` divided into ``parts`` at the places with the smallest words; shape (B, parts)."""
    cuts = np.empty((len(words), parts + 1), dtype=np.int64)
    cuts[:, 0], cuts[:, -1] = 0, total
    if parts == total:
        cuts[:, 1:-1] = np.arange(1, total)
    elif parts > 1:
        cuts[:, 1:-1] = _smallest(words, parts - 1) + 1
    return np.diff(cuts, axis=1)


def _smallest(words: rng.Halves, count: int) -> Int64s:
    """The places of the ``count`` smallest words of every row, in rising order; shape (B, count)."""
    rows, size = words.shape
    most = np.partition(words, count - 1, axis=1)[:, count - 1 : count]
    places = np.flatnonzero(words <= most)
    if len(places) != rows * count:  # equal words, once in ten million rows: the first of them
        return np.sort(np.argsort(words, axis=1, kind="stable")[:, :count], axis=1)
    return places.reshape(rows, count) - np.arange(0, rows * size, size)[:, None]
