"""What else a copy can say: state that begins anew, layers that begin silent; and plans that are checked at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPTNeoConfig, GPTNeoForCausalLM

import raptr
from raptr import RaptrError
from raptr.plan import Copy, Stage, Subnetwork
from raptr.plan.layer_part import LayerPart
from reference.families import BERT, GPT2, HUGGING_FACE, LLAMA, MLP, T5_ENCODER, Family
from reference.script import Script
from reference.snapshot import left_alone

FULL = Subnetwork.of(tuple(range(6)))


def muon_and_adamw(model: nn.Module) -> list[Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "layers" in name]
    rest = [p for name, p in named if not (p.ndim == 2 and "layers" in name)]
    return [torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1), torch.optim.AdamW(rest, lr=1e-2)]


OPTIMIZERS: dict[str, Callable[[nn.Module], list[Optimizer]]] = {
    "adamw": lambda m: [torch.optim.AdamW(m.parameters(), lr=1e-2, weight_decay=0.1)],
    "adamw-fused": lambda m: [torch.optim.AdamW(m.parameters(), lr=1e-2, fused=True)],
    "sgd-momentum": lambda m: [torch.optim.SGD(m.parameters(), lr=1e-1, momentum=0.9)],
    "muon": muon_and_adamw,
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def trained(family: Family, name: str = "adamw", steps: int = 2) -> tuple[Any, nn.Module, list[Optimizer]]:
    """An attached model after some whole steps."""
    model = family.build()
    arguments = family.arguments(model)
    if family.by_hand:
        arguments["inputs"] = family.batch()
    net = raptr.attach(model, **arguments)
    optimizers = OPTIMIZERS[name](model)
    for optimizer in optimizers:
        net.prepare(optimizer)
    plan = Script([Subnetwork.of(*family.full)])
    for step in range(steps):
        net.activate(plan, step)
        family.loss(model, seed=step).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return net, model, optimizers


def state_of(optimizers: list[Optimizer], p: Tensor) -> dict[str, Any]:
    """A parameter's state, wherever it is."""
    return next((o.state[p] for o in optimizers if p in o.state), {})


def grow(net: Any, family: Family, *copies: Copy, step: int = 2) -> None:
    """Activate a step with these copies."""
    net.activate(Script([Subnetwork.of(*family.full)], {step: copies}), step)


@every_optimizer
def test_reset_begins_the_targets_state_anew(name: str) -> None:
    net, model, optimizers = trained(MLP, name)
    source = {n: p.detach().clone() for n, p in model.layers[1].named_parameters()}
    kept = {n: copy.deepcopy(dict(state_of(optimizers, p))) for n, p in model.layers[1].named_parameters()}
    tensors = {n: state_of(optimizers, p) for n, p in model.layers[4].named_parameters()}
    places = {n: {k: v.data_ptr() for k, v in state.items() if torch.is_tensor(v)} for n, state in tensors.items()}
    moments = [v for state in tensors.values() for k, v in state.items() if k != "step"]
    assert all(v.abs().max() > 0 for v in moments)  # control
    grow(net, MLP, Copy(source=1, target=4, reset=True))
    for n, p in model.layers[4].named_parameters():
        assert torch.equal(p, source[n])
        state = state_of(optimizers, p)
        assert state.keys() == kept[n].keys()
        assert all(not torch.is_tensor(v) or v.count_nonzero() == 0 for v in state.values()), n
        assert {k: v.data_ptr() for k, v in state.items() if torch.is_tensor(v)} == places[n]
    for n, p in model.layers[1].named_parameters():
        assert all(torch.equal(v, kept[n][k]) for k, v in state_of(optimizers, p).items() if torch.is_tensor(v))


@every_optimizer
def test_state_moves_in_place(name: str) -> None:
    net, model, optimizers = trained(MLP, name)
    expected = {n: copy.deepcopy(dict(state_of(optimizers, p))) for n, p in model.layers[1].named_parameters()}
    before = {n: dict(state_of(optimizers, p)) for n, p in model.layers[4].named_parameters()}
    grow(net, MLP, Copy(source=1, target=4))
    for n, p in model.layers[4].named_parameters():
        state = state_of(optimizers, p)
        assert state.keys() == expected[n].keys()
        for key, value in state.items():
            assert torch.equal(value, expected[n][key])
            assert value is before[n][key]


