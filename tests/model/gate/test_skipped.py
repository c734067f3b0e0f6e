"""What skipping does to a layer, said in numbers for AdamW, momentum and Muon; and micro-steps with paths of their own.

With `freeze` a skipped layer and its state stay bit for bit. With `zero` it moves by its momentum and its weight decay,
as the formulas of each optimizer say: they are written out here.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import raptr
from raptr.plan import Subnetwork
from reference.families import MLP
from reference.script import Script
from reference.shallow import expected_gradients

LR, DECAY, MOMENTUM, BETAS, EPS = 1e-2, 0.1, 0.9, (0.9, 0.999), 1e-8
SKIPPED = 2
WHOLE, WITHOUT = Subnetwork.of((0, 1, 2, 3, 4, 5)), Subnetwork.of((0, 1, 5))


def optimizers_of(name: str, model: nn.Module) -> list[Optimizer]:
    if name == "adamw":
        return [torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY, betas=BETAS, eps=EPS)]
    if name == "sgd-momentum":
        return [torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)]
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("layers")]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and n.startswith("layers"))]
    return [
        torch.optim.Muon(matrices, lr=LR, weight_decay=DECAY, momentum=0.95, nesterov=True),
        torch.optim.AdamW(rest, lr=LR, weight_decay=DECAY, betas=BETAS, eps=EPS),
    ]


def adamw(p: Tensor, state: dict[str, Any]) -> Tensor:
    """One step with a zero gradient."""
    step = int(state["step"]) + 1
    first, second = BETAS[0] * state["exp_avg"], BETAS[1] * state["exp_avg_sq"]
    mean, square = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
    return p * (1 - LR * DECAY) - LR * mean / (square.sqrt() + EPS)


def sgd(p: Tensor, state: dict[str, Any]) -> Tensor:
    """The decay is a part of the gradient: the momentum takes it up."""
    return p - LR * (MOMENTUM * state["momentum_buffer"] + DECAY * p)


def muon(p: Tensor, state: dict[str, Any]) -> Tensor:
    """The momentum, however small it has become, is made orthogonal again: it moves by a whole step's length."""
    update = 0.95 * (0.95 * state["momentum_buffer"])
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.bfloat16().T if p.shape[0] > p.shape[1] else update.bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    x = x.T if p.shape[0] > p.shape[1] else x
    rate = LR * math.sqrt(max(1, p.shape[0] / p.shape[1]))
    return p * (1 - LR * DECAY) - rate * x.to(p.dtype)


FORMULAS = {"adamw": adamw, "sgd-momentum": sgd, "muon": muon}


@pytest.mark.parametrize("inactive", ["freeze", "zero"])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_effect_of_being_skipped(name: str, inactive: str) -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    optimizers = optimizers_of(name, model)
    for optimizer in optimizers:
        net.prepare(optimizer, inactive=inactive)

    def step(number: int, subnetwork: Subnetwork) -> None:
        net.activate(Script([subnetwork]), number)
        MLP.loss(model, seed=number).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    step(0, WHOLE)
    step(1, WHOLE)
    layer = model.layers[SKIPPED]
    values = {n: p.detach().clone() for n, p in layer.named_parameters()}
    states = {
        n: copy.deepcopy(next(o.state[p] for o in optimizers if p in o.state)) for n, p in layer.named_parameters()
    }
    step(2, WITHOUT)
    for n, p in layer.named_parameters():
        state = next(o.state[p] for o in optimizers if p in o.state)
        if inactive == "freeze":
            assert torch.equal(p, values[n])
            assert all(torch.equal(v, states[n][k]) for k, v in state.items() if torch.is_tensor(v))
            continue
        formula = adamw if name == "muon" and p.ndim != 2 else FORMULAS[name]
        torch.testing.assert_close(p.detach(), formula(values[n], states[n]), rtol=1e-6, atol=1e-9, msg=n)
        assert (p - values[n]).abs().max() > 1e-4
    assert not torch.equal(model.layers[0].up.weight, values["up.weight"])


