"""Batches are the same from any number of workers, started in any way."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from raptr.data import Collator, Sequences, TrainingData, mix
from raptr.objectives import causal, masked

MASKED = partial(masked, seed=0, mask_id=2, vocab_size=300, special_ids=(0, 1, 2))


@pytest.fixture
def sequences(tmp_path):
    (np.arange(1000) % 290 + 3).astype(np.uint16).tofile(tmp_path / "tokens.bin")
    return Sequences(np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r"), 20)


def batches(sequences, objective, workers, context=None, size=8, seed=0):
    data = TrainingData(mix({"text": sequences}), seed=seed, samples=120)  # 50 sequences: more than two epochs
    collator = Collator(objective)
    loader = DataLoader(
        data, size, collate_fn=collator, num_workers=workers, multiprocessing_context=context, shuffle=False
    )
    return list(loader)


def equal(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def test_a_batch_is_tensors_of_the_objective(sequences):
    batch = batches(sequences, causal, 0)[0]
    assert set(batch) == {"input_ids", "labels"}
    assert all(array.dtype == torch.int64 and array.shape == (8, 20) for array in batch.values())
    assert torch.equal(batch["input_ids"], batch["labels"])
    first = TrainingData(mix({"text": sequences}), seed=0, samples=120)[0]["tokens"]
    assert batch["labels"][0].tolist() == first.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_make_the_same_batches(sequences, context):
    alone = batches(sequences, MASKED, 0)
    assert equal(alone, batches(sequences, MASKED, 2, context))
    assert not equal(alone, batches(sequences, MASKED, 0, seed=1))  # control


def test_the_batch_size_does_not_change_the_stream(sequences):
    def stream(size):
        return torch.cat([batch["input_ids"] for batch in batches(sequences, MASKED, 0, size=size)])

    assert torch.equal(stream(8), stream(15))


def test_epochs_are_masked_anew(sequences):
    data = TrainingData(mix({"text": sequences}), seed=0, samples=100)
    items = [data[i] for i in range(100)]
    labels = {(item["epoch"], item["index"]): Collator(MASKED)([item])["labels"] for item in items}
    same = sum(torch.equal(labels[0, index], labels[1, index]) for index in range(50))
    assert same <= 3  # 3 of 20 places: 1 in 1140 by chance for each of 50 sequences


def test_sources_are_masked_differently(sequences):
    data = TrainingData(mix({"one": sequences, "other": sequences}), seed=0, samples=100)
    labels = {item["index"]: Collator(MASKED)([item])["labels"] for item in (data[i] for i in range(100))}
    same = sum(torch.equal(labels[index], labels[2**40 + index]) for index in range(50))
    assert same <= 3  # 3 of 20 places: 1 in 1140 by chance for each of 50 sequences


def test_a_collator_can_be_pickled(sequences):
    items = [TrainingData(mix({"text": sequences}), seed=0, samples=4)[i] for i in range(4)]
    collator = Collator(MASKED)
    assert equal([collator(items)], [pickle.loads(pickle.dumps(collator))(items)])
