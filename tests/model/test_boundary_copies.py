"""Copies at a stage boundary: parameters and optimizer state, in place, once, sources read first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import raptr
from raptr.plan import Copy
from reference.families import BERT, GPT2, LLAMA, MLP, Family
from reference.handwritten import Net, TwoStacks, loss_of, some_tokens
from reference.script import Script
from reference.snapshot import Snapshot, untouched

RaptrError = raptr.RaptrError
FULL = raptr.Subnetwork.of(tuple(range(6)))
SWAP = (Copy(stack=0, source=1, target=3), Copy(stack=0, source=3, target=1))
OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-1),
}


def trained(
    family: Family, plan: Script, optimizer_name: str = "adamw", steps: int = 3
) -> tuple[Any, nn.Module, Optimizer]:
    """An attached model after some steps of a plan, so that moments differ by layer."""
    model = family.build()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    net = raptr.attach(model, **family.arguments(model))
    net.prepare(optimizer)
    for step in range(steps):
        net.activate(plan, step)
        family.loss(model, seed=step).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net, model, optimizer


def layer_contents(layers: nn.ModuleList, optimizer: Optimizer) -> list[dict[str, Tensor]]:
    """For each layer, its parameters and their optimizer state by name, copied."""
    contents = []
    for layer in layers:
        found = {}
        for name, parameter in layer.named_parameters():
            found[name] = parameter.detach().clone()
            for key, value in optimizer.state.get(parameter, {}).items():
                found[f"{name}/{key}"] = copy.deepcopy(value)
        contents.append(found)
    return contents


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Equal contents of two layers."""
    return first.keys() == second.keys() and all(
        torch.equal(v, second[k]) if isinstance(v, Tensor) else v == second[k] for k, v in first.items()
    )


def assert_moved(before: list[dict[str, Tensor]], after: list[dict[str, Tensor]], sources: list[int]) -> None:
    """Layer j now is what layer ``sources[j]`` was."""
    for target, source in enumerate(sources):
        assert same(after[target], before[source]), f"layer {target} is not what layer {source} was"


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("copies", "sources"),
    [
        (SWAP, [0, 3, 2, 1, 4, 5]),
        (SWAP[::-1], [0, 3, 2, 1, 4, 5]),
        (tuple(Copy(stack=0, source=i, target=i + 1) for i in range(5)), [0, 0, 1, 2, 3, 4]),
        (tuple(Copy(stack=0, source=i, target=i + 1) for i in reversed(range(5))), [0, 0, 1, 2, 3, 4]),
        (tuple(Copy(stack=0, source=i, target=i + 3) for i in range(3)), [0, 1, 2, 0, 1, 2]),
        ((Copy(stack=0, source=2, target=2),), [0, 1, 2, 3, 4, 5]),
    ],
    ids=["swap", "swap-reversed", "chain", "chain-reversed", "stacking", "itself"],
)
def test_sources_are_read_before_anything_is_written(optimizer_name: str, copies, sources: list[int]) -> None:
    net, model, optimizer = trained(MLP, Script([FULL]), optimizer_name)
    before = layer_contents(model.layers, optimizer)
    assert not same(before[1], before[3])  # control: layers can be told apart
    net.activate(Script([FULL], {3: copies}), 3)
    assert_moved(before, layer_contents(model.layers, optimizer), sources)


@pytest.mark.parametrize("family", [LLAMA, GPT2, BERT], ids=lambda f: f.name)
def test_only_the_targets_change_and_nothing_is_replaced(family: Family) -> None:
    net, model, optimizer = trained(family, Script([FULL]))
    layers = family.layers(model)
    before, values = (
        layer_contents(layers, optimizer),
        {n: p.detach().clone() for n, p in model.named_parameters()},
    )
    identity = {n: (id(p), p.data_ptr()) for n, p in model.named_parameters()}
    groups = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    net.activate(Script([FULL], {3: SWAP}), 3)
    assert_moved(before, layer_contents(layers, optimizer), [0, 3, 2, 1, 4, 5])
    assert {n: (id(p), p.data_ptr()) for n, p in model.named_parameters()} == identity
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == groups
    for name, parameter in model.named_parameters():
        if not name.startswith(family.stack):
            assert torch.equal(parameter, values[name]), name
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


