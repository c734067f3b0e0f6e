"""Whole-word masking: against a slow reference, exact counts, at most one word cut, and who is chosen how often."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from raptr.errors import RaptrError
from raptr.objectives import masked, most_predictions, taken_apart
from raptr.objectives.masked import continuing
from raptr.objectives.words import choose_words
from reference.masked import masked_sequence, whole_words

ALARM = 1e-6
VOCABULARY, MASK, SPECIALS = 60, 4, (0, 1, 2, 3, 4, 17)
CONTINUES = np.arange(VOCABULARY) >= 40
corrupt = partial(masked, seed=5, mask_id=MASK, vocab_size=VOCABULARY, special_ids=SPECIALS)
whole = partial(corrupt, continues=CONTINUES)


def text(sequences, length, seed=0, share=0.4, special_share=0.05):
    """Random tokens: this share of them continue words, some are special."""
    random = np.random.default_rng(seed)
    begins = random.choice(np.setdiff1d(np.arange(40), SPECIALS), (sequences, length))
    tokens = np.where(random.random((sequences, length)) < share, random.integers(40, 60, (sequences, length)), begins)
    special = random.random(tokens.shape) < special_share
    special[:, -1] = False
    return np.where(special, random.choice(SPECIALS, tokens.shape), tokens)


def at(sequences, epoch=0):
    return {"epochs": np.full(sequences, epoch), "indices": np.arange(sequences)}


def words_of(row):
    """The places of the words of one row of tokens, by hand."""
    found = []
    for place, token in enumerate(row):
        if token in SPECIALS:
            continue
        if found and token >= 40 and found[-1][-1] == place - 1:
            found[-1].append(place)
        else:
            found.append([place])
    return found


@pytest.mark.parametrize("rate", [0.15, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_equals_the_reference_token_by_token(rate, share):
    tokens = text(60, 40, seed=int(rate * 100), share=share)
    options = {"rate": rate, "masked_share": 0.7, "random_share": 0.2}
    batch = whole(tokens, **at(60, epoch=3), **options)
    same = {"seed": 5, "mask_id": MASK, "vocab_size": VOCABULARY, "special_ids": SPECIALS, **options}
    continuing = set(range(40, 60))
    expected = [
        masked_sequence(row.tolist(), epoch=3, index=i, continues=continuing, **same) for i, row in enumerate(tokens)
    ]
    assert batch["input_ids"].tolist() == [inputs for inputs, _ in expected]
    assert batch["labels"].tolist() == [labels for _, labels in expected]
    if share and 0.01 < rate < 1:  # control: words change what is chosen, if more than one token is
        assert (corrupt(tokens, **at(60, epoch=3), **options)["labels"] != batch["labels"]).any()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_words_in_any_order_equal_the_reference(data):
    length = data.draw(st.integers(1, 24))
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    maskable, continues = (np.array([data.draw(flags) for _ in range(3)]) for _ in range(2))
    few = st.integers(0, 9)  # few values, so that some are equal
    words = np.array([data.draw(st.lists(few, min_size=length, max_size=length)) for _ in range(3)], dtype=np.uint64)
    count = np.array([data.draw(st.integers(0, int(available))) for available in maskable.sum(axis=1)])
    chosen = choose_words(words, maskable, continues, count)
    for row in range(3):
        expected = whole_words(words[row].tolist(), maskable[row], continues[row], count[row])
        assert chosen[row].nonzero()[0].tolist() == expected
        assert len(expected) == count[row]


def test_the_count_is_exact_and_at_most_one_word_is_cut():
    tokens = text(3000, 64)
    chosen = whole(tokens, **at(3000))["labels"] != -100
    available = (~np.isin(tokens, SPECIALS)).sum(axis=1)
    assert (chosen.sum(axis=1) == np.maximum(1, np.rint(0.15 * available))).all()
    cut = [sum(0 < chosen[i][word].sum() < len(word) for word in words_of(row)) for i, row in enumerate(tokens)]
    assert max(cut) <= 1
    assert np.mean(cut) < 0.01, "words of one token are nearly always there to make the count exact"
    apart = corrupt(tokens, **at(3000))["labels"] != -100  # control: tokens by themselves
    cut = [sum(0 < apart[i][word].sum() < len(word) for word in words_of(row)) for i, row in enumerate(tokens)]
    assert np.mean(cut) > 2


def test_where_all_words_are_long_one_is_cut():
    tokens = np.tile([10, 50, 50], 20)[None].repeat(500, axis=0)  # 20 words of 3: 9 of 60 tokens are 3 words
    chosen = whole(tokens, **at(500))["labels"] != -100
    assert (chosen.reshape(500, 20, 3).sum(axis=2) % 3 == 0).all()
    chosen = whole(tokens, **at(500), rate=0.18)["labels"] != -100  # 11: 3 words, and 2 tokens of a fourth
    sizes = np.sort(chosen.reshape(500, 20, 3).sum(axis=2), axis=1)
    assert (sizes[:, -4:] == [2, 3, 3, 3]).all()
    assert (chosen[:, 2::3].sum(axis=1) == 3).all(), "its first tokens are chosen"


def test_every_word_of_a_size_is_as_likely_and_so_is_every_place():
    """20 words of 1, 2 and 3 tokens, in one order for all: who is chosen depends on a word's size only."""
    sizes = [1, 2, 3, 2] * 5
    row = [token for size in sizes for token in (10, *[50] * (size - 1))]
    tokens = np.array(row)[None].repeat(6000, axis=0)
    chosen = whole(tokens, **at(6000))["labels"] != -100
    starts = np.cumsum([0, *sizes[:-1]])
    for size in (1, 2, 3):
        counts = chosen[:, [start for start, of in zip(starts, sizes, strict=True) if of == size]].sum(axis=0)
        assert chisquare(counts).pvalue > ALARM
        assert chisquare(counts + 400 * (np.arange(len(counts)) == 0)).pvalue < ALARM  # control
    shares = [chosen[:, [s for s, of in zip(starts, sizes, strict=True) if of == size]].mean() for size in (1, 2, 3)]
    assert shares[0] > shares[1] > shares[2] > 0.08, "what does not fit is passed over, so short words come up more"
    assert chosen.mean() == pytest.approx(6 / 40)


