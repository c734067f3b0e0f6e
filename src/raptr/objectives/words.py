"""Whole-word masking: which tokens of a sequence are chosen, where words are chosen whole.

B sequences of T tokens. A word is a token that begins one and those after it that continue it; a special
token ends it. What stands at the beginning of a sequence, or after a special token, begins a word whatever it is.
A word of more tokens than are chosen in its sequence can never be chosen whole: its tokens are words by themselves.
"""

import numpy as np
import numpy.typing as npt

from raptr.plan.rng import Words

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

_NEVER = np.uint64(2**64 - 1)


def choose_words(words: Words, maskable: Bools, continues: Bools, count: Counts) -> Bools:
    """Choose exactly ``count`` tokens of every sequence, as whole words.

    The words of the text are gone through in a random order. Each is chosen if it does not lead beyond the
    count, and otherwise passed over, as in BERT's published code. There the count may be missed; here, where
    words with more than one token are all that is left, the first tokens of the first of them are chosen to make
    it exact: at most one word of a sequence is cut. Words of more than ``count`` tokens, which would always be passed
    over, are taken apart: each of their tokens is a word.

    Args:
        words: random words, shape (B, T); those at the words' first tokens give the order.
        maskable: which tokens may be chosen, shape (B, T).
        continues: which tokens continue the word of the token before them, shape (B, T).
        count: how many tokens of each sequence are chosen, shape (B,), from 0 to its maskable ones.

    Returns:
        Which tokens are chosen, shape (B, T).

    Example:
        >>> random_words = np.array([[9, 0, 3, 0, 0, 5]], dtype=np.uint64)
        >>> goes_on = np.array([[False, True, False, True, True, False]])  # words of 2, 3 and 1 tokens
        >>> choose_words(random_words, np.full((1, 6), True), goes_on, np.array([3])).astype(int)
        array([[0, 0, 1, 1, 1, 0]])
        >>> choose_words(random_words, np.full((1, 6), True), goes_on, np.array([2])).astype(int)  # 3 are too long
        array([[0, 0, 0, 1, 1, 0]])

    Source:
        "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", arXiv 1810.04805,
        and the note on whole-word masking in its published code (2019).
    """
    begins = maskable & ~joined(maskable, continues)
    begins |= maskable & (_sizes(begins, maskable) > count[:, None])
    number, lengths = _numbered(begins, maskable)

    # Halved, every random word is smaller than the one that stands for "no word begins here".
    order = np.argsort(np.where(begins, words >> np.uint64(1), _NEVER), axis=1, kind="stable")
    there = np.take_along_axis(begins, order, axis=1)
    ordered = np.take_along_axis(number, order, axis=1)
    sizes = np.where(there, lengths[ordered], 0)
    taken = _greedy(sizes, count)

    tokens = np.where(taken, sizes, 0)
    missing = count - tokens.sum(axis=1)
    [rows] = missing.nonzero()
    tokens[rows, (there & ~taken).argmax(axis=1)[rows]] = missing[rows]

    chosen_of_word = np.zeros(len(lengths), dtype=np.int64)
    chosen_of_word[ordered[there]] = tokens[there]
    first = np.maximum.accumulate(np.where(begins, np.arange(begins.shape[1]), 0), axis=1)
    chosen: Bools = maskable & (np.arange(begins.shape[1]) - first < chosen_of_word[number])
    return chosen


def joined(maskable: Bools, continues: Bools) -> Bools:
    """Return which tokens belong to the word of the token before them, shape (B, T)."""
    before = np.zeros_like(maskable)
    before[:, 1:] = maskable[:, :-1]
    both: Bools = maskable & continues & before
    return both


def too_long(maskable: Bools, continues: Bools, count: Counts) -> Bools:
    """Return which tokens are in words of more than ``count`` tokens, shape (B, T)."""
    found: Bools = maskable & (_sizes(maskable & ~joined(maskable, continues), maskable) > count[:, None])
    return found


def _numbered(begins: Bools, maskable: Bools) -> tuple[Counts, Counts]:
    """The number of the word that each maskable token is in, counted over the batch, and how long each word is."""
    number: Counts = (np.cumsum(begins) - 1).reshape(begins.shape)
    return number, np.bincount(number[maskable], minlength=1)


def _sizes(begins: Bools, maskable: Bools) -> Counts:
    """How long the word is that each maskable token is in, shape (B, T)."""
    number, lengths = _numbered(begins, maskable)
    return lengths[number]


def _greedy(sizes: Counts, count: Counts) -> Bools:
    """Which entries are taken when each in turn is, if it still fits into the count; those of size 0 never are."""
    taken = np.zeros(sizes.shape, dtype=np.bool_)
    left = count.copy()
    rows = np.arange(len(sizes))
    while rows.size:
        # Whatever does not fit now will not fit later. Of the rest, all up to the first that leads too far are taken.
        fits = ~taken[rows] & (sizes[rows] > 0) & (sizes[rows] <= left[rows, None])
        size = np.where(fits, sizes[rows], 0)
        new = fits & (np.cumsum(size, axis=1) <= left[rows, None])
        taken[rows] |= new
        left[rows] -= np.where(new, size, 0).sum(axis=1)
        rows = rows[new.any(axis=1) & (left[rows] > 0)]
    return taken