@pytest.mark.parametrize("optimizer_name", ["adamw", "adamw-fused", "sgd-momentum"])
def test_training_goes_on_as_in_a_model_whose_layers_were_exchanged(optimizer_name: str) -> None:
    """The copied state is really used, and source and target do not share it afterwards."""
    net, model, optimizer = trained(MLP, Script([FULL]), optimizer_name)
    plain = MLP.build()
    names = [name for name, _ in plain.named_parameters()]
    sources = {i: i for i in range(6)} | {4: 1}

    def source_of(name: str) -> str:
        parts = name.split(".")
        return ".".join(["layers", str(sources[int(parts[1])]), *parts[2:]]) if parts[0] == "layers" else name

    mine = dict(model.named_parameters())
    plain.load_state_dict({name: mine[source_of(name)].detach().clone() for name in names})
    ordinary = OPTIMIZERS[optimizer_name](plain.parameters())
    for name, parameter in plain.named_parameters():
        ordinary.state[parameter] = copy.deepcopy(dict(optimizer.state[mine[source_of(name)]]))

    plan = Script([FULL], {3: (Copy(stack=0, source=1, target=4),)})
    for step in range(3, 6):
        net.activate(plan, step)
        for each, each_optimizer in ((model, optimizer), (plain, ordinary)):
            MLP.loss(each, seed=step).backward()
            each_optimizer.step()
            each_optimizer.zero_grad()
    theirs = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name
    assert not torch.equal(model.layers[1].up.weight, model.layers[4].up.weight)


@pytest.mark.parametrize("optimizer_name", ["adamw", "sgd-momentum"])
def test_copies_are_made_once_a_step(optimizer_name: str) -> None:
    """Micro-batches activate the same step again; a second swap would undo the first."""
    net, model, optimizer = trained(MLP, Script([FULL]), optimizer_name)
    before = layer_contents(model.layers, optimizer)
    plan = Script([FULL], {3: SWAP})
    for micro in range(2):
        net.activate(plan, 3)
        assert_moved(before, layer_contents(model.layers, optimizer), [0, 3, 2, 1, 4, 5])
        MLP.loss(model, seed=micro).backward()
    with net.using(raptr.Subnetwork.of((0, 1))):
        MLP.logits(model)
    assert_moved(before, layer_contents(model.layers, optimizer), [0, 3, 2, 1, 4, 5])
    optimizer.step()
    optimizer.zero_grad()
    after = layer_contents(model.layers, optimizer)
    net.activate(plan, 4)
    assert_moved(after, layer_contents(model.layers, optimizer), list(range(6)))


def test_every_boundary_makes_its_own_copies() -> None:
    net, model, optimizer = trained(MLP, Script([FULL]), steps=1)
    plan = Script([FULL], {1: SWAP, 2: (Copy(stack=0, source=0, target=5),), 3: SWAP})
    for step, sources in ((1, [0, 3, 2, 1, 4, 5]), (2, [0, 1, 2, 3, 4, 0]), (3, [0, 3, 2, 1, 4, 5])):
        before = layer_contents(model.layers, optimizer)
        net.activate(plan, step)
        assert_moved(before, layer_contents(model.layers, optimizer), sources)
        MLP.loss(model, seed=step).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_copies_reach_layers_that_are_skipped() -> None:
    """Growth: the target has not been trained yet, and holds moments of zero."""
    path = raptr.Subnetwork.of((0, 1, 2))
    net, model, optimizer = trained(MLP, Script([path]))
    before = layer_contents(model.layers, optimizer)
    assert before[4]["up.weight/step"] == 0
    copies = tuple(Copy(stack=0, source=i, target=i + 3) for i in range(3))
    net.activate(Script([path, path, path, FULL], {3: copies}), 3)
    after = layer_contents(model.layers, optimizer)
    assert_moved(before, after, [0, 1, 2, 0, 1, 2])
    assert after[4]["up.weight/step"] == 3


