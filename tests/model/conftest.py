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

QUICK = frozenset({"llama", "bert", "t5", "mlp"})
"""Families whose tests are quick ones: a decoder, an encoder, two stacks, a model of one's own."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of all other families as slow: one by one they are not, but there are hundreds."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        family = None if callspec is None else callspec.params.get("family")
        if isinstance(family, Family) and family.name not in QUICK:
            item.add_marker(pytest.mark.slow)


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