@every_optimizer
def test_after_a_reset_the_target_trains_as_with_a_new_optimizer(name: str) -> None:
    net, model, optimizers = trained(MLP, name)
    grow(net, MLP, Copy(source=1, target=4, reset=True))
    plain = copy.deepcopy(model)
    fresh = OPTIMIZERS[name](plain)
    for each, steppers in ((model, optimizers), (plain, fresh)):
        MLP.loss(each, seed=7).backward()
        for optimizer in steppers:
            optimizer.step()
    for n, p in model.layers[4].named_parameters():
        assert torch.equal(p, plain.layers[4].get_parameter(n)), n
    assert not torch.equal(model.layers[1].up.weight, plain.layers[1].up.weight)  # control: it kept its moments


def test_an_optimizer_that_does_not_begin_at_zero_makes_its_state_again() -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    with pytest.warns(UserWarning, match="not known to begin at zero"):
        net.prepare(optimizer)
    net.activate(Script([FULL]), 0)
    MLP.loss(model).backward()
    optimizer.step()
    grow(net, MLP, Copy(source=1, target=4, reset=True), step=1)
    assert all(p not in optimizer.state for p in model.layers[4].parameters())
    assert all(p in optimizer.state for p in model.layers[1].parameters())
    MLP.loss(model).backward()
    optimizer.step()
    assert all(optimizer.state[p]["step"] == 1 for p in model.layers[4].parameters())


@every_optimizer
@pytest.mark.parametrize("source", [1, 4], ids=["another", "itself"])
def test_a_silent_layer_begins_as_the_identity(source: int, name: str) -> None:
    net, model, optimizers = trained(MLP, name)
    other = {n: p.detach().clone() for n, p in model.layers[source].named_parameters()}
    moments = {n: copy.deepcopy(dict(state_of(optimizers, p))) for n, p in model.layers[source].named_parameters()}
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    assert not torch.equal(model.layers[4](x), x)  # control
    identity = {id(p) for p in model.parameters()}
    grow(net, MLP, Copy(source=source, target=4, silent=True))
    assert torch.equal(model.layers[4](x), x)
    assert {id(p) for p in model.parameters()} == identity
    for n, p in model.layers[4].named_parameters():
        assert torch.equal(p, torch.zeros_like(p) if n.startswith("down") else other[n])
        assert all(torch.equal(v, moments[n][k]) for k, v in state_of(optimizers, p).items())
    # It is not dead: the next step moves it.
    MLP.loss(model).backward()
    for optimizer in optimizers:
        optimizer.step()
    assert model.layers[4].down.weight.count_nonzero() > 0


def test_a_layer_can_begin_anew_in_place() -> None:
    net, model, optimizers = trained(MLP)
    before = {n: p.detach().clone() for n, p in model.layers[4].named_parameters()}
    grow(net, MLP, Copy(source=4, target=4, reset=True))
    for n, p in model.layers[4].named_parameters():
        assert torch.equal(p, before[n])
        assert all(v.count_nonzero() == 0 for v in state_of(optimizers, p).values())


PRE_NORM = [f for f in HUGGING_FACE if f.name in ("llama", "gpt2", "t5", "mixtral", "qwen3-moe", "vit", "falcon-7b")]


@pytest.mark.parametrize("family", PRE_NORM, ids=lambda family: family.name)
def test_a_model_whose_layers_are_silent_is_the_smaller_one(family: Family) -> None:
    model, kept = family.build(), family.path
    expected = family.loss(family.shallow(family.build(), *kept))
    net = raptr.attach(model)
    net.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    copies = [
        Copy(stack=i, source=layer, target=layer, silent=True)
        for i, layers in enumerate(family.full)
        for layer in layers
        if layer not in kept[i]
    ]
    net.activate(Script([Subnetwork.of(*family.full)], {0: tuple(copies)}), 0)
    options = {"output_router_logits": False} if "output_router_logits" in family.batch() else {}
    small = family.shallow(family.build(), *kept)
    if options:  # a silent layer still routes, which the balance of the routers counts
        batch = {**family.batch(), **options}
        torch.testing.assert_close(model(**batch).loss, small(**batch).loss, rtol=1e-12, atol=0)
    else:
        torch.testing.assert_close(family.loss(model), expected, rtol=1e-12, atol=0)


def test_sources_are_read_before_a_target_is_silenced() -> None:
    net, model, _ = trained(MLP)
    before = [copy.deepcopy(layer.state_dict()) for layer in model.layers]
    grow(net, MLP, Copy(source=1, target=3, silent=True), Copy(source=3, target=1))
    assert all(torch.equal(v, before[3][n]) for n, v in model.layers[1].state_dict().items())
    assert torch.equal(model.layers[3].up.weight, before[1]["up.weight"])
    assert model.layers[3].down.weight.count_nonzero() == 0