def test_muon_moves_a_skipped_layer_as_far_as_a_trained_one() -> None:
    """Under `zero`: with the others the way gets shorter from step to step."""
    moves: dict[str, list[float]] = {}
    for name in FORMULAS:
        model = MLP.build()
        net = raptr.attach(model, blocks=model.layers)
        optimizers = optimizers_of(name, model)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.0
            net.prepare(optimizer, inactive="zero")
        for number in range(24):
            before = model.layers[SKIPPED].up.weight.detach().clone()
            net.activate(Script([WHOLE if number < 2 else WITHOUT]), number)
            MLP.loss(model, seed=number).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            moves.setdefault(name, []).append((model.layers[SKIPPED].up.weight - before).norm().item())
    assert moves["adamw"][-1] < 0.2 * moves["adamw"][2]
    assert moves["sgd-momentum"][-1] < 0.2 * moves["sgd-momentum"][2]
    assert moves["muon"][-1] == pytest.approx(moves["muon"][2], rel=0.1)


class FillsZeros:
    """An engine that gives every parameter a gradient, as DeepSpeed does."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad


@pytest.mark.parametrize("inactive", ["freeze", "zero"])
def test_an_engine_that_fills_in_zeros_is_told_of_once(inactive: str) -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    net.prepare(optimizer, inactive=inactive)
    engine = FillsZeros(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(5):
            net.activate(Script([WHOLE if number < 2 else WITHOUT]), number)
            before = model.layers[SKIPPED].up.weight.detach().clone()
            engine.backward(MLP.loss(model, seed=number))
            optimizer.step()
            optimizer.zero_grad()
            moved = not torch.equal(model.layers[SKIPPED].up.weight, before)
            assert moved == (number < 2 or inactive == "zero")
            assert len(caught) == (1 if number >= 2 and inactive == "freeze" else 0)
    if inactive == "freeze":
        assert "DeepSpeed" in str(caught[0].message)
        assert "removed" in str(caught[0].message)


def test_nothing_is_told_where_gradients_are_none() -> None:
    """Control."""
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    net.prepare(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(3):
            net.activate(Script([WITHOUT]), number)
            MLP.loss(model, seed=number).backward()
            optimizer.step()
            optimizer.zero_grad()


class ByMicro(Script):
    """Other paths in each micro-step, and in each step."""

    def subnetwork(self, step: int, micro: int = 0) -> Any:
        return Subnetwork.of(((0, step + 1), (0, 4), (0, 5))[micro])


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_layer_of_one_micro_step_keeps_its_gradient(name: str, set_to_none: bool) -> None:
    """It is trained with what that micro-step gave it; layers of no micro-step stay, with their state."""
    model, plain = MLP.build(), MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    optimizers, ordinary = optimizers_of(name, model), optimizers_of(name, plain)
    for optimizer in optimizers:
        net.prepare(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(3):
            totals: dict[str, Tensor | None] = {}
            for micro in range(3):
                path = net.activate(ByMicro([]), step, micro).layers[0]
                MLP.loss(model, seed=micro).backward()
                small = MLP.shallow(plain, path)
                MLP.loss(small, seed=micro).backward()
                for n, grad in expected_gradients(plain, small, {"layers": path}).items():
                    if grad is not None:
                        totals[n] = grad if totals.get(n) is None else totals[n] + grad
            for n, p in plain.named_parameters():
                p.grad = totals.get(n)
            for optimizer in (*optimizers, *ordinary):
                optimizer.step()
                optimizer.zero_grad(set_to_none=set_to_none)
            for (n, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
                assert torch.equal(p, q), f"step {step}: {n}"
    assert not torch.equal(model.layers[3].up.weight, MLP.build().layers[3].up.weight)  # it ran in one micro-step only
