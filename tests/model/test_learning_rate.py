"""The learning rate's factor holds for the optimizer's step, and for nobody else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from raptr import RaptrError
from raptr.plan import Subnetwork
from reference.families import MLP
from reference.script import Script

FACTORS = (1.0, 0.25, 0.5, 1.0, 3.0)


class WithFactors(Script):
    """A plan that also says what the learning rate is multiplied with."""

    def lr_factor(self, step: int) -> float:
        return FACTORS[step % len(FACTORS)]


PLAN = WithFactors([Subnetwork.of((0, 1, 2, 3, 4, 5))])
MAKE = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "adamw-tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-2, dtype=torch.float64), foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9),
    "groups": lambda p: torch.optim.SGD([{"params": [q], "lr": 0.1 / (1 + i % 3)} for i, q in enumerate(p)], lr=1.0),
}


def attached(name: str, rates: Any = None) -> tuple[Any, nn.Module, Any, Any]:
    """A model, its handle, and a prepared optimizer with a scheduler."""
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = MAKE[name](model.parameters())
    net.prepare(optimizer)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=8)  # each rate from the one before
    return net, model, optimizer, scheduler


@pytest.mark.parametrize("name", MAKE)
def test_each_step_has_its_rate(name: str) -> None:
    net, model, optimizer, scheduler = attached(name)
    plain = MLP.build()
    ordinary = MAKE[name](plain.parameters())
    expected = torch.optim.lr_scheduler.LinearLR(MAKE[name](MLP.build().parameters()), 1.0, 0.1, total_iters=8)
    for step in range(7):
        net.activate(PLAN, step)
        assert net.lr_factor == FACTORS[step % len(FACTORS)]
        MLP.loss(model, seed=step).backward()
        optimizer.step()
        assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx(
            [float(rate) for rate in expected.get_last_lr()]
        )
        for group, rate in zip(ordinary.param_groups, expected.get_last_lr(), strict=True):
            group["lr"] = rate * FACTORS[step % len(FACTORS)]
        MLP.loss(plain, seed=step).backward()
        ordinary.step()
        for each in (optimizer, ordinary):
            each.zero_grad()
        scheduler.step()
        expected.optimizer.step()
        expected.step()
        for (n, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14, msg=n)
    assert [float(rate) for rate in scheduler.get_last_lr()] == pytest.approx(
        [float(rate) for rate in expected.get_last_lr()]
    )


def test_without_the_factor_it_is_another_run() -> None:
    """Negative control."""
    runs = []
    for plan in (PLAN, Script(PLAN.paths)):
        net, model, optimizer, _ = attached("sgd")
        for step in range(2):
            net.activate(plan, step)
            MLP.loss(model, seed=step).backward()
            optimizer.step()
            optimizer.zero_grad()
        runs.append(model.head.weight.detach().clone())
    assert not torch.allclose(*runs)


def test_a_factor_of_one_does_nothing() -> None:
    net, model, optimizer, _ = attached("adamw-tensor")
    rate = optimizer.param_groups[0]["lr"]
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    for step in (0, 1):
        net.activate(PLAN, step)
        MLP.loss(model).backward()
        optimizer.step()
    assert seen[0] is rate
    assert seen[1] == pytest.approx(0.25 * 1e-2)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate == pytest.approx(1e-2)  # not changed in place either


def test_a_plan_with_a_factor_needs_a_prepared_optimizer() -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    net.activate(PLAN, 0)
    with pytest.raises(RaptrError, match=r"call net.prepare\(optimizer\)"):
        net.activate(PLAN, 1)
    assert net.lr_factor == 1.0
    net.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    net.activate(PLAN, 1)
    assert net.lr_factor == 0.25


def test_an_optimizer_prepared_later_has_the_factor_too() -> None:
    net, model, optimizer, _ = attached("sgd")
    net.activate(PLAN, 1)
    other = torch.optim.SGD(model.layers[0].parameters(), lr=0.5)
    net.prepare(other)
    seen = []
    other.register_step_pre_hook(lambda *_: seen.append(other.param_groups[0]["lr"]))
    other.step()
    assert seen == [0.125]
    assert optimizer


@pytest.mark.parametrize("after", ["activate", "step", "detach"])
def test_a_step_that_raises_leaves_no_scaled_rate(after: str) -> None:
    net, model, optimizer, _ = attached("sgd")
    net.activate(PLAN, 1)

    def fails() -> float:
        raise KeyError("no memory")

    with pytest.raises(KeyError):
        optimizer.step(fails)
    if after == "activate":
        net.activate(PLAN, 2)
    elif after == "step":
        MLP.loss(model).backward()
        optimizer.step()
    else:
        net.detach()
    assert optimizer.param_groups[0]["lr"] == 1e-1


def test_a_rate_that_was_set_after_a_step_that_raised_is_kept() -> None:
    net, _, optimizer, _ = attached("sgd")
    net.activate(PLAN, 1)

    def fails() -> float:
        raise KeyError

    with pytest.raises(KeyError):
        optimizer.step(fails)
    optimizer.param_groups[0]["lr"] = 0.7
    net.activate(PLAN, 2)
    assert optimizer.param_groups[0]["lr"] == 0.7


def test_the_saved_optimizer_has_its_own_rate() -> None:
    net, model, optimizer, _ = attached("adamw")
    net.activate(PLAN, 1)
    MLP.loss(model).backward()
    optimizer.step()
    assert copy.deepcopy(optimizer.state_dict())["param_groups"][0]["lr"] == 1e-2
