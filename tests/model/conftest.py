"""One thread and quiet libraries: the models are tiny and the machine is shared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Small models run faster on one thread, and in a fixed order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """No test depends on the draws of another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
