"""Several optimizers of one model, stepped at different times, inside each other and around each other's hooks.

The expected runs are made by hand: gradients of separately built smaller models, summed until an optimizer takes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import raptr
from raptr import RaptrError
from raptr.plan import LayerPart, Subnetwork
from reference.families import LLAMA, MLP
from reference.script import Script
from reference.shallow import expected_gradients

PATHS = [(0, 2, 5), (0, 1, 2, 3, 4, 5), (0, 3, 5), (1, 4), (0, 2, 5), (3,), (0, 1, 5), (2, 4)]
PLAN = Script([Subnetwork.of(kept) for kept in PATHS])
STEPS = range(len(PATHS))
Make = Callable[[Any], Optimizer]

ADAMW: Make = lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1)  # noqa: E731
SGD: Make = lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9, weight_decay=0.1)  # noqa: E731
MUON: Make = lambda p: torch.optim.Muon(p, lr=1e-2, weight_decay=0.1)  # noqa: E731


def parts_of(model: nn.Module, makes: Sequence[Make]) -> list[Optimizer]:
    """Matrices of the layers for the first optimizer; the other parameters in turn for the others."""
    matrices, rest = list[Any](), list[Any]()
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and name.startswith("layers.") else rest).append(p)
    others = len(makes) - 1
    return [makes[0](matrices), *(make(rest[i::others]) for i, make in enumerate(makes[1:]))]


class Cadence:
    """When each optimizer of a run steps, and when it only clears its gradients, as a scaler does."""

    def __init__(self, *steps: Collection[int], cleared: Sequence[Collection[int]] = ((), (), ())) -> None:
        self.steps, self.cleared = steps, cleared


def every(n: int, first: int = 0) -> range:
    return range(first, len(PATHS), n)


CADENCES = {
    "muon each step, adamw each second": ([MUON, ADAMW], Cadence(every(1), every(2, 1))),
    "muon each step, adamw each third": ([MUON, ADAMW], Cadence(every(1), every(3, 2))),
    "muon each second, adamw each step": ([MUON, ADAMW], Cadence(every(2, 1), every(1))),
    "sgd each step, adamw each fourth": ([SGD, ADAMW], Cadence(every(1), every(4, 3))),
    "adamw of both, by steps": ([ADAMW, ADAMW], Cadence(every(1), every(2, 1))),
    "alternating": ([SGD, ADAMW], Cadence(every(2), every(2, 1))),
    "alternating, the other first": ([MUON, SGD], Cadence(every(2, 1), every(2))),
    "three": ([MUON, ADAMW, SGD], Cadence(every(1), every(2, 1), every(3, 2))),
    "one is never stepped": ([SGD, ADAMW], Cadence(every(1), ())),
    "one is stepped once, at the end": ([SGD, ADAMW], Cadence(every(1), (len(PATHS) - 1,))),
    "irregular": ([SGD, ADAMW], Cadence((0, 1, 2, 4, 5, 7), (0, 3, 4, 6, 7))),
    "a scaler leaves out one of two": ([SGD, ADAMW], Cadence((0, 1, 3, 4, 6, 7), every(1), cleared=((2, 5), ()))),
    "a scaler leaves out the slow one": ([SGD, ADAMW], Cadence(every(1), (1, 7), cleared=((), (3, 5)))),
    "a scaler leaves out the fast one": ([SGD, ADAMW], Cadence((0, 1, 3, 5, 6, 7), every(2, 1), cleared=((2, 4), ()))),
}


def by_hand(makes: Sequence[Make], cadence: Cadence, inactive: str) -> tuple[nn.Module, list[Optimizer]]:
    full = MLP.build()
    optimizers, sums = parts_of(full, makes), dict[Any, Tensor | None]()
    for step, kept in enumerate(PATHS):
        small = MLP.shallow(full, kept)
        MLP.loss(small, seed=step).backward()
        expected = expected_gradients(full, small, {"layers": kept})
        for name, p in full.named_parameters():
            before, new = sums.get(p), expected[name]
            sums[p] = new if before is None else before if new is None else before + new
        for optimizer, steps, cleared in zip(optimizers, cadence.steps, cadence.cleared, strict=False):
            held = [p for group in optimizer.param_groups for p in group["params"]]
            if step in steps:
                for p in held:
                    missing = torch.zeros_like(p) if inactive == "zero" else None
                    p.grad = missing if sums[p] is None else sums[p]
                optimizer.step()
            if step in steps or step in cleared:
                sums |= dict.fromkeys(held)
    return full, optimizers


def by_raptr(
    makes: Sequence[Make], cadence: Cadence, inactive: Any, *, set_to_none: bool
) -> tuple[nn.Module, list[Optimizer]]:
    model = MLP.build()
    optimizers = parts_of(model, makes)
    net = raptr.attach(model, blocks=model.layers)
    for optimizer in optimizers:
        net.prepare(optimizer, inactive=inactive)
    for step in STEPS:
        net.activate(PLAN, step)
        MLP.loss(model, seed=step).backward()
        for optimizer, steps, cleared in zip(optimizers, cadence.steps, cadence.cleared, strict=False):
            if step in steps:
                optimizer.step()
            if step in steps or step in cleared:
                optimizer.zero_grad(set_to_none=set_to_none)
    return model, optimizers


def differing(found: tuple[nn.Module, list[Optimizer]], expected: tuple[nn.Module, list[Optimizer]]) -> list[str]:
    """The parameters that differ, or whose optimizer state does, bit for bit; state of zeros may be missing."""
    wrong = []
    states = [
        {p: state for each in optimizers for p, state in each.state.items()} for _, optimizers in (found, expected)
    ]
    for (name, p), q in zip(found[0].named_parameters(), expected[0].parameters(), strict=True):
        one, other = states[0].get(p, {}), states[1].get(q, {})
        same = all(torch.equal(value, other.get(key, torch.zeros_like(value))) for key, value in one.items())
        wrong += [] if same and torch.equal(p, q) else [name]
    return wrong


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("inactive", ["freeze", "zero"])
@pytest.mark.parametrize("name", CADENCES)
def test_every_optimizer_trains_what_ran_since_its_own_last_step(name: str, inactive: str, set_to_none: bool) -> None:
    makes, cadence = CADENCES[name]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = by_raptr(makes, cadence, inactive, set_to_none=set_to_none)
    assert differing(found, by_hand(makes, cadence, inactive)) == []
    assert set_to_none is False or not told  # zeros that are left behind are told of


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("inactive", ["freeze", "zero"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_scaler_that_leaves_out_the_step_of_one_of_two(which: int, inactive: Any, set_to_none: bool) -> None:
    """With powers of 2 as factors, which change no bit; a gradient of layer 3 is infinite at step 2."""
    makes = [SGD, ADAMW]
    model = MLP.build()
    optimizers = parts_of(model, makes)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    net = raptr.attach(model, blocks=model.layers)
    for optimizer in optimizers:
        net.prepare(optimizer, inactive=inactive)
    for step in STEPS:
        net.activate(PLAN, step)
        scaler.scale(MLP.loss(model, seed=step)).backward()
        if step == 2:
            held = [p for group in optimizers[which].param_groups for p in group["params"]]
            next(p for p in model.layers[3].parameters() if any(p is one for one in held)).grad.fill_(torch.inf)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)
    steps, cleared = [every(1), every(1)], [(), ()]
    steps[which], cleared[which] = [step for step in STEPS if step != 2], (2,)
    expected = by_hand(makes, Cadence(*steps, cleared=cleared), inactive)
    assert differing((model, optimizers), expected) == []


def test_another_cadence_is_noticed() -> None:
    """Negative control: gradients of every second step only, which is what was trained once."""
    makes, cadence = CADENCES["muon each step, adamw each second"]
    lost = Cadence(every(1), every(2, 1), cleared=((), every(2)))
    assert differing(by_raptr(makes, cadence, "freeze", set_to_none=True), by_hand(makes, lost, "freeze"))


def test_a_step_that_no_optimizer_made_is_refused() -> None:
    model = MLP.build()
    optimizers = parts_of(model, [SGD, ADAMW])
    net = raptr.attach(model, blocks=model.layers)
    for optimizer in optimizers:
        net.prepare(optimizer)
    net.activate(PLAN, 0)
    MLP.loss(model).backward()
    with pytest.raises(RaptrError, match="gradients of step 0 are not used yet"):
        net.activate(PLAN, 1)
    optimizers[0].zero_grad()  # behind a scaler that left out its step; the other one's gradients wait
    net.activate(PLAN, 1)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("inactive", ["freeze", "zero"])
@pytest.mark.parametrize("makes", [[SGD, ADAMW], [MUON, ADAMW], [ADAMW, SGD]])
def test_an_optimizer_stepped_inside_anothers_closure(makes: Any, inactive: Any, set_to_none: bool) -> None:
    """Gradients from before the closure are stale, and no layer took part in them: nothing is told of them."""
    model = MLP.build()
    outer, inner = optimizers = parts_of(model, makes)
    net = raptr.attach(model, blocks=model.layers)
    for optimizer in optimizers:
        net.prepare(optimizer, inactive=inactive)

    def closure() -> Tensor:
        model.zero_grad(set_to_none=set_to_none)
        loss = MLP.loss(model, seed=step)
        loss.backward()
        inner.step()
        return loss

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in STEPS:
            net.activate(PLAN, step)
            assert torch.isfinite(outer.step(closure))
    expected = by_hand(makes, Cadence(every(1), every(1)), inactive)
    assert differing((model, optimizers), expected) == []
    assert bool(told) == (inactive == "freeze" and not set_to_none)


@pytest.mark.parametrize("keyword", [True, False])
@pytest.mark.parametrize("inactive", ["freeze", "zero"])
def test_a_closure_obeys_the_policy(inactive: Any, keyword: bool) -> None:
    model = MLP.build()
    optimizer = ADAMW(model.parameters())
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(optimizer, inactive=inactive)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = MLP.loss(model, seed=step)
        loss.backward()
        return loss

    for step in STEPS:
        net.activate(PLAN, step)
        optimizer.step(closure=closure) if keyword else optimizer.step(closure)
    full = MLP.build()
    plain = ADAMW(full.parameters())
    for step, kept in enumerate(PATHS):
        small = MLP.shallow(full, kept)
        MLP.loss(small, seed=step).backward()
        grads = expected_gradients(full, small, {"layers": kept})
        for name, p in full.named_parameters():
            missing = torch.zeros_like(p) if inactive == "zero" else None
            p.grad = missing if grads[name] is None else grads[name]
        plain.step()
    assert differing((model, [optimizer]), (full, [plain])) == []


class Sam(Optimizer):
    """Sharpness-aware minimization as it is published: a step up, a closure, and the step of another optimizer."""

    def __init__(self, params: Any, make: Make, rho: float = 0.05) -> None:
        super().__init__(params, {"rho": rho})
        self.base_optimizer = make(self.param_groups)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is not None, "Sharpness Aware Minimization requires closure, but it was not provided"
        held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in held]).norm()
        before = {p: p.clone() for p in held}
        for p in held:
            p.add_(p.grad, alpha=self.param_groups[0]["rho"] / norm)
        torch.enable_grad()(closure)()
        for p, old in before.items():
            p.copy_(old)
        self.base_optimizer.step()


def test_an_optimizer_that_wraps_another_is_rejected_with_the_one_to_prepare() -> None:
    model = MLP.build()
    sam = Sam(model.parameters(), ADAMW)
    net = raptr.attach(model, blocks=model.layers)
    with pytest.raises(RaptrError, match=r"Sam wraps another .*net\.prepare\(optimizer\.base_optimizer\)"):
        net.prepare(sam)
    net.prepare(sam.base_optimizer)
    full = MLP.build()
    plain = Sam(full.parameters(), ADAMW)

    def gradients(kept: tuple[int, ...], seed: int) -> None:
        small = MLP.shallow(full, kept)
        MLP.loss(small, seed=seed).backward()
        for name, grad in expected_gradients(full, small, {"layers": kept}).items():
            full.get_parameter(name).grad = grad

    for step, kept in enumerate(PATHS):
        net.activate(PLAN, step)
        MLP.loss(model, seed=step).backward()

        def again(step: int = step) -> None:
            model.zero_grad()
            MLP.loss(model, seed=step + 100).backward()

        sam.step(again)
        sam.zero_grad()
        gradients(kept, step)
        plain.step(lambda kept=kept, step=step: gradients(kept, step + 100))
    assert differing((model, [sam.base_optimizer]), (full, [plain.base_optimizer])) == []


class Wrapping(torch.optim.SGD):
    """Leaves its step to others, in a list; without a closure too."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1)
        self.others = [torch.optim.SGD(self.param_groups, lr=0.1)]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.others[0].step()


