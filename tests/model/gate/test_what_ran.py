"""The optimizer policy follows what really ran, not only what was activated."""

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from raptr.plan import LayerPart, SequenceKey
from reference.families import ALL, Family
from reference.handwritten import Net, loss_of, some_tokens
from reference.script import Script

PATH = raptr.Subnetwork.of((0, 3))
EVALUATED = [family for family in ALL if family.name in ("llama", "bert", "gpt2", "t5", "attention-recorded")]


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


def told_of(use: Callable[[], object]) -> list[str]:
    """What is warned of while a model is used."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        use()
    return [str(each.message) for each in told if each.filename == __file__]


@pytest.mark.parametrize("family", EVALUATED, ids=lambda family: family.name)
def test_a_backward_in_evaluation_mode_is_told_of_without_an_optimizer(family: Family) -> None:
    """As of a model of from_pretrained: all layers get gradients. Once, and not in training mode."""
    model = family.build().eval()
    net = raptr.attach(model, **family.arguments(model))
    path = Script([raptr.Subnetwork.of(*family.path)])
    net.activate(path, 0)
    (told,) = told_of(lambda: [family.loss(model).backward() for _ in range(3)])
    assert "call model.train() before training" in told
    assert all(any(p.grad is not None for p in layer.parameters()) for layer in family.layers(model))
    other = family.build()
    net = raptr.attach(other, **family.arguments(other))
    net.activate(path, 0)
    assert told_of(lambda: family.loss(other).backward()) == []
    assert not all(any(p.grad is not None for p in layer.parameters()) for layer in family.layers(other))


SUBNETWORKS = {
    "path": raptr.Subnetwork.of((0, 3)),
    "no layer": raptr.Subnetwork.of(()),
    "scaled": raptr.Subnetwork(((0, 1, 2, 3),), ((LayerPart(scale=0.5),) * 4,)),
    "by sequence": raptr.Subnetwork(
        ((0, 1, 2, 3),), ((LayerPart(share=0.5, sequences=SequenceKey(seed=0, step=0)),) * 4,)
    ),
}
USES: dict[str, tuple[Callable[[Net, Any], object], bool]] = {  # what is done with a model in evaluation mode
    "backward": (lambda model, net: loss_of(model, some_tokens()).backward(), True),
    "no_grad": (lambda model, net: torch.no_grad()(loss_of)(model, some_tokens()), False),
    "inference_mode": (lambda model, net: torch.inference_mode()(loss_of)(model, some_tokens()), False),
    "a forward with gradients": (lambda model, net: loss_of(model, some_tokens()), False),
    "frozen": (lambda model, net: loss_of(model.requires_grad_(False), some_tokens()), False),
    "training mode": (lambda model, net: loss_of(model.train(), some_tokens()).backward(), False),
    "one layer in evaluation mode": (lambda model, net: one_in_evaluation(model), True),
    "the layers in training mode": (lambda model, net: layers_in_training(model), False),
    "forced": (lambda model, net: forced(model, net), False),
    "after detach": (lambda model, net: (net.detach(), loss_of(model, some_tokens()).backward()), False),
    "a copy": (lambda model, net: loss_of(copy.deepcopy(model), some_tokens()).backward(), False),
    "nothing was activated": (lambda model, net: anew(model, net, activate=False), False),
    "the full model was activated": (lambda model, net: anew(model, net, activate=True), False),
}
FOUR = raptr.Subnetwork.of((0, 1, 2, 3))


def one_in_evaluation(model: Net) -> None:
    model.train()
    model.layers[1].eval()
    loss_of(model, some_tokens()).backward()


def layers_in_training(model: Net) -> None:
    for layer in model.layers:
        layer.train()
    loss_of(model, some_tokens()).backward()


def forced(model: Net, net: raptr.AttachedModel) -> None:
    with net.using(PATH):
        loss_of(model, some_tokens()).backward()


def anew(model: Net, net: raptr.AttachedModel, *, activate: bool) -> None:
    net.detach()
    again = raptr.attach(model, blocks=model.layers, inputs=(some_tokens(),))
    if activate:
        again.activate(Script([FOUR]), 0)
    loss_of(model, some_tokens()).backward()


@pytest.mark.parametrize("subnetwork", SUBNETWORKS)
@pytest.mark.parametrize("use", USES)
def test_what_is_told_of_a_model_in_evaluation_mode(use: str, subnetwork: str) -> None:
    done, expected = USES[use]
    model = Net(4, "attention")
    net = raptr.attach(model, blocks=model.layers, inputs=(some_tokens(),))
    net.activate(Script([SUBNETWORKS[subnetwork]]), 0)
    model.eval()
    assert bool(told_of(lambda: done(model, net))) == expected


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
@pytest.mark.parametrize("when", ["never", "first", "later", "using"])
def test_a_step_without_activate_is_told_of_once(make: Any, when: str) -> None:
    model = Net(4, "attention").train()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = make(model.parameters(), lr=1e-3)
    net.prepare(optimizer)

    def use() -> None:
        for step in range(3):
            if when == "first" or (when == "later" and step):
                net.activate(Script([PATH]), step)
            with net.using(PATH) if when == "using" else nullcontext():
                loss_of(model, some_tokens()).backward()
            optimizer.step()
            optimizer.zero_grad()

    told = told_of(use)
    assert len(told) == (when in ("never", "later"))
    assert all("Call net.activate(plan, step) before the forward of each step" in each for each in told)


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