def test_shares_of_masks_and_random_tokens_are_of_each_token_by_itself():
    tokens = np.tile([10, 50], 32)[None].repeat(4000, axis=0)
    batch = whole(tokens, **at(4000))
    chosen = batch["labels"] != -100
    masks = batch["input_ids"] == MASK
    assert binomtest(int(masks.sum()), int(chosen.sum()), 0.8).pvalue > ALARM
    assert binomtest(int(masks.sum()), int(chosen.sum()), 0.78).pvalue < ALARM  # control
    pairs = chosen.reshape(4000, 32, 2).all(axis=2)
    both = masks.reshape(4000, 32, 2).all(axis=2) & pairs
    assert binomtest(int(both.sum()), int(pairs.sum()), 0.64).pvalue > ALARM, "not of the word as a whole"
    assert binomtest(int(both.sum()), int(pairs.sum()), 0.8).pvalue < ALARM  # control


def test_a_word_begins_after_a_special_token_and_at_the_beginning():
    tokens = np.array([[50, 51, 17, 52, 53, 10, 54]])
    may = ~np.isin(tokens, SPECIALS)
    for smallest, expected in ((0, [0, 1]), (3, [3, 4]), (5, [5, 6])):
        words = np.full((1, 7), 100, dtype=np.uint64)
        words[0, smallest] = 0
        chosen = choose_words(words, may, CONTINUES[tokens], np.array([2]))
        assert chosen[0].nonzero()[0].tolist() == expected
        joined = choose_words(words, np.full((1, 7), True), CONTINUES[tokens], np.array([2]))  # control: not special
        assert smallest != 3 or joined[0].nonzero()[0].tolist() != expected


def test_a_text_of_one_long_word_is_masked_everywhere():
    tokens = np.full((4000, 64), 50)  # all continue the word of the first
    chosen = whole(tokens, **at(4000))["labels"] != -100
    assert (chosen.sum(axis=1) == 10).all()
    assert chisquare(chosen.sum(axis=0)).pvalue > ALARM, "every position is as likely"
    assert chisquare(chosen.sum(axis=0) + 300 * (np.arange(64) < 10)).pvalue < ALARM  # control
    apart = corrupt(tokens, **at(4000))["labels"] != -100
    assert (chosen == apart).all(), "the same as without words"
    again = whole(tokens, **at(4000, epoch=1))["labels"] != -100
    assert (again != chosen).any(axis=1).mean() > 0.99


@pytest.mark.parametrize("longest", [7, 8, 20, 44])
def test_tokens_of_a_word_that_is_too_long_are_chosen_as_often_as_others(longest):
    row = [*[10] * 20, 11, *[50] * (longest - 1), *[12] * (44 - longest)]  # 64 tokens: 10 are chosen
    tokens = np.tile(row, (6000, 1))
    chosen = (whole(tokens, **at(6000), rate=6 / 64)["labels"] != -100).sum(axis=0)
    assert chosen.sum() == 6 * 6000
    assert chisquare(chosen).pvalue > ALARM