class Raising(torch.optim.SGD):
    def __init__(self, params: Any, error: type[Exception]) -> None:
        super().__init__(params, lr=0.1)
        self.error = error

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise self.error("a closure is needed")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Wrapping, r"Wrapping wraps another optimizer, in its attribute 'others'"),
        *((lambda p, e=e: Raising(p, e), r"Raising cannot make .*\('?a closure is needed'?\)") for e in (
            AssertionError, ValueError, RuntimeError, NotImplementedError, KeyError, ZeroDivisionError,
        )),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared_leaves_model_and_optimizer_alone(make: Any, words: str) -> None:
    """The model has gradients, with which a wrapped optimizer would make a step."""
    model = MLP.build()
    MLP.loss(model).backward()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = make(model.parameters())
    with pytest.raises(RaptrError, match=words):
        raptr.attach(model, blocks=model.layers).prepare(optimizer)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert not optimizer.state
    assert not optimizer._optimizer_step_pre_hooks


class Halved(Script):
    """Every step at half of the rate."""

    def lr_factor(self, step: int) -> float:
        return 0.5


def towers() -> tuple[list[Any], list[Any]]:
    models = [MLP.build(seed=seed) for seed in (0, 1)]
    return models, [raptr.attach(model, blocks=model.layers) for model in models]


