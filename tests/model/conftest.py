"""One thread, quiet libraries, and one attached model of each family for the tests that only use it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from reference.family import Family
from reference.script import on


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


@cache
def _attached(family: Family) -> tuple[nn.Module, Any]:
    model = family.build()
    return model, raptr.attach(model, **family.arguments(model))


@pytest.fixture
def attached(family: Family) -> tuple[nn.Module, Any]:
    """The family's attached model and its handle: in training, whole, without gradients.

    Attaching takes longer than anything else here, so it is one model for all tests that neither detach it
    nor change its weights.
    """
    model, net = _attached(family)
    model.train().zero_grad()
    net.activate(on(*family.full), 0)
    return model, net
