"""With some of its heads and neurons, a model computes what a model computes that has no others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from reference.narrow import Choice, difference, masked, narrow, subnetwork
from reference.script import Script
from reference.wide import CASES, Sized, every_case, one_choice

pytestmark = pytest.mark.slow


def compare(
    case: Sized,
    choice_of: Callable[[nn.Module], Choice],
    reference: Callable[[nn.Module, Choice], nn.Module],
    **options: Any,
) -> None:
    """Loss and every gradient of the narrow subnetwork are those of the reference."""
    full = case.build(**options)
    choice = choice_of(full)
    other = reference(full, choice)
    net = raptr.attach(full)
    net.activate(Script([subnetwork(choice)]), 0)
    losses = [case.row.loss(model) for model in (full, other)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses, rtol=1e-7, atol=0)  # T5's loss is in float32
    assert difference(full, other, choice) == []


@every_case
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_it_is_the_smaller_model(name: str, scaled: bool) -> None:
    case = CASES[name]
    compare(case, lambda m: one_choice(case, m, alike=name.startswith("t5"), scaled=scaled), narrow)


@every_case
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_it_is_the_masked_model(name: str, scaled: bool) -> None:
    """The layers of T5's stacks too, each with heads of its own."""
    case = CASES[name]
    compare(case, lambda m: one_choice(case, m, scaled=scaled), masked)


@every_case
def test_plain_attention_too(name: str) -> None:
    case = CASES[name]
    compare(case, lambda m: one_choice(case, m), masked, attn_implementation="eager")


@every_case
def test_another_choice_is_noticed(name: str) -> None:
    """Negative control of the three tests above."""
    case = CASES[name]
    full = case.build()
    choice, other = one_choice(case, full), one_choice(case, full, scaled=True)
    for wrong in (other, {stack: chosen[::-1] for stack, chosen in choice.items()}):
        reference = masked(full, wrong)
        twin = copy.deepcopy(full)
        net = raptr.attach(twin)
        net.activate(Script([subnetwork(choice)]), 0)
        for model in (twin, reference):
            case.row.loss(model).backward()
        assert len(difference(twin, reference, choice)) > 10