def test_two_handles_on_one_optimizer_are_rejected() -> None:
    models, nets = towers()
    optimizer = SGD([p for model in models for p in model.parameters()])
    nets[0].prepare(optimizer)
    with pytest.raises(RaptrError, match=r"handle of another attached model.* one optimizer for each"):
        nets[1].prepare(optimizer)
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    nets[0].detach()
    nets[1].prepare(optimizer)  # the first is gone


def test_two_handles_with_an_optimizer_each_have_their_rates() -> None:
    """Control: what one optimizer of both would have made of them is a quarter, an eighth, ..."""
    models, nets = towers()
    optimizers, seen = [SGD(model.parameters()) for model in models], list[float]()
    for net, optimizer in zip(nets, optimizers, strict=True):
        net.prepare(optimizer)
        optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
    plan = Halved([Subnetwork.of(PATHS[0])])
    for step in range(3):
        for model, net in zip(models, nets, strict=True):
            net.activate(plan, step)
            MLP.loss(model).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
            assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.1
    assert seen == [0.05] * 6


@pytest.mark.parametrize("first", [True, False])
def test_a_rate_that_another_hook_scales_is_given_back_to_both(first: bool) -> None:
    model = MLP.build()
    optimizer, own, seen = SGD(model.parameters()), list[float](), list[float]()
    group = optimizer.param_groups[0]

    def scale(*_: Any) -> None:
        own.append(group["lr"])
        group["lr"] = group["lr"] * 0.1

    def give_back(*_: Any) -> None:
        seen.append(group["lr"])
        group["lr"] = own.pop()

    net = raptr.attach(model, blocks=model.layers)
    if not first:
        net.prepare(optimizer)
    optimizer.register_step_pre_hook(scale)
    optimizer.register_step_post_hook(give_back)
    if first:
        net.prepare(optimizer)
    for step in range(4):
        net.activate(Halved(PLAN.paths), step)
        MLP.loss(model, seed=step).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert group["lr"] == 0.1
    assert seen == pytest.approx([0.005] * 4)


