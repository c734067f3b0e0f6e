"""The optimizer policy follows what really ran, not only what was activated."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import raptr
from reference.handwritten import Net, loss_of, some_tokens
from reference.script import Script

PATH = raptr.Subnetwork.of((0, 3))


def moved_by(use: Callable[[nn.Module, raptr.AttachedModel], None]) -> list[bool]:
    """Which layers move in one step of AdamW after layers 0 and 3 were activated and the model was used."""
    torch.manual_seed(0)
    model = Net(4, "attention").train()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    net.prepare(optimizer)
    net.activate(Script([PATH]), 0)
    before = [[p.clone() for p in block.parameters()] for block in model.layers]
    use(model, net)
    optimizer.step()
    return [
        any(not torch.equal(p, old) for p, old in zip(block.parameters(), olds, strict=True))
        for block, olds in zip(model.layers, before, strict=True)
    ]


def test_the_path_moves_when_the_path_ran() -> None:
    assert moved_by(lambda model, net: loss_of(model, some_tokens()).backward()) == [True, False, False, True]


def test_gradients_of_a_full_backward_in_eval_mode_are_used_and_told_of() -> None:
    with pytest.warns(UserWarning, match=r"in evaluation mode, where all layers run.*call model\.train\(\)"):
        assert moved_by(lambda model, net: loss_of(model.eval(), some_tokens()).backward()) == [True] * 4


@pytest.mark.filterwarnings("error")
def test_evaluation_with_gradients_after_a_step_is_not_told_of() -> None:
    torch.manual_seed(0)
    model = Net(4, "attention").train()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer)
    for step in range(2):
        net.activate(Script([PATH, PATH]), step)
        loss_of(model.train(), some_tokens()).backward()
        optimizer.step()
        optimizer.zero_grad()
        loss_of(model.eval(), some_tokens())


def test_evaluation_mode_is_told_of_once() -> None:
    model = Net(4, "attention").eval()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(3):
            net.activate(Script([PATH] * 3), step)
            loss_of(model, some_tokens()).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(told) == 1
    assert told[0].filename == __file__


def test_gradients_of_a_forced_subnetwork_are_used() -> None:
    def use(model: nn.Module, net: raptr.AttachedModel) -> None:
        with net.using(raptr.Subnetwork.of((0, 1, 3))):
            loss_of(model, some_tokens()).backward()

    assert moved_by(use) == [True, True, False, True]


def test_validation_between_micro_batches_trains_nothing() -> None:
    def use(model: nn.Module, net: raptr.AttachedModel) -> None:
        with torch.no_grad():
            loss_of(model.eval(), some_tokens())
        loss_of(model.train(), some_tokens()).backward()

    assert moved_by(use) == [True, False, False, True]


def test_step_that_a_scaler_left_out_does_not_count_for_the_next() -> None:
    torch.manual_seed(0)
    model = Net(4, "attention").train()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    net.prepare(optimizer)
    plan = Script([raptr.Subnetwork.of((0, 1)), raptr.Subnetwork.of((0, 2))])
    net.activate(plan, 0)
    loss_of(model, some_tokens()).backward()
    optimizer.zero_grad(set_to_none=False)  # no optimizer.step(): the scaler saw an overflow
    net.activate(plan, 1)
    loss_of(model, some_tokens()).backward()
    before = [p.clone() for p in model.layers[1].parameters()]
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model.layers[1].parameters(), before, strict=True))


def test_another_step_before_the_gradients_are_used_is_refused() -> None:
    """Its layers would be taken for skipped, and their gradients away."""
    net, model, optimizer = prepared()
    plan = Script([PATH, PATH])
    net.activate(plan, 0)
    loss_of(model, some_tokens()).backward()
    with pytest.raises(raptr.RaptrError, match=r"step 1 .* gradients of step 0 .* net\.activate\(plan, step, micro\)"):
        net.activate(plan, 1)
    net.activate(plan, 0, 1)  # a micro-step
    optimizer.step()
    net.activate(plan, 1)  # zero_grad may come later


def prepared() -> tuple[raptr.AttachedModel, nn.Module, torch.optim.Optimizer]:
    """An attached model with an optimizer."""
    model = Net(4, "attention").train()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer)
    return net, model, optimizer
