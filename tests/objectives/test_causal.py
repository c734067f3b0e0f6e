"""Causal language modelling: labels are the inputs, in memory of their own."""

import numpy as np
import pytest

from raptr.errors import RaptrError
from raptr.objectives import causal


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_labels_are_the_inputs(dtype):
    tokens = np.array([[1, 2, 3], [65535, 0, 4]], dtype=dtype)
    batch = causal(tokens)
    assert set(batch) == {"input_ids", "labels"}
    for array in batch.values():
        assert array.dtype == np.int64
        assert array.tolist() == [[1, 2, 3], [65535, 0, 4]]


def test_nothing_is_shared_and_the_place_does_not_matter():
    tokens = np.arange(6).reshape(2, 3)
    batch = causal(tokens, epochs=np.array([3, 4]), indices=np.array([8, 1]))
    batch["input_ids"][0, 0] = 99
    assert batch["labels"][0, 0] == 0
    assert tokens[0, 0] == 0


@pytest.mark.parametrize("tokens", [np.arange(3), np.ones((2, 3)), np.ones((1, 2, 3), dtype=int)])
def test_what_is_not_a_batch_of_tokens_is_refused(tokens):
    with pytest.raises(RaptrError, match="shape"):
        causal(tokens)