def test_copies_at_the_first_step() -> None:
    """G_stack may start from copies: parameters are copied, and moments of zero."""
    model = MLP.build()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer)
    before = layer_contents(model.layers, optimizer)
    net.activate(Script([FULL], {0: SWAP}), 0)
    assert_moved(before, layer_contents(model.layers, optimizer), [0, 3, 2, 1, 4, 5])


def test_state_loaded_after_prepare_is_what_is_copied() -> None:
    """``load_state_dict`` replaces the optimizer's state: none of it may be remembered from before."""
    net, model, optimizer = trained(MLP, Script([FULL]))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = layer_contents(model.layers, optimizer)
    net.activate(Script([FULL], {3: SWAP}), 3)
    assert_moved(before, layer_contents(model.layers, optimizer), [0, 3, 2, 1, 4, 5])


def test_copies_name_their_stack() -> None:
    torch.manual_seed(0)
    model = TwoStacks(first=3, second=4).double()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks={"low": model.lower, "high": model.upper})
    net.prepare(optimizer)
    full = raptr.Subnetwork.of((0, 1, 2), (0, 1, 2, 3))
    plan = Script([full], {1: (Copy(stack=1, source=0, target=2), Copy(stack=0, source=2, target=0))})
    net.activate(plan, 0)
    loss_of(model, some_tokens()).backward()
    optimizer.step()
    low, high = layer_contents(model.lower, optimizer), layer_contents(model.upper, optimizer)
    net.activate(plan, 1)
    assert_moved(low, layer_contents(model.lower, optimizer), [2, 1, 2])
    assert_moved(high, layer_contents(model.upper, optimizer), [0, 1, 0, 3])


def test_copies_without_a_prepared_optimizer_are_refused() -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    plan = Script([FULL], {1: SWAP})
    net.activate(plan, 0)  # no copies at this step
    before = Snapshot.of(model)
    for _ in range(2):  # and it stays refused: nothing was marked as done
        with pytest.raises(RaptrError, match="prepare"):
            net.activate(plan, 1)
    assert untouched(model, before)


@pytest.mark.parametrize(
    "wrong",
    [
        Copy(stack=0, source=1, target=6),
        Copy(stack=0, source=17, target=2),
        Copy(stack=1, source=1, target=2),
    ],
    ids=["target", "source", "stack"],
)
def test_copies_that_do_not_fit_are_refused_and_nothing_is_written(wrong: Copy) -> None:
    net, model, optimizer = trained(MLP, Script([FULL]))
    before, contents = Snapshot.of(model), layer_contents(model.layers, optimizer)
    with pytest.raises(RaptrError):
        net.activate(Script([FULL], {3: (*SWAP, wrong)}), 3)
    assert untouched(model, before)
    assert_moved(contents, layer_contents(model.layers, optimizer), list(range(6)))


def test_two_copies_onto_one_layer_are_refused_or_the_last_wins() -> None:
    net, model, optimizer = trained(MLP, Script([FULL]))
    before = layer_contents(model.layers, optimizer)
    twice = (Copy(stack=0, source=1, target=3), Copy(stack=0, source=2, target=3))
    try:
        net.activate(Script([FULL], {3: twice}), 3)
    except RaptrError:
        assert_moved(before, layer_contents(model.layers, optimizer), list(range(6)))
    else:
        assert_moved(before, layer_contents(model.layers, optimizer), [0, 1, 2, 2, 4, 5])


def test_layers_of_unlike_shape_are_refused_and_nothing_is_written() -> None:
    model = Net(4, "mlp", inner=[24, 24, 32, 24]).double()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer)
    full = raptr.Subnetwork.of((0, 1, 2, 3))
    before = Snapshot.of(model)
    with pytest.raises(RaptrError):
        net.activate(Script([full], {0: (Copy(stack=0, source=0, target=3), Copy(stack=0, source=1, target=2))}), 0)
    assert untouched(model, before)