def test_a_layer_that_has_more_is_copied_onto_one_that_has_less() -> None:
    """T5's first layer alone has the position bias."""
    net, model, optimizers = trained(T5_ENCODER)
    first, third = model.encoder.block[0], model.encoder.block[2]
    bias = first.layer[0].SelfAttention.relative_attention_bias.weight
    before = {n: p.detach().clone() for n, p in first.named_parameters()}
    grow(net, T5_ENCODER, Copy(source=0, target=2))
    assert all(torch.equal(p, before[n]) for n, p in third.named_parameters())
    assert torch.equal(bias, before["layer.0.SelfAttention.relative_attention_bias.weight"])
    assert all(state_of(optimizers, p)["step"] == 2 for p in third.parameters())
    with left_alone(model), pytest.raises(RaptrError, match="relative_attention_bias"):
        grow(net, T5_ENCODER, Copy(source=2, target=0), step=3)


def test_a_buffer_that_is_not_saved_stays_the_layers_own() -> None:
    """GPT-Neo's local and global layers differ only in a mask; a model loaded from disk must be the trained one."""
    config = GPTNeoConfig(
        vocab_size=32,
        hidden_size=16,
        num_layers=4,
        attention_types=[[["global", "local"], 2]],
        num_heads=2,
        window_size=4,
        max_position_embeddings=16,
        intermediate_size=32,
    )
    model: Any = GPTNeoForCausalLM(config)
    net = raptr.attach(model)
    net.prepare(torch.optim.SGD(model.parameters(), lr=1e-2))
    layers = model.transformer.h
    masks = [layer.attn.attention.bias.clone() for layer in layers]
    assert not torch.equal(masks[0], masks[1]), "the check needs layers that see differently"
    net.activate(Script([Subnetwork.of((0, 1, 2, 3))], {0: (Copy(source=0, target=1), Copy(source=0, target=3))}), 0)
    assert all(torch.equal(layer.attn.attention.bias, mask) for layer, mask in zip(layers, masks, strict=True))
    assert torch.equal(layers[1].mlp.c_fc.weight, layers[0].mlp.c_fc.weight)
    tokens = torch.arange(12)[None]
    loaded = GPTNeoForCausalLM(config).eval()
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded(tokens).logits, model.eval()(tokens).logits)


def test_a_saved_buffer_is_copied() -> None:
    layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2))
    net = raptr.attach(nn.Sequential(layers), blocks=layers)
    net.prepare(torch.optim.SGD(layers.parameters(), lr=1e-2))
    layers[0][1].running_mean.fill_(3.0)
    net.activate(Script([Subnetwork.of((0, 1))], {0: (Copy(source=0, target=1),)}), 0)
    assert layers[1][1].running_mean.tolist() == [3.0] * 4


@pytest.mark.parametrize(
    ("copies", "aside"),
    [
        ((Copy(source=0, target=3), Copy(source=1, target=4)), 0),
        ((Copy(source=0, target=1), Copy(source=1, target=2)), 1),
        ((Copy(source=1, target=3), Copy(source=3, target=1)), 2),
    ],
    ids=["growth", "chain", "swap"],
)
def test_only_what_is_itself_changed_is_copied_aside(copies: tuple[Copy, ...], aside: int) -> None:
    """At a boundary of a large model, copies of all layers and moments would not fit beside them."""
    net, model, _ = trained(MLP)
    count = len(list(model.layers[0].parameters()))
    with Counted() as counted:
        grow(net, MLP, *copies)
    assert counted.clones == aside * count * 4  # the parameter, its two moments, its step


class Counted(TorchDispatchMode):
    """Counts copies that take memory."""

    clones = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.clones += func is torch.ops.aten.clone.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("copies", "words"),
    [
        ((Copy(source=0, target=1), Copy(source=2, target=1)), "two copies"),
        ((Copy(source=0, target=1, silent=True), Copy(source=0, target=9)), "does not have"),
    ],
)
def test_wrong_copies_change_nothing(copies: tuple[Copy, ...], words: str) -> None:
    net, model, _ = trained(MLP)
    with left_alone(model), pytest.raises(RaptrError, match=words):
        grow(net, MLP, *copies)


@pytest.mark.parametrize("family", [BERT], ids=["bert"])
def test_a_post_norm_layer_cannot_begin_silent(family: Family) -> None:
    net, model, _ = trained(family)
    with left_alone(model), pytest.raises(RaptrError, match="post-norm"):
        grow(net, family, Copy(source=1, target=4, silent=True))


