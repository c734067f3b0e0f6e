"""Sequences and their order: pure, each once an epoch, the same for any length of the run."""

import pickle

import numpy as np
import pytest

from raptr.data import Sequences, TrainingData, ValidationData, mix, order
from raptr.errors import RaptrError

TOKENS = np.arange(103, dtype=np.uint16)


def test_rows_are_the_text_cut_into_pieces():
    sequences = Sequences(TOKENS, 10)
    assert len(sequences) == 10  # 3 tokens remain
    rows = sequences.rows(range(10))
    assert rows.dtype == np.int64
    assert rows.ravel().tolist() == list(range(100))
    assert sequences.rows([7, 2]).tolist() == [list(range(70, 80)), list(range(20, 30))]


def test_too_little_text_is_refused():
    assert len(Sequences(TOKENS, 103)) == 1
    with pytest.raises(RaptrError, match="the text has 103 tokens and one sequence needs 104"):
        Sequences(TOKENS, 104)
    with pytest.raises(RaptrError, match="at least 1"):
        Sequences(TOKENS, 0)


def test_an_order_is_a_permutation_and_a_pure_function():
    first = order(1000, seed=3, epoch=7)
    assert sorted(first) == list(range(1000))
    assert (order(1000, seed=3, epoch=7) == first).all()
    for other in (order(1000, seed=4, epoch=7), order(1000, seed=3, epoch=8), np.arange(1000)):
        assert (other == first).mean() < 0.02  # 1 of 1000 expected; more than 20 has a probability below 1e-18


def test_an_order_is_that_of_the_raw_philox_words():
    words = np.random.Philox(key=np.array([3, 2], np.uint64), counter=np.array([0, 7, 0, 0], np.uint64)).random_raw(50)
    assert order(50, seed=3, epoch=7).tolist() == sorted(range(50), key=lambda place: words[place])


def test_every_epoch_sees_every_sequence_once():
    data = TrainingData(mix({"text": Sequences(TOKENS, 10)}), seed=0, samples=35)
    items = [data[i] for i in range(35)]
    for epoch in range(3):
        part = items[10 * epoch : 10 * epoch + 10]
        assert {item["epoch"] for item in part} == {epoch}
        assert sorted(item["index"] for item in part) == list(range(10))
    assert [item["epoch"] for item in items[30:]] == [3] * 5
    assert all((item["tokens"] == np.arange(10) + 10 * item["index"]).all() for item in items)
    orders = {tuple(item["index"] for item in items[start : start + 10]) for start in (0, 10, 20)}
    assert len(orders) == 3


def test_the_order_does_not_depend_on_the_length_of_the_run_or_where_it_is_entered():
    sequences = Sequences(TOKENS, 10)
    alone = mix({"text": sequences})
    short, long = (TrainingData(mix({"text": sequences}), seed=1, samples=samples) for samples in (23, 400))
    places = [(long[i]["epoch"], long[i]["index"]) for i in range(400)]
    assert [(short[i]["epoch"], short[i]["index"]) for i in range(23)] == places[:23]
    backwards = [tuple(alone.locate(i, seed=1))[1:] for i in reversed(range(400))]
    assert backwards[::-1] == places
    assert [tuple(alone.locate(i, seed=2))[1:] for i in range(400)] != places  # control


def test_a_batch_may_span_epochs():
    data = TrainingData(mix({"text": Sequences(TOKENS, 10)}), seed=1, samples=40)
    together = data.__getitems__([8, 9, 10, 11, 39])
    for item, alone in zip(together, (data[i] for i in (8, 9, 10, 11, 39)), strict=True):
        assert (item["tokens"] == alone["tokens"]).all()
        assert (item["epoch"], item["index"]) == (alone["epoch"], alone["index"])


def test_validation_is_spread_evenly():
    sequences = Sequences(np.arange(1000), 10)
    data = ValidationData(sequences, 7)
    assert [data[i]["index"] for i in range(len(data))] == [0, 14, 28, 42, 57, 71, 85]
    assert {data[i]["epoch"] for i in range(7)} == {0}
    assert [item["index"] for item in ValidationData(sequences)] == list(range(100))


def test_what_cannot_be_sampled_is_refused():
    sequences = Sequences(TOKENS, 10)
    for count in (0, 11):
        with pytest.raises(RaptrError, match="the validation text has 10 of 10 tokens"):
            ValidationData(sequences, count)
    with pytest.raises(RaptrError, match="the seed is -1"):
        TrainingData(mix({"text": sequences}), seed=-1, samples=3)
    with pytest.raises(RaptrError, match="at least 1"):
        TrainingData(mix({"text": sequences}), seed=0, samples=0)
    for sample in (-1, 3):
        with pytest.raises(IndexError):
            TrainingData(mix({"text": sequences}), seed=0, samples=3)[sample]


def test_a_memory_map_is_sent_to_a_worker_by_name(tmp_path):
    path = tmp_path / "tokens.bin"
    np.arange(100_000, dtype=np.uint16).tofile(path)
    mapped = np.memmap(path, dtype=np.uint16, mode="r")
    sent = pickle.dumps(TrainingData(mix({"text": Sequences(mapped, 10)}), seed=0, samples=5))
    assert len(sent) < 2000
    assert (
        pickle.loads(sent)[4]["tokens"]
        == TrainingData(mix({"text": Sequences(mapped, 10)}), seed=0, samples=5)[4]["tokens"]
    ).all()
    for tokens in (mapped[500:], np.arange(50)):  # a part of a map, and no map, are sent as they are
        again = pickle.loads(pickle.dumps(Sequences(tokens, 10)))
        assert (again.rows([0]) == tokens[:10]).all()
