"""What happens to skipped layers: ``freeze`` leaves them, ``zero`` moves them as zero gradients do.

The expected runs are made by hand: the gradients of a separately built smaller model, written into
a plain copy of the full model (None or zeros where a layer was skipped), and an ordinary optimizer.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import raptr
from reference.families import ATTENTION, BERT, GPT2, LLAMA, MLP, Family, some_families
from reference.script import Script
from reference.shallow import expected_gradients
from reference.snapshot import Snapshot, untouched

RaptrError = raptr.RaptrError
PATHS = [(0, 2, 5), (0, 1, 2, 3, 4, 5), (0, 3, 5), (1, 4), (0, 2, 5), (3,), (0, 1, 5)]
PLAN = Script([raptr.Subnetwork.of(kept) for kept in PATHS])
FULL = Script([raptr.Subnetwork.of(tuple(range(6)))])
Make = Callable[[Any], Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-1),
}
OTHERS: dict[str, Make] = {
    "sgd-dampening": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9, dampening=0.5),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-2),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, initial_accumulator_value=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1e-1),
    "asgd": lambda p: torch.optim.ASGD(p, lr=1e-2),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-2),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
}
STATEFUL = [name for name in OPTIMIZERS if name != "sgd"]
MAIN = ["adamw", "sgd-momentum"]


def train(family: Family, net: Any, model: nn.Module, optimizer: Optimizer, plan: Any, steps: int, **zero: Any) -> None:
    """A user's plain loop."""
    for step in range(steps):
        net.activate(plan, step)
        family.loss(model, seed=step).backward()
        optimizer.step()
        optimizer.zero_grad(**zero)


def train_by_hand(
    family: Family, make: Make, paths: list[tuple[int, ...]], inactive: str
) -> tuple[nn.Module, Optimizer]:
    """The same run without raptr: a smaller model's gradients, and an ordinary (lazy) optimizer."""
    full = family.build()
    optimizer = make(full.parameters())
    for step, kept in enumerate(paths):
        small = family.shallow(full, kept)
        family.loss(small, seed=step).backward()
        expected = expected_gradients(full, small, {family.stack: kept})
        for name, parameter in full.named_parameters():
            grad = expected[name]
            parameter.grad = torch.zeros_like(parameter) if grad is None and inactive == "zero" else grad
        optimizer.step()
    return full, optimizer


