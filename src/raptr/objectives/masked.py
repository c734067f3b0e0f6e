"""Masked language modelling, as in BERT.

B sequences of T tokens, K predictions in each. The random words of one sequence: T choose the positions,
T say what becomes of each, T are the random tokens.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from raptr.errors import RaptrError
from raptr.objectives.protocol import Batch, Ints, checked
from raptr.objectives.words import Bools, choose_words, too_long
from raptr.plan import rng

IGNORED = -100
"""The label of a position without loss: what Hugging Face's models and torch's cross-entropy skip."""

_NEVER = np.uint64(2**64 - 1)


def masked(
    tokens: Ints,
    *,
    seed: int,
    epochs: Ints,
    indices: Ints,
    mask_id: int,
    vocab_size: int,
    special_ids: Iterable[int] = (),
    rate: float = 0.15,
    masked_share: float = 0.8,
    random_share: float = 0.1,
    continues: Bools | None = None,
    closes: Bools | None = None,
    predictions: int | None = None,
) -> Batch:
    """Inputs and labels of masked language modelling.

    Of the m positions of a sequence that hold no special token, exactly

        k = max(1, round(rate * m))        (a half goes to the even number)

    are chosen, uniformly and without replacement. Each chosen position becomes ``mask_id`` with
    probability ``masked_share``, a token drawn uniformly from the vocabulary without the special
    ids with probability ``random_share``, and otherwise stays as it is. Labels hold the original
    token where a position was chosen and -100 elsewhere.

    With ``continues`` whole words are chosen, see `raptr.objectives.words.choose_words`: the number of tokens
    is the same k, and what becomes of a token is drawn for each by itself, as published.

    The exact count is ours: Hugging Face's collator draws every position by itself, so that its
    count varies from sequence to sequence. The corruption of a sequence is a function of
    (seed, epoch, index) and of the sequence, whatever else is in the batch.

    Args:
        tokens: token ids, shape (B, T), any integer type.
        seed: the run's seed.
        epochs: shape (B,): in which pass over the data each sequence is seen.
        indices: shape (B,): which sequence of the data each one is.
        mask_id: the id of the mask token; it counts as special.
        vocab_size: ids run from 0 to vocab_size - 1.
        special_ids: ids that are neither chosen nor drawn.
        rate: the share of the positions that is chosen, in (0, 1].
        masked_share: the share of the chosen that becomes ``mask_id``.
        random_share: the share of the chosen that becomes a random token.
        continues: whole words are masked: for every id whether it continues the word of the token before it,
            shape (vocab_size,).
        closes: for every id whether no token continues its word, whatever ``continues`` says of that: as at the end of
            a character of a script without spaces, before a Latin word. Shape (vocab_size,).
        predictions: K: labels are given at the chosen positions only, K of them in every sequence.

    Returns:
        ``input_ids`` and ``labels``, each int64 of shape (B, T). With ``predictions``, ``labels`` and
        ``masked_positions`` of shape (B, K): the chosen positions in rising order and their labels. Where a
        sequence has fewer, because of special tokens, the rest are position 0 with the label -100.

    Raises:
        RaptrError: a sequence of special tokens only, an id outside the vocabulary, a rate outside
            (0, 1], shares below 0 or together above 1, more chosen positions than ``predictions``, or arrays of
            the wrong shape.

    Example:
        >>> import numpy as np
        >>> batch = masked(np.arange(10, 30)[None], seed=0, epochs=np.array([0]), indices=np.array([7]),
        ...                mask_id=4, vocab_size=30, special_ids=range(5))
        >>> int((batch["labels"] != -100).sum())  # 15 % of 20
        3

    Source:
        "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
        arXiv 1810.04805, section 3.1; whole words: "Pre-Training with Whole Word Masking for Chinese BERT",
        arXiv 1906.08101, section 3.
    """
    ids = checked(tokens)
    specials = np.unique(np.array([mask_id, *special_ids], dtype=np.int64))
    _check_numbers(specials, vocab_size, rate, masked_share, random_share)
    _check_batch(ids, epochs, indices, vocab_size)

    words = _words(seed, epochs, indices, ids.shape[1])  # (B, 3, T)
    maskable = ~np.isin(ids, specials)
    count = _counts(maskable, rate, indices)
    if continues is None:
        chosen = _choose(words[:, 0], maskable, count)
    else:
        chosen = choose_words(words[:, 0], maskable, continuing(ids, continues, closes, vocab_size), count)
    fate = rng.uniforms(words[:, 1])
    to_mask = chosen & (fate < masked_share)
    to_random = chosen & ~to_mask & (fate < masked_share + random_share)

    inputs = np.where(to_mask, mask_id, ids)
    inputs = np.where(to_random, _ordinary(words[:, 2], specials, vocab_size), inputs)
    labels = np.where(chosen, ids, IGNORED)
    if predictions is None:
        return {"input_ids": inputs, "labels": labels}
    return {"input_ids": inputs, **_at_positions(labels, chosen, predictions)}


def taken_apart(tokens: Ints, *, special_ids: Iterable[int], rate: float, continues: Bools, closes: Bools) -> float:
    """Share of the tokens that whole-word masking chooses one by one, because their word has too many of them.

    Args:
        tokens: token ids, shape (B, T).
        special_ids: as in `masked`, with the mask token.
        rate: as in `masked`.
        continues: as in `masked`.
        closes: as in `masked`.
    """
    ids = checked(tokens)
    maskable = ~np.isin(ids, list(special_ids))
    count = np.maximum(1, np.rint(rate * maskable.sum(axis=1))).astype(np.int64)
    return float(too_long(maskable, continuing(ids, continues, closes, len(continues)), count).mean())


def most_predictions(length: int, rate: float) -> int:
    """The most positions that `masked` chooses in a sequence of this length: those of one without special tokens.

    Example:
        >>> most_predictions(512, 0.15)
        77
    """
    return max(1, round(rate * length))


def _words(seed: int, epochs: Ints, indices: Ints, length: int) -> rng.Words:
    """The random words of every sequence, shape (B, 3, T)."""
    places = [(epoch, index, 0) for epoch, index in zip(epochs.tolist(), indices.tolist(), strict=True)]
    return rng.table(seed, rng.MASKS, places, 3 * length).reshape(len(places), 3, length)


def _at_positions(labels: npt.NDArray[np.int64], chosen: Bools, predictions: int) -> Batch:
    """The labels of the chosen positions, and which those are, in rising order and as many for every sequence."""
    count = chosen.sum(axis=1)
    if predictions < 1 or count.max(initial=0) > predictions:
        raise RaptrError(
            f"predictions is {predictions}, but {count.max(initial=0)} positions are chosen in a sequence; give at "
            "least `most_predictions` of its length and rate."
        )
    if predictions > chosen.shape[1]:
        raise RaptrError(
            f"predictions is {predictions}, but a sequence has {chosen.shape[1]} tokens; give at most as many."
        )
    positions = np.argsort(~chosen, axis=1, kind="stable")[:, :predictions]
    there = np.arange(predictions) < count[:, None]
    found = np.take_along_axis(labels, positions, axis=1)
    return {
        "labels": np.where(there, found, IGNORED),
        "masked_positions": np.where(there, positions, 0).astype(np.int64),
    }


def _counts(maskable: Bools, rate: float, indices: Ints) -> npt.NDArray[np.int64]:
    """How many positions of every sequence are chosen."""
    available = maskable.sum(axis=1)
    if not available.all():
        which = indices[available == 0].tolist()
        raise RaptrError(
            f"sequence {which[0]} holds special tokens only ({len(which)} of {len(indices)} in the batch do), so "
            "no position can be masked; give sequences with text, or fewer special_ids."
        )
    count: npt.NDArray[np.int64] = np.maximum(1, np.rint(rate * available)).astype(np.int64)
    return count


def _choose(words: rng.Words, maskable: Bools, count: npt.NDArray[np.int64]) -> Bools:
    """The k maskable positions of every sequence with the smallest words."""
    # Halved, every word of a maskable position is smaller than the one that stands for "never".
    order = np.argsort(np.where(maskable, words >> np.uint64(1), _NEVER), axis=1, kind="stable")
    first = np.arange(words.shape[1]) < count[:, None]
    chosen = np.zeros_like(maskable)
    np.put_along_axis(chosen, order, first, axis=1)
    return chosen


def _ordinary(words: rng.Words, specials: npt.NDArray[np.int64], vocab_size: int) -> npt.NDArray[np.int64]:
    """Ids drawn uniformly from the vocabulary without the (sorted) special ids."""
    drawn = (rng.uniforms(words) * (vocab_size - len(specials))).astype(np.int64)
    # The r-th ordinary id is r plus the number of special ids below it.
    return drawn + np.searchsorted(specials - np.arange(len(specials)), drawn, side="right")


def continuing(ids: Ints, continues: Bools, closes: Bools | None, vocab_size: int) -> Bools:
    """Return which tokens continue the word of the token before them, shape (B, T); the arguments are `masked`'s."""
    for name, found in (("continues", continues), ("closes", closes)):
        if found is not None and (found.shape != (vocab_size,) or found.dtype != np.bool_):
            raise RaptrError(
                f"{name} has the shape {found.shape} and the type {found.dtype}; expected a truth value for "
                f"each of the {vocab_size} ids of the vocabulary."
            )
    goes_on: Bools = continues[ids]
    if closes is not None:
        goes_on[:, 1:] &= ~closes[ids[:, :-1]]
    return goes_on


