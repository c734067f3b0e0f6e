"""Counter-based randomness: a draw is a function of its key and its place, of nothing else.

numpy's Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a
128-bit key and a 256-bit counter to random words. Nothing is carried from one call to the next, so any
step can be asked for in any order, on any rank, in any worker, after any restart. Only the raw
words are used: numpy keeps that stream stable across its versions, but not what its
``Generator`` methods make of it.
"""

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

PATHS, MASKS, ORDER, MIXTURE, HEADS, NEURONS, SEQUENCES = range(7)
"""What words are drawn for. Each purpose has a key of its own, so no two share a stream."""

SPANS, DENOISERS = 20, 21
"""The same, of denoising."""

_UNUSED = np.uint64(11)
"""Bits of a word that its number in [0, 1) leaves out."""

Words = npt.NDArray[np.uint64]
Halves = npt.NDArray[np.uint32]


def words(seed: int, purpose: int, counter: tuple[int, int, int], count: int) -> Words:
    """``count`` random 64-bit words at one place.

    Args:
        seed: the run's seed, from 0 to 2**64 - 1.
        purpose: one of the constants above.
        counter: the place, for a path (step, micro-step, stack), for heads and neurons (step, micro-step,
            `pair` of stack and layer), for the sequences of a layer (step, `pair` of micro-step and rank,
            `pair` of stack and layer), for a mask (epoch, sequence, 0), for an order (epoch, source, 0), for a
            mixture (block, source, 0), for spans (epoch, sequence, example), for the order of denoisers
            (block, denoiser, row).
        count: how many words.

    Returns:
        A uint64 array of shape (count,).

    Example:
        >>> words(0, PATHS, (7, 0, 0), 2).tolist() == words(0, PATHS, (7, 0, 0), 3).tolist()[:2]
        True
    """
    philox, state, at = _philox(seed, purpose)
    at[1:] = counter
    philox.state = state
    drawn: Words = philox.random_raw(count)
    return drawn


def random_numbers(seed: int, step: int, micro: int = 0, stack: int = 0, *, count: int) -> npt.NDArray[np.float64]:
    """Return ``count`` random numbers in [0, 1), a function of the arguments only: for the paths of a method.

    Any step can be asked for in any order, on any rank, and after any restart.

    Args:
        seed: the run's seed, from 0 to 2**64 - 1.
        step: the optimizer step.
        micro: the micro-step; leave it out to draw once for each step.
        stack: the number of the stack, so that stacks draw independently.
        count: how many numbers, usually one for each layer.

    Returns:
        A float64 array of shape (count,).

    Example:
        >>> random_numbers(0, 7, count=3).round(3).tolist()
        [0.19, 0.251, 0.308]
        >>> (random_numbers(0, 7, count=12) < 0.5).nonzero()[0].tolist()  # each of 12 layers with probability 1/2
        [0, 1, 2, 3, 6, 7, 10]
        >>> sorted(random_numbers(0, 7, count=12).argsort()[:6].tolist())  # 6 of 12 layers, all sets equally likely
        [0, 1, 2, 6, 7, 10]
    """
    return uniforms(words(seed, PATHS, (step, micro, stack), count))


def table(seed: int, purpose: int, places: Iterable[tuple[int, int, int]], count: int) -> Words:
    """`words` of many places at once, which is faster.

    Returns:
        A uint64 array of shape (places, count).

    Example:
        >>> table(0, MASKS, [(0, 1, 0), (0, 2, 0)], 3)[1].tolist() == words(0, MASKS, (0, 2, 0), 3).tolist()
        True
    """
    philox, state, at = _philox(seed, purpose)
    rows = []
    for at[1], at[2], at[3] in places:
        philox.state = state
        rows.append(philox.random_raw(count))
    return np.array(rows, dtype=np.uint64).reshape(len(rows), count)


_own = threading.local()


def _philox(seed: int, purpose: int) -> tuple[np.random.Philox, Any, Words]:
    """This thread's generator, the state that it is given before each use, and the counter in that, to be set.

    Making a generator takes longer than most draws.
    """
    if not hasattr(_own, "pair"):
        philox = np.random.Philox(0)
        state: Any = philox.state
        state["state"]["counter"][:] = 0
        state["buffer_pos"] = len(state["buffer"])  # none of its words are left over
        _own.pair = philox, state
    philox, state = _own.pair
    begin = state["state"]
    begin["key"][:] = seed, purpose
    return philox, state, begin["counter"]


def halves(random_words: Words) -> Halves:
    """Words as twice as many of 32 bits, along the last axis: the lower half of each, then its upper half."""
    return random_words.astype("<u8", copy=False).view("<u4")


def pair(high: int, low: int) -> int:
    """Two numbers below 2**32 as one number of a place."""
    return high << 32 | low


def subset(random_words: Words, size: int) -> tuple[int, ...]:
    """The places of the ``size`` smallest words, in rising order: every set of that size is equally likely.

    Example:
        >>> subset(np.array((9, 2, 7, 4), dtype=np.uint64), 2)
        (1, 3)
    """
    if size >= len(random_words):
        return tuple(range(len(random_words)))
    chosen: list[int] = (random_words < np.partition(random_words, size)[size]).nonzero()[0].tolist()
    if len(chosen) != size:  # equal words, once in 2**64
        chosen = np.sort(np.argsort(random_words, kind="stable")[:size]).tolist()
    return tuple(chosen)


def below(random_words: Words, probability: float | npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where ``uniforms(random_words) < probability``, in fewer operations: they are most of a step's choice.

    Example:
        >>> below(np.array((2**62, 2**63), dtype=np.uint64), 0.5).tolist()
        [True, False]
    """
    found: npt.NDArray[np.bool_] = (random_words >> _UNUSED) < probability * 2.0**53
    return found


def uniforms(random_words: Words) -> npt.NDArray[np.float64]:
    """Words as numbers in [0, 1): the upper 53 bits, times 2**-53."""
    return (random_words >> _UNUSED).astype(np.float64) * 2.0**-53