def values(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter, copied."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def state_of(optimizer: Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """The optimizer's state by parameter name, copied."""
    return {name: copy.deepcopy(dict(optimizer.state.get(p, {}))) for name, p in model.named_parameters()}


def equal(first: Any, second: Any) -> bool:
    """Equal state entries: tensors bit for bit, type and shape included."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    return type(first) is type(second) and first == second


def assert_same_run(a: tuple[nn.Module, Optimizer], b: tuple[nn.Module, Optimizer], lazy_ok: bool = True) -> None:
    """Same parameters and same optimizer state; a parameter that never moved may have none in ``b``."""
    expected = values(b[0])
    for name, value in values(a[0]).items():
        assert torch.equal(value, expected[name]), f"{name}: {(value - expected[name]).abs().max()}"
    expected_state = state_of(b[1], b[0])
    for name, state in state_of(a[1], a[0]).items():
        if lazy_ok and not expected_state[name]:
            continue
        assert state.keys() == expected_state[name].keys(), name
        for key, value in state.items():
            assert equal(value, expected_state[name][key]), f"{name}: {key}"


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("inactive", ["freeze", "zero"])
def test_the_policy_is_what_it_says(inactive: str, optimizer_name: str) -> None:
    make = OPTIMIZERS[optimizer_name]
    model = ATTENTION.build()
    optimizer = make(model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive=inactive)
    train(ATTENTION, net, model, optimizer, PLAN, len(PATHS))
    assert_same_run((model, optimizer), train_by_hand(ATTENTION, make, PATHS, inactive))


@pytest.mark.slow
@some_families
@pytest.mark.parametrize("inactive", ["freeze", "zero"])
@pytest.mark.parametrize("optimizer_name", MAIN)
def test_the_policy_for_transformers(family: Family, inactive: str, optimizer_name: str) -> None:
    make, steps = OPTIMIZERS[optimizer_name], 4
    model = family.build()
    optimizer = make(model.parameters())
    net = raptr.attach(model)
    net.prepare(optimizer, inactive=inactive)
    train(family, net, model, optimizer, PLAN, steps)
    assert_same_run((model, optimizer), train_by_hand(family, make, PATHS[:steps], inactive))


@pytest.mark.parametrize("optimizer_name", MAIN)
def test_the_two_policies_differ(optimizer_name: str) -> None:
    """Negative control of the two tests above."""
    make = OPTIMIZERS[optimizer_name]
    freeze, zero = (train_by_hand(MLP, make, PATHS, inactive) for inactive in ("freeze", "zero"))
    with pytest.raises(AssertionError):
        assert_same_run(freeze, zero)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_freeze_leaves_skipped_layers_and_their_state_alone(optimizer_name: str, set_to_none: bool) -> None:
    model = MLP.build()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive="freeze")
    for step, kept in enumerate(PATHS):
        before, state = values(model), state_of(optimizer, model)
        net.activate(PLAN, step)
        MLP.loss(model, seed=step).backward()
        optimizer.step()
        after = state_of(optimizer, model)
        for name, value in values(model).items():
            skipped = name.startswith("layers.") and int(name.split(".")[1]) not in kept
            assert torch.equal(value, before[name]) == skipped, f"step {step}: {name}"
            if skipped:
                assert state[name].keys() == after[name].keys()
                assert all(equal(state[name][key], after[name][key]) for key in after[name]), name
        optimizer.zero_grad(set_to_none=set_to_none)


@pytest.mark.parametrize("optimizer_name", MAIN)
def test_without_the_policy_zeroed_gradients_move_skipped_layers(optimizer_name: str) -> None:
    """Negative control: what ``freeze`` prevents really happens without it."""
    model = MLP.build()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    train(MLP, net, model, optimizer, FULL, 2, set_to_none=False)
    before = values(model)
    train(MLP, net, model, optimizer, Script([raptr.Subnetwork.of((0, 5))]), 1, set_to_none=False)
    assert not torch.equal(model.layers[2].up.weight, before["layers.2.up.weight"])


@pytest.mark.parametrize("optimizer_name", MAIN)
def test_freeze_and_zeroed_gradients_are_the_lazy_run(optimizer_name: str) -> None:
    make = OPTIMIZERS[optimizer_name]
    model = ATTENTION.build()
    optimizer = make(model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive="freeze")
    train(ATTENTION, net, model, optimizer, PLAN, len(PATHS), set_to_none=False)
    assert_same_run((model, optimizer), train_by_hand(ATTENTION, make, PATHS, "freeze"))


def test_freeze_is_the_default() -> None:
    runs = []
    for options in ({}, {"inactive": "freeze"}):
        model = MLP.build()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        net = raptr.attach(model, blocks=model.layers)
        net.prepare(optimizer, **options)
        train(MLP, net, model, optimizer, PLAN, 4)
        runs.append((model, optimizer))
    assert_same_run(*runs)


def test_gradients_under_freeze_are_none_after_backward() -> None:
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive="freeze")
    train(MLP, net, model, optimizer, PLAN, 2)
    net.activate(PLAN, 3)
    MLP.loss(model).backward()
    trained = {i for i, layer in enumerate(model.layers) if all(p.grad is not None for p in layer.parameters())}
    untrained = {i for i, layer in enumerate(model.layers) if all(p.grad is None for p in layer.parameters())}
    assert trained == set(PATHS[3])
    assert untrained == set(range(6)) - set(PATHS[3])


@pytest.mark.parametrize("inactive", ["freeze", "zero"])
def test_a_layer_of_any_micro_batch_is_trained(inactive: str) -> None:
    """With other paths per micro-batch, only a layer that none of them ran counts as skipped."""

    class ByMicro(Script):
        def subnetwork(self, step: int, micro: int = 0) -> Any:
            return raptr.Subnetwork.of(((0, 2), (0, 4))[micro])

    model, plain = MLP.build(), MLP.build()
    make = OPTIMIZERS["adamw"]
    optimizer, plain_optimizer = make(model.parameters()), make(plain.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive=inactive)
    for step in range(2):
        totals: dict[str, Tensor | None] = {name: None for name, _ in plain.named_parameters()}
        for micro, kept in enumerate([(0, 2), (0, 4)]):
            net.activate(ByMicro([]), step, micro)
            MLP.loss(model, seed=micro).backward()
            small = MLP.shallow(plain, kept)
            MLP.loss(small, seed=micro).backward()
            for name, grad in expected_gradients(plain, small, {"layers": kept}).items():
                if grad is not None:
                    totals[name] = grad if totals[name] is None else totals[name] + grad
        for name, parameter in plain.named_parameters():
            missing = torch.zeros_like(parameter) if inactive == "zero" else None
            parameter.grad = missing if totals[name] is None else totals[name]
        for each in (optimizer, plain_optimizer):
            each.step()
            each.zero_grad()
    assert_same_run((model, optimizer), (plain, plain_optimizer))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("family", [LLAMA, GPT2, BERT, MLP], ids=lambda f: f.name)
def test_prepared_state_is_bit_identical_to_lazy_state(family: Family, optimizer_name: str) -> None:
    make = OPTIMIZERS[optimizer_name]
    model, plain = family.build(), family.build()
    optimizer, lazy = make(model.parameters()), make(plain.parameters())
    net = raptr.attach(model, **family.arguments(model))
    net.prepare(optimizer)
    train(family, net, model, optimizer, FULL, 3)
    for step in range(3):
        family.loss(plain, seed=step).backward()
        lazy.step()
        lazy.zero_grad()
    assert_same_run((model, optimizer), (plain, lazy), lazy_ok=False)


@pytest.mark.parametrize("optimizer_name", OTHERS)
@pytest.mark.filterwarnings("ignore:the state of:UserWarning")
def test_any_other_optimizer_is_right_or_refused(optimizer_name: str) -> None:
    """Not every optimizer starts from zeros (NAdam, ASGD, Rprop, dampened SGD do not)."""
    make = OTHERS[optimizer_name]
    model = MLP.build()
    before = Snapshot.of(model)
    optimizer = make(model.parameters())
    initial = state_of(optimizer, model)
    net = raptr.attach(model, blocks=model.layers)
    try:
        net.prepare(optimizer, inactive="freeze")
    except RaptrError:
        net.detach()
        assert untouched(model, before)
        assert {n: set(s) for n, s in state_of(optimizer, model).items()} == {n: set(s) for n, s in initial.items()}
        return
    train(MLP, net, model, optimizer, PLAN, len(PATHS))
    assert_same_run((model, optimizer), train_by_hand(MLP, make, PATHS, "freeze"))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer_name", STATEFUL)
@pytest.mark.parametrize("family", [LLAMA, GPT2, MLP], ids=lambda f: f.name)
def test_every_parameter_has_state_right_after_prepare(family: Family, optimizer_name: str) -> None:
    model, plain = family.build(), family.build()
    optimizer, lazy = (OPTIMIZERS[optimizer_name](m.parameters()) for m in (model, plain))
    net = raptr.attach(model, **family.arguments(model))
    net.prepare(optimizer)
    family.loss(plain).backward()
    lazy.step()
    expected = state_of(lazy, plain)
    for name, state in state_of(optimizer, model).items():
        assert state.keys() == expected[name].keys(), name
        for key, value in state.items():
            assert isinstance(value, Tensor), f"{name}: {key} is {value!r}"
            assert value.dtype == expected[name][key].dtype
            assert value.shape == expected[name][key].shape
            assert value.count_nonzero() == 0, f"{name}: {key}"
    ours, theirs = optimizer.state_dict(), lazy.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()


def test_a_lazy_optimizer_has_no_such_state() -> None:
    """Negative control: after a step on a path, an unprepared optimizer knows a part of the parameters."""
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    train(MLP, net, model, optimizer, Script([raptr.Subnetwork.of((0, 5))]), 1)
    assert 0 < len(optimizer.state) < len(list(model.parameters()))


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_prepare_changes_nothing_else(optimizer_name: str) -> None:
    model = MLP.build()
    before = Snapshot.of(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = OPTIMIZERS[optimizer_name]([{"params": decayed}, {"params": rest, "weight_decay": 0.0}])
    groups = [{k: (list(v) if k == "params" else v) for k, v in g.items()} for g in optimizer.param_groups]
    net = raptr.attach(model, blocks=model.layers)
    state = torch.get_rng_state()
    net.prepare(optimizer)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    assert len(optimizer.param_groups) == 2
    for old, new in zip(groups, optimizer.param_groups, strict=True):
        assert old.keys() == new.keys()
        assert all(a is b for a, b in zip(old["params"], new["params"], strict=True))
        assert all(old[key] == new[key] for key in old if key != "params")
    net.detach()
    assert untouched(model, before)


def test_lbfgs_is_refused() -> None:
    """Its one state is for all parameters together: no layer can be left out."""
    model = MLP.build()
    before = Snapshot.of(model)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    net = raptr.attach(model, blocks=model.layers)
    with pytest.raises(RaptrError, match="LBFGS"):
        net.prepare(optimizer)
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.1
    net.detach()
    assert untouched(model, before)


class Hidden(Optimizer):
    """Keeps its learning rate to itself, and decays: a trial step with a rate of zero would show."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})
        self.rate = 1e-2

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state.setdefault("sum", torch.zeros_like(p)).add_(p.grad)
                    p.mul_(1 - self.rate * 0.1).sub_(self.rate * state["sum"])


@pytest.mark.filterwarnings("ignore:the state of:UserWarning")
def test_an_optimizer_of_the_users_own_does_not_move_by_being_prepared() -> None:
    model, plain = MLP.build(), MLP.build()
    before = Snapshot.of(model)
    optimizer = Hidden(model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    with contextlib.suppress(RaptrError):
        net.prepare(optimizer)
    net.detach()
    assert untouched(model, before)
    assert torch.equal(MLP.loss(model), MLP.loss(plain))


def test_prepare_runs_no_hook_of_the_user() -> None:
    """A moving average kept in a step hook would count a step that never was."""
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    fired: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: fired.append("before"))
    optimizer.register_step_post_hook(lambda *_: fired.append("after"))
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer)
    assert fired == []
    train(MLP, net, model, optimizer, PLAN, 1)
    assert fired == ["before", "after"]  # control: they work, and are still there


