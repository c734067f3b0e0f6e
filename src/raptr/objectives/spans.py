"""Which tokens of a window are taken out: as many and in as many spans as its numbers say, placed at random.

B windows of n tokens, of which N are taken out in S spans.
"""

import numpy as np
import numpy.typing as npt

from raptr.objectives.forms import Example
from raptr.objectives.protocol import Ints
from raptr.plan import draw

Int64s = npt.NDArray[np.int64]


def segments(example: Example, *, seed: int, epochs: Ints, indices: Ints, place: int = 0) -> Int64s:
    """To which segment each token belongs: 0, 2, 4, ... are kept, 1, 3, 5, ... are spans.

    Both the N tokens and the n - N kept ones are divided into S parts, every division into parts of at least one
    token equally likely, as in T5. The parts take turns, a kept one first: a window begins with a kept token and
    ends with a span. Without kept tokens there is segment 1 only.

    Args:
        example: the numbers of a window.
        seed: the run's seed.
        epochs: shape (B,).
        indices: shape (B,).
        place: which example of its sequence this is.

    Returns:
        int64 of shape (B, n), rising from 0 to 2 S - 1 in every row.

    Example:
        >>> one = segments(Example(6, 3, 1), seed=0, epochs=np.array([0]), indices=np.array([0]))
        >>> one.tolist()  # one span is always at the end
        [[0, 0, 0, 1, 1, 1]]
    """
    rows, kept = len(epochs), example.tokens - example.noise
    if kept == 0:
        return np.ones((rows, example.tokens), dtype=np.int64)
    if example.spans == 1:
        return np.broadcast_to((np.arange(example.tokens) >= kept).astype(np.int64), (rows, example.tokens))
    count = example.tokens - 2  # N - 1 places to cut the one, n - N - 1 to cut the other
    places = zip(epochs.tolist(), indices.tolist(), strict=True)
    words = np.empty((rows, count), dtype=np.uint64)
    for row, (epoch, index) in enumerate(places):
        words[row] = draw.words(seed, draw.SPANS, (epoch, index, place), count)
    lengths = np.empty((rows, 2 * example.spans), dtype=np.int64)
    lengths[:, 0::2] = _parts(words[:, example.noise - 1 :], kept, example.spans)
    lengths[:, 1::2] = _parts(words[:, : example.noise - 1], example.noise, example.spans)
    numbers = np.tile(np.arange(2 * example.spans), rows)
    return np.repeat(numbers, lengths.ravel()).reshape(rows, example.tokens)


def _parts(words: draw.Words, total: int, parts: int) -> Int64s:
    """``total`` divided into ``parts`` at the places with the smallest words; shape (B, parts)."""
    cuts = np.empty((len(words), parts + 1), dtype=np.int64)
    cuts[:, 0], cuts[:, -1] = 0, total
    if parts == total:
        cuts[:, 1:-1] = np.arange(1, total)
    elif parts > 1:
        cuts[:, 1:-1] = _smallest(words, parts - 1) + 1
    return np.diff(cuts, axis=1)


def _smallest(words: draw.Words, count: int) -> Int64s:
    """The places of the ``count`` smallest words of every row, in rising order; shape (B, count)."""
    most = np.partition(words, count - 1, axis=1)[:, count - 1 : count]
    rows, places = np.nonzero(words <= most)
    if len(rows) != len(words) * count:  # equal words, once in 2**64
        return np.sort(np.argsort(words, axis=1, kind="stable")[:, :count], axis=1)
    return places.reshape(len(words), count)
