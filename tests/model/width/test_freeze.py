"""What a step did not select of a layer keeps still under ``freeze``, whatever the optimizer does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import raptr
from raptr.plan.layer_part import WHOLE, LayerPart
from raptr.plan.subnetwork import Subnetwork
from reference.narrow import Chosen, counts, indices, subnetwork
from reference.script import Script
from reference.wide import CASES, Sized, one_choice

Optimizer = torch.optim.Optimizer


def muon(model: nn.Module) -> Optimizer:
    """torch's Muon, for the matrices of the layers only."""
    return torch.optim.Muon(
        [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name and "head" not in name],
        lr=1e-2,
        weight_decay=0.1,
    )


def of_all(make: Any, **options: Any) -> Callable[[nn.Module], Optimizer]:
    return lambda model: make(model.parameters(), **options)


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adamw": of_all(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, foreach=False),
    "adamw-foreach": of_all(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, foreach=True),
    "adamw-fused": of_all(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, fused=True),
    "adamw-amsgrad": of_all(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "sgd": of_all(torch.optim.SGD, lr=1e-1, momentum=0.9, weight_decay=0.1),
    "sgd-dampened": of_all(torch.optim.SGD, lr=1e-1, momentum=0.9, dampening=0.1, weight_decay=0.1),
    "muon": muon,
    "adafactor": of_all(torch.optim.Adafactor, lr=1e-2, weight_decay=0.1),
}
EVERY_OPTIMIZER = [("llama", optimizer) for optimizer in OPTIMIZERS]
EVERY_MODEL = list(itertools.product(("llama-with-biases", "bert", "gpt2", "t5"), ("adamw", "muon")))
"""How a model's weights are divided and what an optimizer keeps of them are independent of each other."""


def choices(case: Sized, model: nn.Module) -> list[Subnetwork]:
    """Four different ones, the last with a layer that is skipped and one that is whole."""
    found = [one_choice(case, model, seed=seed) for seed in range(4)]
    *first, last = map(subnetwork, found)
    layers = [list(path) for path in last.layers]
    parts = [list(of_stack) for of_stack in last.parts]
    parts[0][1] = WHOLE
    del layers[0][2], parts[0][2]
    return [*first, Subnetwork(tuple(map(tuple, layers)), tuple(map(tuple, parts)))]