def test_a_learning_rate_in_a_tensor_is_kept() -> None:
    model = MLP.build()
    rate = torch.tensor(1e-2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, foreach=False)
    raptr.attach(model, blocks=model.layers).prepare(optimizer)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate == torch.tensor(1e-2)


@pytest.mark.parametrize("inactive", ["freeze", "zero"])
def test_parameters_that_need_no_gradient_are_left_alone(inactive: str) -> None:
    model = MLP.build()
    model.tokens.requires_grad_(False)
    model.layers[2].up.requires_grad_(False)
    frozen = {name: value for name, value in values(model).items() if name.startswith(("tokens", "layers.2.up"))}
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive=inactive)
    train(MLP, net, model, optimizer, PLAN, 4)
    assert all(torch.equal(values(model)[name], value) for name, value in frozen.items())
    assert not model.tokens.weight.requires_grad
    assert model.tokens.weight.grad is None


def test_two_optimizers_share_a_model() -> None:
    """As with Muon for matrices: both are prepared, and both leave skipped layers alone."""
    model = MLP.build()
    matrices = OPTIMIZERS["adamw"]([p for p in model.parameters() if p.ndim > 1])
    rest = OPTIMIZERS["sgd-momentum"]([p for p in model.parameters() if p.ndim <= 1])
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(matrices)
    net.prepare(rest)
    for step, kept in enumerate(PATHS):
        before = values(model)
        net.activate(PLAN, step)
        MLP.loss(model, seed=step).backward()
        matrices.step()
        rest.step()
        model.zero_grad(set_to_none=False)
        for name, value in values(model).items():
            skipped = name.startswith("layers.") and int(name.split(".")[1]) not in kept
            assert torch.equal(value, before[name]) == skipped, f"step {step}: {name}"


