"""Fixtures that several rooms share."""

import gc
import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the network; read when transformers is imported
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What was imported stays; every run of the Trainer collects garbage, which need not look at all of it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens are made once, for all workers: the store is written whole or not at all."""
    return tmp_path_factory.getbasetemp().parent / "raptr-token-cache"