def _check_numbers(
    specials: npt.NDArray[np.int64], vocab_size: int, rate: float, masked_share: float, random_share: float
) -> None:
    if not 0 < rate <= 1:
        raise RaptrError(f"rate is {rate}; expected a share of the positions above 0 and at most 1, like 0.15.")
    if not (masked_share >= 0 and random_share >= 0 and masked_share + random_share <= 1 + 1e-9):
        raise RaptrError(
            f"masked_share is {masked_share} and random_share {random_share}; expected two shares of the chosen "
            "positions, each at least 0 and together at most 1, like 0.8 and 0.1."
        )
    if specials[0] < 0 or specials[-1] >= vocab_size:
        raise RaptrError(
            f"mask_id and special_ids run from {specials[0]} to {specials[-1]}; expected ids of the vocabulary, "
            f"0 to {vocab_size - 1}. Give the ids and the size of one and the same tokenizer."
        )
    if len(specials) == vocab_size:
        raise RaptrError(f"all {vocab_size} ids of the vocabulary are special; expected at least one that is not.")


def _check_batch(ids: npt.NDArray[np.int64], epochs: Ints, indices: Ints, vocab_size: int) -> None:
    if epochs.shape != (len(ids),) or indices.shape != (len(ids),):
        raise RaptrError(
            f"epochs has the shape {epochs.shape} and indices {indices.shape}; expected ({len(ids)},) each: one "
            "number for every sequence."
        )
    if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
        raise RaptrError(
            f"the tokens run from {ids.min()} to {ids.max()}; expected ids of the vocabulary, 0 to "
            f"{vocab_size - 1}. Give the vocab_size of the tokenizer that made the tokens."
        )