def test_an_optimizer_is_prepared_once() -> None:
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive="freeze")
    with pytest.raises(RaptrError):
        net.prepare(optimizer, inactive="zero")


@pytest.mark.parametrize("inactive", ["freeze", "zero"])
def test_a_closure_obeys_the_policy_or_is_refused(inactive: str) -> None:
    """A closure makes its gradients inside ``step``, after the hooks that run before it."""
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive=inactive)

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=inactive == "zero")
        loss = MLP.loss(model)
        loss.backward()
        return loss

    try:
        for _ in range(2):
            net.activate(FULL, 0)
            optimizer.step(closure)
        before = values(model)
        net.activate(PLAN, 0)
        optimizer.step(closure)
    except RaptrError:
        return
    moved = not torch.equal(model.layers[1].up.weight, before["layers.1.up.weight"])
    assert moved == (inactive == "zero")


def test_prepare_keeps_gradients_that_are_there() -> None:
    model = MLP.build()
    MLP.loss(model).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(OPTIMIZERS["adamw"](model.parameters()))
    assert all(torch.equal(p.grad, grads[name]) for name, p in model.named_parameters())


def test_state_that_exists_is_never_thrown_away() -> None:
    """A resumed run loads its optimizer first: prepare keeps it, or refuses."""
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    for step in range(2):
        MLP.loss(model, seed=step).backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = state_of(optimizer, model)
    net = raptr.attach(model, blocks=model.layers)
    with contextlib.suppress(RaptrError):
        net.prepare(optimizer)
    found = state_of(optimizer, model)
    for name, state in expected.items():
        assert state.keys() == found[name].keys()
        assert all(equal(value, found[name][key]) for key, value in state.items()), name


