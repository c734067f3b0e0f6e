"""Masked language modelling: exact counts, shares, purity, refusals.

Statistical bounds: a test alarms if the two-sided p-value is below 1e-6. The seed is fixed, so a test
that passes once goes on passing; a wrong implementation of another stream would be let through, or a
right one refused, once in a million.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from raptr.errors import RaptrError
from raptr.objectives import masked
from reference.masked import masked_sequence

ALARM = 1e-6
VOCABULARY, MASK, SPECIALS = 50, 4, (0, 1, 2, 3, 4, 17, 49)
corrupt = partial(masked, seed=5, mask_id=MASK, vocab_size=VOCABULARY, special_ids=SPECIALS)


def text(sequences, length, seed=0, special_share=0.2):
    """Random tokens, some of them special, in each sequence at least one that is not."""
    random = np.random.default_rng(seed)
    tokens = random.choice(np.setdiff1d(np.arange(VOCABULARY), SPECIALS), (sequences, length))
    special = random.random(tokens.shape) < special_share
    special[:, -1] = False
    return np.where(special, random.choice(SPECIALS, tokens.shape), tokens)


def at(sequences, epoch=0):
    return {"epochs": np.full(sequences, epoch), "indices": np.arange(sequences)}


@pytest.mark.parametrize("rate", [0.15, 0.01, 0.5, 1.0])
@pytest.mark.parametrize(("masked_share", "random_share"), [(0.8, 0.1), (0.0, 1.0), (0.3, 0.0)])
def test_equals_the_reference_token_by_token(rate, masked_share, random_share):
    tokens = text(40, 33, seed=int(rate * 100)).astype(np.uint16)
    options = {"rate": rate, "masked_share": masked_share, "random_share": random_share}
    batch = corrupt(tokens, **at(40, epoch=3), **options)
    same = {"seed": 5, "mask_id": MASK, "vocab_size": VOCABULARY, "special_ids": SPECIALS}
    expected = [masked_sequence(row.tolist(), epoch=3, index=i, **same, **options) for i, row in enumerate(tokens)]
    assert batch["input_ids"].tolist() == [inputs for inputs, _ in expected]
    assert batch["labels"].tolist() == [labels for _, labels in expected]
    other = masked_sequence(tokens[0].tolist(), epoch=4, index=0, **same, **options)
    assert (batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) != other  # control: another epoch


# By hand: round(0.15 * m), a half to the even number, at least 1.
@pytest.mark.parametrize(("maskable", "count"), [(1, 1), (3, 1), (9, 1), (10, 2), (20, 3), (30, 4), (50, 8), (128, 19)])
def test_the_count_is_exact(maskable, count):
    tokens = np.concatenate([np.full((25, maskable), 7), np.full((25, 6), MASK)], axis=1)
    labels = corrupt(tokens, **at(25))["labels"]
    assert ((labels != -100).sum(axis=1) == count).all()


def test_labels_are_the_originals_and_the_rest_is_untouched():
    tokens = text(200, 40)
    batch = corrupt(tokens, **at(200))
    chosen = batch["labels"] != -100
    assert (batch["labels"][chosen] == tokens[chosen]).all()
    assert (batch["input_ids"][~chosen] == tokens[~chosen]).all()
    assert (batch["input_ids"][chosen] != tokens[chosen]).mean() > 0.8  # otherwise nothing was corrupted
    assert batch["input_ids"].dtype == batch["labels"].dtype == np.int64


def test_special_tokens_are_never_chosen_nor_drawn():
    tokens = text(500, 40)
    batch = corrupt(tokens, **at(500), rate=1.0, masked_share=0.5, random_share=0.5)
    special = np.isin(tokens, SPECIALS)
    assert special.any()
    assert ((batch["labels"] == -100) == special).all()
    drawn = batch["input_ids"][~special & (batch["input_ids"] != MASK)]
    assert len(drawn) > 1000
    assert not np.isin(drawn, SPECIALS).any()
    free = masked(tokens, **at(500), seed=5, mask_id=MASK, vocab_size=VOCABULARY, rate=1.0)
    assert (free["labels"][special & (tokens != MASK)] != -100).all()  # control: only what is named is special


def test_shares_places_and_random_tokens_are_as_stated():
    tokens = np.full((4000, 64), 7)
    batch = corrupt(tokens, **at(4000))
    chosen = batch["labels"] != -100
    inputs, total = batch["input_ids"][chosen], int(chosen.sum())
    assert total == 4000 * 10
    kept = 0.1 + 0.1 / (VOCABULARY - len(SPECIALS))  # a random token may be the one that stood there
    assert binomtest(int((inputs == MASK).sum()), total, 0.8).pvalue > ALARM
    assert binomtest(int((inputs == MASK).sum()), total, 0.78).pvalue < ALARM  # control
    assert binomtest(int((inputs == 7).sum()), total, kept).pvalue > ALARM
    assert chisquare(chosen.sum(axis=0)).pvalue > ALARM
    drawn = inputs[(inputs != MASK) & (inputs != 7)]
    counts = np.bincount(drawn, minlength=VOCABULARY)[np.setdiff1d(np.arange(VOCABULARY), [*SPECIALS, 7])]
    assert counts.sum() == len(drawn) > 3000
    assert chisquare(counts).pvalue > ALARM
    assert chisquare(counts + 60 * (np.arange(len(counts)) < 8)).pvalue < ALARM  # control


def test_a_sequence_is_corrupted_alike_in_any_batch():
    tokens = text(64, 32)
    whole = corrupt(tokens, **at(64, epoch=2))
    for rows in ([5], [63, 5, 0], list(range(64))[::-1], [5, 5]):
        part = corrupt(tokens[rows], epochs=np.full(len(rows), 2), indices=np.array(rows))
        for name, array in part.items():
            assert (array == whole[name][rows]).all()


@pytest.mark.slow
def test_a_sequence_is_corrupted_alike_in_another_process():
    tokens = text(8, 32)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(corrupt, tokens, **at(8)).result()
    here = corrupt(tokens, **at(8))
    assert all((here[name] == there[name]).all() for name in here)


@pytest.mark.parametrize("change", [{"seed": 6}, {"epochs": np.full(8, 1)}, {"indices": np.arange(8) + 8}])
def test_another_seed_epoch_or_index_gives_another_corruption(change):
    tokens = text(8, 64)
    one, other = corrupt(tokens, **at(8)), corrupt(tokens, **{**at(8), **change})
    assert all((one["labels"][i] != other["labels"][i]).any() for i in range(8))


TOKENS = np.full((2, 8), 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"masked_share": 0.8, "random_share": 0.3}, "together at most 1"),
        ({"masked_share": -0.1}, "at least 0"),
        ({"mask_id": 50}, "0 to 49"),
        ({"special_ids": (-1,)}, "run from -1"),
        ({"special_ids": range(50)}, "all 50 ids"),
        ({"tokens": np.full((2, 8), 50)}, "from 50 to 50"),
        ({"tokens": np.full((2, 8), -1)}, "from -1"),
        ({"tokens": np.stack([np.full(8, 7), np.full(8, 17)])}, "sequence 1 holds special tokens only"),
        ({"tokens": TOKENS[0]}, "shape"),
        ({"epochs": np.zeros(3, int)}, "one number for every sequence"),
        ({"indices": np.zeros((2, 1), int)}, "one number for every sequence"),
    ],
)
def test_what_cannot_be_masked_is_refused(change, message):
    arguments = {"tokens": TOKENS, **at(2)}
    assert corrupt(**arguments)["labels"].shape == (2, 8)
    with pytest.raises(RaptrError, match=message):
        corrupt(**{**arguments, **change})