def states(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The parameter and its state's tensors of the same shape, copied."""
    held = {"itself": parameter, **optimizer.state.get(parameter, {})}
    return {k: v.detach().clone() for k, v in held.items() if torch.is_tensor(v) and v.shape == parameter.shape}


def entries(case: Sized, model: nn.Module, *used: Subnetwork) -> dict[str, tuple[int, list[int], list[int]]]:
    """Of each parameter: the dimension, and the entries that one of the subnetworks selects, and that none does."""
    chosen: dict[str, tuple[int, set[int]]] = {}
    for each in used:
        for i, stack in enumerate(case.stacks):
            for layer, part in each.kept(i):
                for name, parameter in model.named_parameters():
                    if name.startswith(f"{stack}.{layer}."):
                        one = Chosen(part.heads or range(4), part.neurons or range(counts(model)[1]))
                        found = indices(name, parameter, one, counts(model))
                        if found is not None:
                            chosen.setdefault(name, (found[0], set()))[1].update(found[1])
    parameters = dict(model.named_parameters())
    return {
        name: (dim, sorted(some), sorted(set(range(parameters[name].shape[dim])) - some))
        for name, (dim, some) in chosen.items()
        if "relative_attention_bias" not in name
    }


def moved(before: dict[str, Tensor], after: dict[str, Tensor], dim: int, where: list[int]) -> list[str]:
    """Of what something changed at these entries; state that was not there begins at zero."""
    index = torch.tensor(where, dtype=torch.long)
    pairs = {key: (before.get(key, torch.zeros_like(now)), now) for key, now in after.items()}
    return [
        key for key, (was, now) in pairs.items() if not was.index_select(dim, index).equal(now.index_select(dim, index))
    ]


def steps(
    case: Sized, model: nn.Module, optimizer: Optimizer, net: Any, subnetworks: list[Subnetwork], micro: int = 1
) -> Iterator[tuple[list[Subnetwork], dict[str, dict[str, Tensor]], dict[str, dict[str, Tensor]]]]:
    """Train; for each step what was used, and every parameter with its state before and after it."""

    class ByMicro(Script):
        def subnetwork(self, step: int, micro: int = 0) -> Any:
            return self.paths[(step + micro) % len(self.paths)]

    plan = ByMicro(subnetworks)
    for step in range(len(subnetworks) + 1):
        used = []
        for i in range(micro):
            used.append(net.activate(plan, step, micro=i))
            case.row.loss(model, seed=step + i).backward()
        before = {name: states(optimizer, p) for name, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
        yield used, before, {name: states(optimizer, p) for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "optimizer_name"), [*EVERY_OPTIMIZER, *EVERY_MODEL])
def test_freeze_leaves_alone_what_was_not_selected(name: str, optimizer_name: str) -> None:
    case = CASES[name]
    model = case.build()
    optimizer = OPTIMIZERS[optimizer_name](model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    net = raptr.attach(model)
    net.prepare(optimizer)
    trained = 0
    for used, before, after in steps(case, model, optimizer, net, choices(case, model)):
        for parameter, (dim, some, others) in entries(case, model, *used).items():
            assert moved(before[parameter], after[parameter], dim, others) == [], parameter
            if id(model.get_parameter(parameter)) in held:
                trained += bool(moved(before[parameter], after[parameter], dim, some))
    assert trained > 40


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_zero_lets_the_optimizer_move_it(optimizer_name: str) -> None:
    """Negative control of the test above, and what ``zero`` says."""
    case = CASES["llama"]
    model = case.build()
    optimizer = OPTIMIZERS[optimizer_name](model)
    net = raptr.attach(model)
    net.prepare(optimizer, inactive="zero")
    found = set()
    for used, before, after in steps(case, model, optimizer, net, choices(case, model)):
        for parameter, (dim, _, others) in entries(case, model, *used).items():
            found.update(moved(before[parameter], after[parameter], dim, others))
    assert "itself" in found


def test_zero_is_what_the_optimizer_does_with_zero_gradients() -> None:
    case = CASES["llama"]
    model, plain = case.build(), case.build()
    make = OPTIMIZERS["adamw"]
    optimizer, plain_optimizer = make(model), make(plain)
    net = raptr.attach(model)
    net.prepare(optimizer, inactive="zero")
    plan = Script(choices(case, model))
    for step in range(4):
        net.activate(plan, step)
        case.row.loss(model, seed=step).backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            q.grad = torch.zeros_like(q) if p.grad is None else p.grad.clone()
        for each in (optimizer, plain_optimizer):
            each.step()
            each.zero_grad()
        assert all(p.equal(q) for p, q in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_what_any_micro_batch_selected_is_trained(name: str) -> None:
    case = CASES[name]
    model = case.build()
    optimizer = OPTIMIZERS["adamw"](model)
    net = raptr.attach(model)
    net.prepare(optimizer)
    frozen = 0
    for used, before, after in steps(case, model, optimizer, net, choices(case, model), micro=2):
        first, both = entries(case, model, used[0]), entries(case, model, *used)
        for parameter, (dim, _, others) in both.items():
            assert moved(before[parameter], after[parameter], dim, others) == [], parameter
            frozen += len(others)
            second = sorted(set(both[parameter][1]) - set(first[parameter][1])) if parameter in first else []
            if second and "bias" not in parameter:
                assert moved(before[parameter], after[parameter], dim, second), parameter
    assert frozen


def test_an_evaluation_between_micro_batches_counts_for_nothing() -> None:
    """`using` without gradients, whatever it selects; and with gradients, it does count."""
    case = CASES["llama"]
    for with_gradients in (False, True):
        model = case.build()
        optimizer = OPTIMIZERS["adamw"](model)
        net = raptr.attach(model)
        net.prepare(optimizer)
        first, second, *_ = choices(case, model)
        plan = Script([first])
        for step in range(2):
            net.activate(plan, step)
            case.row.loss(model).backward()
            with net.using(second), torch.set_grad_enabled(with_gradients):
                loss = case.row.loss(model)
            if with_gradients:
                with net.using(second):
                    loss = case.row.loss(model)
                    loss.backward()
            before = {name: states(optimizer, p) for name, p in model.named_parameters()}
            optimizer.step()
            optimizer.zero_grad()
        after = {name: states(optimizer, p) for name, p in model.named_parameters()}
        of_first = entries(case, model, first)
        still = [n for n, (dim, _, others) in of_first.items() if moved(before[n], after[n], dim, others) == []]
        assert (len(still) == len(of_first)) != with_gradients
        of_both = entries(case, model, first, second)
        assert all(moved(before[n], after[n], dim, others) == [] for n, (dim, _, others) in of_both.items())


@pytest.mark.parametrize("forced", [False, True], ids=["micro-batch", "using"])
def test_layers_that_ran_whole_before_anything_was_narrow_are_trained_whole(forced: bool) -> None:
    """Nothing is remembered of whole layers until the first narrow one, which may come within a step."""
    case = CASES["llama"]
    model = case.build()
    optimizer = OPTIMIZERS["adamw"](model)
    net = raptr.attach(model)
    net.prepare(optimizer)
    (full,) = net.subnetwork.layers
    narrow = choices(case, model)[0]
    net.activate(Script([Subnetwork.of(full[:-1])]), 0)  # the last layer is skipped
    case.row.loss(model).backward()
    if forced:
        with net.using(narrow):
            case.row.loss(model).backward()
    else:
        net.activate(Script([narrow]), 0, micro=1)
        case.row.loss(model, seed=1).backward()
    before = {name: states(optimizer, p) for name, p in model.named_parameters()}
    optimizer.step()
    after = {name: states(optimizer, p) for name, p in model.named_parameters()}
    for name, (dim, _, others) in entries(case, model, narrow).items():
        whole = f".{full[-1]}." not in name
        assert bool(moved(before[name], after[name], dim, others)) == whole, name


def test_a_step_in_evaluation_trains_all_of_it() -> None:
    """In ``eval()`` the whole layer runs: what has a gradient then is not held back."""
    case = CASES["llama"]
    model = case.build()
    optimizer = OPTIMIZERS["sgd"](model)
    net = raptr.attach(model)
    net.prepare(optimizer)
    net.activate(Script(choices(case, model)), 0)
    model.eval()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    case.row.loss(model).backward()
    optimizer.step()
    assert all((p != before[name]).any(1).all() for name, p in model.named_parameters() if "q_proj" in name)


def test_a_closure_trains_what_is_selected() -> None:
    case = CASES["llama"]
    model = case.build()
    optimizer = OPTIMIZERS["adamw"](model)
    net = raptr.attach(model)
    net.prepare(optimizer)
    used, *_ = choices(case, model)
    for step in range(3):
        net.activate(Script([used]), step)
        before = {name: states(optimizer, p) for name, p in model.named_parameters()}

        def closure() -> float:
            optimizer.zero_grad()
            loss = case.row.loss(model)
            loss.backward()
            return loss.item()

        optimizer.step(closure)
        optimizer.zero_grad()
        after = {name: states(optimizer, p) for name, p in model.named_parameters()}
        for parameter, (dim, some, others) in entries(case, model, used).items():
            assert moved(before[parameter], after[parameter], dim, others) == []
            assert moved(before[parameter], after[parameter], dim, some)


def test_the_bias_that_t5_layers_share_follows_all_of_them() -> None:
    """A head that no layer of the stack selected keeps its column; one that some layer did, does not."""
    case = CASES["t5"]
    model = case.build()
    optimizer = OPTIMIZERS["adamw"](model)
    net = raptr.attach(model)
    net.prepare(optimizer)
    stacks = [(range(n), [LayerPart(heads=(1,) if i else (0, 1)) for i in range(n)]) for n in case.stacks.values()]
    used = Subnetwork(tuple(tuple(layers) for layers, _ in stacks), tuple(tuple(parts) for _, parts in stacks))
    other = Subnetwork(used.layers, tuple((LayerPart(heads=(2,)),) * len(path) for path in used.layers))
    table = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    plan = Script([other, used, used])
    for step in range(3):
        net.activate(plan, step)
        case.row.loss(model, seed=step).backward()
        before = states(optimizer, table)
        optimizer.step()
        optimizer.zero_grad()
        after = states(optimizer, table)
        selected = [2] if step == 0 else [0, 1]
        assert moved(before, after, 1, sorted({0, 1, 2, 3} - set(selected))) == []
        assert all(moved(before, after, 1, [head]) for head in selected)


def test_freezing_is_over_after_detach() -> None:
    case = CASES["llama"]
    model = case.build()
    optimizer = OPTIMIZERS["adamw"](model)
    net = raptr.attach(model)
    net.prepare(optimizer)
    net.activate(Script(choices(case, model)), 0)
    case.row.loss(model).backward()
    net.detach()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    assert all((p != before[name]).all() for name, p in model.named_parameters() if "q_proj" in name)