@pytest.mark.parametrize("inactive", ["freeze", "zero"])
def test_a_resumed_optimizer_goes_on_as_if_never_stopped(inactive: str) -> None:
    def started(model: nn.Module) -> tuple[Any, Optimizer]:
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        net = raptr.attach(model, blocks=model.layers)
        net.prepare(optimizer, inactive=inactive)
        return net, optimizer

    straight = MLP.build()
    net, optimizer = started(straight)
    train(MLP, net, straight, optimizer, PLAN, 3)
    weights, moments = copy.deepcopy(straight.state_dict()), copy.deepcopy(optimizer.state_dict())

    resumed = MLP.build(seed=7)
    resumed_net, resumed_optimizer = started(resumed)
    resumed.load_state_dict(weights)
    resumed_optimizer.load_state_dict(moments)
    for step in range(3, len(PATHS)):
        for each, each_net, each_optimizer in (
            (straight, net, optimizer),
            (resumed, resumed_net, resumed_optimizer),
        ):
            each_net.activate(PLAN, step)
            MLP.loss(each, seed=step).backward()
            each_optimizer.step()
            each_optimizer.zero_grad()
    assert_same_run((resumed, resumed_optimizer), (straight, optimizer), lazy_ok=False)


def test_a_scheduler_and_clipping_work_with_a_prepared_optimizer(recwarn: pytest.WarningsRecorder) -> None:
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive="freeze")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for step in range(4):
        net.activate(PLAN, step)
        before = values(model)
        MLP.loss(model, seed=step).backward()
        assert torch.isfinite(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        for name, value in values(model).items():
            skipped = name.startswith("layers.") and int(name.split(".")[1]) not in PATHS[step]
            assert torch.equal(value, before[name]) == skipped, name
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 5)
    assert not recwarn.list


@pytest.mark.parametrize("inactive", ["", "none", "skip", None, True])
def test_an_unknown_policy_is_refused(inactive: object) -> None:
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    before = Snapshot.of(model)
    with pytest.raises(RaptrError, match="freeze"):
        net.prepare(optimizer, inactive=inactive)
    assert untouched(model, before)
    assert not optimizer.state


@pytest.mark.parametrize("thing", [None, "adamw", [], nn.Linear(2, 2)], ids=lambda v: type(v).__name__)
def test_what_is_no_optimizer_is_refused(thing: object) -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    before = Snapshot.of(model)
    with pytest.raises(RaptrError):
        net.prepare(thing)
    assert untouched(model, before)


def test_an_optimizer_of_another_model_is_refused() -> None:
    model, other = MLP.build(), MLP.build()
    optimizer = OPTIMIZERS["adamw"](other.parameters())
    net = raptr.attach(model, blocks=model.layers)
    with pytest.raises(RaptrError):
        net.prepare(optimizer)
    assert not optimizer.state
