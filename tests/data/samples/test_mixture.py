"""Mixtures: shares over any prefix, each source in its own epochs, and all of it a pure function of (seed, i)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raptr.data import Sequences, TrainingData, ValidationData, mix, order
from raptr.data.samples.mixture import BLOCK, Place
from raptr.errors import RaptrError


def sequences(n, first=0):
    """n sequences of 4 tokens that all say which one it is."""
    return Sequences(np.repeat(np.arange(first, first + n, dtype=np.uint16), 4), 4)


SOURCES = {"a": sequences(50), "b": sequences(30, 100), "c": sequences(7, 200)}
WEIGHTS = {"a": 0.7, "b": 0.2, "c": 0.1}


def places(mixture, count, seed=0):
    """The first samples: all at once, as a run asks for them, and some of them one by one as well."""
    found = [Place(*map(int, row)) for row in zip(*mixture.places(range(count), seed), strict=True)]
    assert found[::97] == [mixture.locate(i, seed) for i in range(0, count, 97)]
    return found


def worst(sources, shares):
    """How far each source's count ever is from its share, over all prefixes."""
    chosen = np.array(sources)[:, None] == np.arange(len(shares))
    return np.abs(chosen.cumsum(axis=0) - np.arange(1, len(sources) + 1)[:, None] * np.array(shares)).max(axis=0)


@given(weights=st.lists(st.integers(1, 50), min_size=2, max_size=6), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=25, deadline=None)
def test_shares_are_met_over_any_prefix(weights, seed):
    shares = np.array(weights) / sum(weights)
    names = [str(k) for k in range(len(weights))]
    mixture = mix({name: sequences(9) for name in names}, dict(zip(names, shares, strict=True)))
    bound = 1 + (len(weights) - 2) * shares + 5000 / BLOCK
    assert (worst([place.source for place in places(mixture, 5000, seed)], shares) <= bound).all()
    drawn = np.random.default_rng(seed).choice(len(weights), 5000, p=shares)
    assert worst(drawn, shares).max() > bound.max()  # control: independent draws do not keep to it


def test_sources_are_interleaved_at_random_and_not_in_turn():
    mixture = mix({"a": SOURCES["a"], "b": SOURCES["b"]}, {"a": 0.5, "b": 0.5})
    pairs = [place.source for place in places(mixture, 4000)]
    repeats = sum(one == other for one, other in itertools.pairwise(pairs))
    assert 400 < repeats < 2000
    assert pairs != [place.source for place in places(mixture, 4000, seed=1)]


def test_a_sample_depends_on_the_seed_and_its_number_only():
    mixture = mix(SOURCES, WEIGHTS)
    forward = places(mixture, 3000, seed=5)
    again = mix(SOURCES, WEIGHTS)
    assert [again.locate(i, 5) for i in reversed(range(3000))][::-1] == forward
    short, long = (TrainingData(mixture, seed=5, samples=samples) for samples in (10, 10**9))
    for i in range(10):
        assert short[i]["index"] == long[i]["index"]
    far = 3 * BLOCK + 17
    assert mixture.locate(far, 5) == mix(SOURCES, WEIGHTS).locate(far, 5)
    assert places(mixture, 3000, seed=6) != forward  # control


@pytest.mark.slow
@pytest.mark.parametrize("weights", [WEIGHTS, None, {"a": 0.0, "b": 0.999, "c": 0.001}])
def test_each_source_runs_through_epochs_of_its_own(weights):
    mixture = mix(SOURCES, weights)
    found = places(mixture, BLOCK + 20_000)
    for source, (n, share) in enumerate(zip((50, 30, 7), mixture.shares, strict=True)):
        own = [(place.epoch, place.sequence) for place in found if place.source == source]
        expected = [(epoch, int(k)) for epoch in range(len(own) // n + 1) for k in order(n, 0, epoch, source)]
        assert own == expected[: len(own)]
        assert len(own) == pytest.approx(share * len(found), abs=3)
        assert mixture.epochs(len(found))[source] == pytest.approx(share * len(found) / n)


def test_without_weights_every_sequence_is_seen_once_an_epoch():
    mixture = mix(SOURCES)
    assert mixture.quotas == (50, 30, 7)
    for epoch in range(3):
        found = [mixture.locate(i, 0) for i in range(87 * epoch, 87 * epoch + 87)]
        assert {place.epoch for place in found} == {epoch}
        assert len({(place.source, place.sequence) for place in found}) == 87


def test_samples_say_which_sequence_they_are_and_no_two_share_a_number():
    data = TrainingData(mix(SOURCES, WEIGHTS), seed=0, samples=2000)
    items = [data[i] for i in range(2000)]
    places_of = {}
    for item in items:
        token = int(item["tokens"][0])
        source = token // 100
        assert item["index"] == source * 2**40 + token - 100 * source
        assert places_of.setdefault((item["epoch"], item["index"]), token) == token
    assert len(places_of) == 2000
    batch = data.__getitems__([5, 1999, 6])
    assert [item["index"] for item in batch] == [items[i]["index"] for i in (5, 1999, 6)]


def test_one_source_alone_is_in_the_order_of_its_epochs():
    one, mixed = mix({"a": SOURCES["a"]}), mix({"a": SOURCES["a"]}, {"a": 1.0})
    assert [place.sequence for place in places(one, 50)] == order(50, 0, 0).tolist()
    assert places(one, 5 * 50) == places(mixed, 5 * 50)


def test_weights_are_rounded_and_none_is_lost():
    assert mix(SOURCES, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}).quotas == (21846, 21845, 21845)
    assert mix(SOURCES, {"a": 1 - 1e-9, "b": 1e-9, "c": 0.0}).quotas[1:] == (1, 0)
    assert len(mix(SOURCES, {"a": 0.5, "b": 0.5, "c": 0.0})) == 80


def test_orders_of_sources_of_one_length_differ():
    assert order(100, 0, 0, 0).tolist() != order(100, 0, 0, 1).tolist()


@pytest.mark.parametrize("n", [20, 21])
def test_what_tunes_and_what_is_reported_share_nothing_and_leave_nothing_out(n):
    text = sequences(n)
    tuning, report, everything = (
        {item["index"] for item in ValidationData(text, part=part, source=2)} for part in ("tuning", "report", "all")
    )
    assert tuning | report == everything == {2 * 2**40 + i for i in range(n)}
    assert not tuning & report
    assert max(tuning) < min(report)
    few = ValidationData(text, part="report").at_most(4)
    assert [item["index"] for item in few] == [n // 2 + i * (n - n // 2) // 4 for i in range(4)]
    assert len(ValidationData(text, part="tuning").at_most(10**6)) == n // 2


def test_a_part_that_is_empty_is_refused():
    assert len(ValidationData(sequences(1), part="report")) == 1
    with pytest.raises(RaptrError, match="in its part 'tuning'"):
        ValidationData(sequences(1), part="tuning")