def test_an_optimizer_of_some_layers_only_gets_no_state_of_others() -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    first = torch.optim.AdamW([p for layer in model.layers[:3] for p in layer.parameters()], lr=1e-2)
    last = torch.optim.AdamW([p for layer in model.layers[3:] for p in layer.parameters()], lr=1e-2)
    for optimizer in (first, last):
        net.prepare(optimizer)
    net.activate(Script([FULL]), 0)
    MLP.loss(model).backward()
    first.step()
    last.step()
    grow(net, MLP, Copy(source=0, target=5), step=1)
    assert len(first.state_dict()["state"]) == len(last.state_dict()["state"]) == 18
    assert all(p not in first.state for p in model.layers[5].parameters())
    assert all(last.state[p]["exp_avg"].count_nonzero() == 0 for p in model.layers[5].parameters())


class Staged(Script):
    """A plan that says where its stages are."""

    def __init__(self, paths: list[Subnetwork], copies: dict[int, tuple[Copy, ...]] | None = None) -> None:
        super().__init__(paths, copies)
        self.asked: list[int] = []

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(Stage(start=2 * i, stop=2 * i + 2, sizes=path.sizes) for i, path in enumerate(self.paths))

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        self.asked.append(step)
        return self.paths[step // 2]


HALF = Subnetwork(FULL.layers, (tuple(LayerPart(scale=0.5) for _ in range(6)),))
BAD: dict[str, tuple[Family, Subnetwork, tuple[Copy, ...], str]] = {
    "layer-out-of-range": (LLAMA, Subnetwork.of((0, 9)), (), "layer 9"),
    "copy-out-of-range": (LLAMA, FULL, (Copy(source=0, target=6),), "does not have"),
    "required-layer-left-out": (T5_ENCODER, Subnetwork.of((1, 2)), (), "cannot be left out"),
    "copies-that-do-not-fit": (T5_ENCODER, FULL, (Copy(source=1, target=0),), "relative_attention_bias"),
    "scale-on-post-norm": (BERT, HALF, (), "post-norm"),
    "silent-on-post-norm": (BERT, FULL, (Copy(source=0, target=1, silent=True),), "post-norm"),
    "silent-on-trust": (MLP, FULL, (Copy(source=0, target=1, silent=True),), "pass inputs= to attach"),
    "scale-on-trust": (MLP, HALF, (), "pass inputs= to attach"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_plan_fails_at_its_first_activation(what: str) -> None:
    family, subnetwork, copies, words = BAD[what]
    model = family.build()
    net = raptr.attach(model, **family.arguments(model))
    first = Subnetwork.of((0, 1))
    with left_alone(model), pytest.raises(RaptrError, match=words) as refusal:
        net.activate(Staged([first, FULL, subnetwork], {4: copies}), 0)
    assert "stage 3 of the plan, from step 4 on" in str(refusal.value)
    net.activate(Staged([first, FULL, FULL], {}), 0)
    # Control: a plan that does not say its stages is found out at the step itself.
    plan = Script([first, first, first, first, subnetwork], {4: copies})
    net.activate(plan, 0)
    with pytest.raises(RaptrError):
        net.activate(plan, 4)


def test_a_plan_is_looked_at_once() -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    plan = Staged([Subnetwork.of((0, 1)), FULL])
    net.activate(plan, 0)
    assert {0, 2} <= set(plan.asked)  # both stages
    plan.asked.clear()
    for step in (0, 1, 2, 3):
        net.activate(plan, step)
    assert plan.asked == [0, 1, 2, 3]


def test_stages_of_another_kind_are_not_looked_at() -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers)
    plan = Script([FULL])
    plan.stages = ("one", "two")
    net.activate(plan, 0)
    assert net.subnetwork == FULL


def test_another_plan_makes_its_own_copies() -> None:
    net, model, optimizers = trained(MLP)
    swap = (Copy(source=1, target=3), Copy(source=3, target=1))
    plans = [Script([FULL], {2: swap}) for _ in range(2)]
    original = model.layers[1].up.weight.detach().clone()
    swapped = []
    for plan in (plans[0], plans[0], plans[1], plans[1], plans[0], plans[1]):
        net.activate(plan, 2)
        swapped.append(not torch.equal(model.layers[1].up.weight, original))
    assert swapped == [True, True, False, False, False, False]
    assert optimizers


def test_growth_in_gpt2() -> None:
    """Right after G_stack's copies, the model is the one that was stacked by hand."""
    net, model, _ = trained(GPT2)
    by_hand = GPT2.build()
    by_hand.load_state_dict(model.state_dict())
    for layer in (3, 4, 5):
        by_hand.transformer.h[layer].load_state_dict(model.transformer.h[layer - 3].state_dict())
    assert not torch.equal(GPT2.loss(model), GPT2.loss(by_hand))  # control
    grow(net, GPT2, *(Copy(source=layer - 3, target=layer) for layer in (3, 4, 5)))
    assert torch.equal(GPT2.loss(model), GPT2.loss(by_hand))