@pytest.mark.parametrize("first", [True, False])
def test_hooks_of_others_see_the_weights_that_a_step_leaves(first: bool) -> None:
    """As a moving average in a hook does; neurons that were not selected have moved in the step, and are put back."""
    model = LLAMA.build()
    optimizer, seen = ADAMW(model.parameters()), list[Tensor]()
    weight = model.model.layers[1].mlp.up_proj.weight
    net = raptr.attach(model)
    if not first:
        net.prepare(optimizer)
    optimizer.register_step_post_hook(lambda *_: seen.append(weight.detach().clone()))
    if first:
        net.prepare(optimizer)
    part = LayerPart(neurons=(0, 1))
    net.activate(Script([Subnetwork(LLAMA.full, ((part,) * 6,))]), 0)
    LLAMA.loss(model).backward()
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(seen[0], weight)
    assert torch.equal(weight[2:], before[2:])
    assert not torch.equal(weight[:2], before[:2])


def test_neurons_of_every_step_since_its_own_last_one_are_trained() -> None:
    """The slow optimizer moves what any of its two steps selected, the fast one what its own step did."""
    model = LLAMA.build()
    kinds: dict[bool, list[Any]] = {True: [], False: []}
    for name, p in model.named_parameters():
        kinds["down_proj" in name].append(p)
    slow, fast = ADAMW(kinds[True]), ADAMW(kinds[False])
    net = raptr.attach(model)
    net.prepare(slow)
    net.prepare(fast)
    mlp = model.model.layers[1].mlp
    chosen = [(0, 1), (2, 3), (4, 5), (6, 7)]
    plan = Script([Subnetwork(LLAMA.full, ((LayerPart(neurons=each),) * 6,)) for each in chosen])
    before = {name: p.detach().clone() for name, p in mlp.named_parameters()}

    def moved() -> tuple[set[int], set[int]]:
        changed = [(mlp.up_proj.weight != before["up_proj.weight"]).any(1)]
        changed += [(mlp.down_proj.weight != before["down_proj.weight"]).any(0)]
        before.update({name: p.detach().clone() for name, p in mlp.named_parameters()})
        return tuple(set(each.nonzero().flatten().tolist()) for each in changed)  # type: ignore[return-value]

    found = []
    for step in range(4):
        net.activate(plan, step)
        LLAMA.loss(model, seed=step).backward()
        for optimizer in (fast, *([slow] if step % 2 else [])):
            optimizer.step()
            optimizer.zero_grad()
        found.append(moved())
    assert found == [({0, 1}, set()), ({2, 3}, {0, 1, 2, 3}), ({4, 5}, set()), ({6, 7}, {4, 5, 6, 7})]