def test_a_word_that_just_fits_stays_whole():
    tokens = np.tile([*[10] * 30, 11, *[50] * 5, *[12] * 28], (2000, 1))  # a word of 6, and 6 are chosen
    chosen = whole(tokens, **at(2000), rate=6 / 64)["labels"] != -100
    inside = chosen[:, 30:36].sum(axis=1)
    assert set(inside) == {0, 6}


def test_how_many_tokens_are_chosen_one_by_one_is_counted():
    closes = np.arange(VOCABULARY) == 39
    options = {"special_ids": SPECIALS, "rate": 0.15, "continues": CONTINUES, "closes": closes}
    assert taken_apart(np.full((2, 20), 10), **options) == 0
    assert taken_apart(np.full((2, 20), 50), **options) == 1
    assert taken_apart(np.array([[10] * 16 + [50] * 4]), **options) == 0.25  # the word has one more, and 3 are chosen
    assert taken_apart(np.array([[10] * 16 + [17] + [50] * 3]), **options) == 0
    assert taken_apart(np.array([[10] * 15 + [39] + [50] * 3 + [10]]), **options) == 0


def test_a_word_ends_at_a_token_that_closes_it():
    tokens = np.array([[10, 39, 50, 50, 39, 50, 17, 50]])
    found = continuing(tokens, CONTINUES, np.arange(VOCABULARY) == 39, VOCABULARY)
    assert found.astype(int).tolist() == [[0, 0, 0, 1, 0, 0, 0, 1]]  # 17 is special: that ends a word later
    assert continuing(tokens, CONTINUES, None, VOCABULARY).astype(int).tolist() == [[0, 0, 1, 1, 0, 1, 0, 1]]


def test_words_are_chosen_alike_in_any_batch():
    tokens = text(64, 32)
    together = whole(tokens, **at(64, epoch=2))
    for rows in ([5], [63, 5, 0], list(range(64))[::-1]):
        part = whole(tokens[rows], epochs=np.full(len(rows), 2), indices=np.array(rows))
        assert all((array == together[name][rows]).all() for name, array in part.items())
    assert (whole(tokens, **at(64, epoch=3))["labels"] != together["labels"]).any()


@pytest.mark.parametrize("objective", [corrupt, whole], ids=["tokens", "words"])
def test_labels_by_position_are_the_same_labels(objective):
    tokens = text(200, 40)
    full, placed = objective(tokens, **at(200)), objective(tokens, **at(200), predictions=most_predictions(40, 0.15))
    assert placed["labels"].shape == placed["masked_positions"].shape == (200, 6)
    assert placed["masked_positions"].dtype == np.int64
    assert (placed["input_ids"] == full["input_ids"]).all()
    rebuilt = np.full_like(tokens, -100)
    there = placed["labels"] != -100
    rows = np.nonzero(there)[0]
    rebuilt[rows, placed["masked_positions"][there]] = placed["labels"][there]
    assert (rebuilt == full["labels"]).all()
    assert (there.sum(axis=1) < 6).any(), "special tokens make it fewer"
    assert (placed["masked_positions"][~there] == 0).all()
    for row, mine in zip(placed["masked_positions"], there, strict=True):
        assert (np.diff(row[mine]) > 0).all()


def test_the_number_by_position_is_that_of_a_sequence_without_special_tokens():
    for length in range(2, 200):
        for rate in (0.15, 0.4, 1.0):
            labels = corrupt(np.full((1, length), 7), **at(1), rate=rate)["labels"]
            assert (labels != -100).sum() == most_predictions(length, rate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": 5}, "predictions is 5, but 6 positions are chosen"),
        ({"predictions": 0}, "predictions is 0"),
        ({"predictions": 41}, "a sequence has 40 tokens"),
        ({"continues": CONTINUES[:-1]}, "each of the 60 ids"),
        ({"continues": np.zeros(VOCABULARY)}, "the type float64"),
        ({"continues": CONTINUES, "closes": CONTINUES[1:]}, "closes has the shape"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    tokens = np.full((2, 40), 7)
    assert corrupt(tokens, **at(2), predictions=6, continues=CONTINUES)["labels"].shape == (2, 6)
    with pytest.raises(RaptrError, match=message):
        corrupt(tokens, **at(2), **change)
