"""A model that runs narrow is an ordinary model in every other way, and really does less."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import raptr
from raptr import RaptrError
from raptr.model import count_flops
from raptr.plan.layer_part import LayerPart
from raptr.plan.subnetwork import Subnetwork
from reference.families import HUGGING_FACE, Family
from reference.handwritten import Net
from reference.narrow import difference, masked, narrow, subnetwork
from reference.script import Script
from reference.snapshot import Snapshot, left_alone
from reference.wide import CASES, Sized, every_case, one_choice

FEW = ("llama-with-biases", "bert", "gpt2", "t5-gated")
few_cases = pytest.mark.parametrize("name", FEW)


def started(case: Sized, **options: Any) -> tuple[nn.Module, Any, Subnetwork]:
    """An attached model that runs narrow."""
    model = case.build(**options)
    chosen = subnetwork(one_choice(case, model, scaled=True))
    net = raptr.attach(model)
    net.activate(Script([chosen]), 0)
    return model, net, chosen


def full_of(case: Sized) -> Subnetwork:
    return Subnetwork(tuple(tuple(range(layers)) for layers in case.stacks.values()))


@pytest.mark.slow
@every_case
def test_the_shape_says_what_can_be_chosen(name: str) -> None:
    case = CASES[name]
    net = raptr.attach(case.build())
    assert [(s.heads, s.narrow) for s in net.shape.stacks] == [(4, "")] * len(case.stacks)
    assert {s.neurons for s in net.shape.stacks} == {64 if name == "gpt2" else 24}


@few_cases
def test_evaluation_is_full_and_bit_identical(name: str) -> None:
    case = CASES[name]
    plain = case.build()
    model, net, chosen = started(case)
    expected = case.row.loss(plain)
    assert not torch.equal(case.row.loss(model), expected)  # control: it runs narrow
    for each in (model, plain):
        each.eval()
    assert torch.equal(case.row.loss(model), case.row.loss(plain))
    with net.using(chosen):
        narrow_loss = case.row.loss(model)
    assert not torch.allclose(narrow_loss, expected, rtol=1e-4)
    assert torch.equal(case.row.loss(model), case.row.loss(plain))
    model.train()
    assert torch.equal(case.row.loss(model), narrow_loss)


@few_cases
def test_the_full_subnetwork_is_bit_identical_after_a_narrow_one(name: str) -> None:
    case = CASES[name]
    plain = case.build()
    model, net, chosen = started(case)
    every = tuple(
        tuple(LayerPart(heads=tuple(range(4)), neurons=tuple(range(s.neurons or 0))) for _ in range(s.layers))
        for s in net.shape.stacks
    )
    for subnet in (full_of(case), Subnetwork(chosen.layers, every)):
        net.activate(Script([subnet]), 0)
        for each in (model, plain):
            each.zero_grad()
        losses = [case.row.loss(each) for each in (model, plain)]
        for loss in losses:
            loss.backward()
        assert torch.equal(*losses)
        assert all(p.grad.equal(q.grad) for p, q in zip(model.parameters(), plain.parameters(), strict=True))
        net.activate(Script([chosen]), 1)


@few_cases
def test_names_types_and_parameters_stay(name: str) -> None:
    case = CASES[name]
    plain = case.build()
    model, _, _ = started(case)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(tensor.equal(plain.state_dict()[key]) for key, tensor in model.state_dict().items())
    for (key, module), (_, other) in zip(model.named_modules(), plain.named_modules(), strict=True):
        assert isinstance(module, type(other)), key
        assert (type(module).__name__, type(module).__module__) == (type(other).__name__, type(other).__module__)
    assert repr(model) == repr(plain)


@pytest.mark.slow
@few_cases
def test_detach_leaves_no_trace(name: str) -> None:
    case = CASES[name]
    model = case.build()
    loss = case.row.loss(model)
    with left_alone(model) as before:
        net = raptr.attach(model)
        net.activate(Script([subnetwork(one_choice(case, model))]), 0)
        case.row.loss(model).backward()
        classes = [line for line in before.differences(Snapshot.of(model)) if "class" in line]
        assert len(classes) > 5 * sum(case.stacks.values())  # control: projections are changed too
        model.zero_grad()
        net.detach()
    assert torch.equal(case.row.loss(model), loss)


def test_nothing_but_the_layers_is_changed_until_a_width_is_chosen() -> None:
    case = CASES["llama"]
    model = case.build()
    net = raptr.attach(model)
    net.activate(Script([Subnetwork.of((0, 2, 5))]), 0)
    case.row.loss(model)
    assert {type(m) for m in model.modules() if type(m).__name__ == "Linear"} == {nn.Linear}


@pytest.mark.slow
@few_cases
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_are_ordinary_full_models(name: str, how: str) -> None:
    case = CASES[name]
    plain = case.build()
    model, _, _ = started(case)
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(model))
    else:
        stream = io.BytesIO()
        torch.save(model, stream)
        stream.seek(0)
        twin = torch.load(stream, weights_only=False)
    assert Snapshot.of(twin).classes == Snapshot.of(plain).classes
    assert not [key for module in twin.modules() for key in vars(module) if "raptr" in key]
    assert torch.equal(case.row.loss(twin), case.row.loss(plain))
    assert not torch.equal(case.row.loss(model), case.row.loss(plain))


@pytest.mark.slow
@few_cases
def test_what_is_saved_is_the_full_model(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    plain = case.build()
    model, _, _ = started(case)
    model.save_pretrained(tmp_path)
    loaded = type(plain).from_pretrained(tmp_path, dtype=torch.float64).train()
    for other in (loaded, plain):
        other.eval()
    assert torch.equal(case.row.loss(loaded), case.row.loss(plain))


UNSUPPORTED = [row for row in HUGGING_FACE if row.name in ("falcon-7b", "modernbert", "bart", "mixtral", "gemma3")]


@pytest.mark.slow
@pytest.mark.parametrize("row", UNSUPPORTED, ids=lambda row: row.name)
@pytest.mark.parametrize("what", ["heads", "neurons", "head_scale"])
def test_an_unsupported_model_is_refused_untouched(row: Family, what: str) -> None:
    model = row.build()
    net = raptr.attach(model)
    part = LayerPart(**{what: 0.5 if what == "head_scale" else (0,)})
    wanted = Subnetwork(row.full, tuple((part,) * len(path) for path in row.full))
    assert all(s.heads is None and s.neurons is None and "LlamaDecoderLayer" in s.narrow for s in net.shape.stacks)
    with left_alone(model):
        with pytest.raises(RaptrError, match=r"supported are .*LlamaDecoderLayer.*BertLayer.*GPT2Block.*T5Block"):
            net.activate(Script([wanted]), 0)
        with pytest.raises(RaptrError, match="GPT2Block"), net.using(wanted):
            pass
    net.activate(Script([Subnetwork(row.full)]), 0)
    assert torch.equal(row.loss(model), row.loss(row.build()))
    costs = count_flops(model, 8) if row.name != "bart" else count_flops(model, 8, target_length=8)
    assert costs.heads == costs.neurons == ()


def test_a_model_of_ones_own_is_refused() -> None:
    model = Net(3, "attention")
    net = raptr.attach(model, blocks=model.layers)
    part = LayerPart(neurons=(0, 1))
    with left_alone(model), pytest.raises(RaptrError, match="AttentionBlock is not a kind of layer"):
        net.activate(Script([Subnetwork(((0, 1),), ((part, part),))]), 0)


def with_sinks(model: Any) -> None:
    model.model.layers[1].self_attn.sinks = nn.Parameter(torch.zeros(8))


def with_wide_norm(model: Any) -> None:
    model.model.layers[0].self_attn.q_norm = nn.RMSNorm(32)


def with_other_linear(model: Any) -> None:
    class Adapted(nn.Linear):
        pass

    model.model.layers[2].mlp.up_proj = Adapted(16, 24, bias=False)


def with_other_counts(model: Any) -> None:
    mlp = model.model.layers[3].mlp
    mlp.up_proj, mlp.gate_proj, mlp.down_proj = nn.Linear(16, 20), nn.Linear(16, 20), nn.Linear(20, 16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_sinks, "layer 1: LlamaAttention also has sinks"),
        (with_wide_norm, "norms over more than one head"),
        (with_other_linear, "layer 2: .*up_proj is Adapted"),
        (with_other_counts, r"its layers differ.*\(4, 20\), \(4, 24\)"),
    ],
)
def test_what_is_not_known_is_refused(change: Any, reason: str) -> None:
    """Whatever might depend on the number of heads in a way that nobody looked at."""
    model = CASES["llama"].build()
    change(model)
    net = raptr.attach(model)
    assert net.shape.stacks[0].heads is None
    part = LayerPart(heads=(1,))
    with left_alone(model), pytest.raises(RaptrError, match=reason):
        net.activate(Script([Subnetwork(((0,),), ((part,),))]), 0)


def test_more_heads_than_there_are_is_refused() -> None:
    model = CASES["llama"].build()
    net = raptr.attach(model)
    with left_alone(model), pytest.raises(RaptrError, match="heads 0 to 3"):
        net.activate(Script([Subnetwork(((0,),), ((LayerPart(heads=(4,)),),))]), 0)


@pytest.mark.slow
@few_cases
@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_activation_checkpointing(name: str, reentrant: bool) -> None:
    case = CASES[name]
    model = case.build()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    choice = one_choice(case, model, scaled=True)
    reference = masked(case.build(), choice)
    net = raptr.attach(model)
    net.activate(Script([subnetwork(choice)]), 0)
    for each in (model, reference):
        case.row.loss(each).backward()
    assert difference(model, reference, choice) == []


@pytest.mark.slow
@few_cases
def test_depth_and_width_together(name: str) -> None:
    """Some layers skipped, some narrow, one whole; against the shallow model, narrowed."""
    case = CASES[name]
    model = case.build()
    choice = one_choice(case, model, scaled=True)
    kept = {stack: (0, layers - 1) for stack, layers in case.stacks.items()}
    small = case.row.shallow(model, *kept.values())
    fewer = {stack: [choice[stack][layer] for layer in layers] for stack, layers in kept.items()}
    reference = masked(small, fewer)
    net = raptr.attach(model)
    parts = tuple(tuple(one.part for one in chosen) for chosen in fewer.values())
    net.activate(Script([Subnetwork(tuple(kept.values()), parts)]), 0)
    losses = [case.row.loss(each) for each in (model, reference)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses, rtol=1e-7, atol=0)
    for stack, layers in kept.items():
        for new, old in enumerate(layers):
            mine, other = model.get_submodule(f"{stack}.{old}"), reference.get_submodule(f"{stack}.{new}")
            for (key, p), q in zip(mine.named_parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12, msg=f"{stack}.{old}.{key}")
        assert all(p.grad is None for p in model.get_submodule(f"{stack}.1").parameters())


@pytest.mark.slow
@every_case
def test_as_many_multiplications_as_the_smaller_model(name: str) -> None:
    """Those that were said before, those that happen, and those of the smaller model."""
    case = CASES[name]
    model = case.build()
    choice = one_choice(case, model, alike=True)
    small = narrow(model, choice)
    net = raptr.attach(model)
    said = net.flops(12)
    assert said.step(subnetwork(choice), net.shape) == count_flops(small, 12).total < 0.7 * said.total
    assert said.heads[0][0] + said.neurons[0][0] == said.layers[0][0]

    def multiplied(each: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            case.row.loss(each).backward()
        return counter.get_total_flops()

    full = multiplied(model)
    net.activate(Script([subnetwork(choice)]), 0)
    assert multiplied(model) == multiplied(small) < 0.75 * full
    assert net.flops(12) == said


@pytest.mark.slow
@few_cases
def test_as_much_memory_as_the_smaller_model(name: str) -> None:
    """Of activations; the selected rows and columns are copies besides, as large as the smaller model's weights."""
    case = CASES[name]
    model = case.build()
    choice = one_choice(case, model, alike=True)
    small = narrow(model, choice)
    net = raptr.attach(model)

    def kept(each: nn.Module, weights: int) -> int:
        own = {p.data_ptr() for p in each.parameters()}
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if (storage := tensor.untyped_storage()).data_ptr() not in own and tensor.is_floating_point():
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = case.row.loss(each)
            total = sum(seen.values())
        del loss
        return total - weights

    full = kept(model, 0)
    net.activate(Script([subnetwork(choice)]), 0)
    weights = sum(p.numel() * p.element_size() for p in small.parameters())
    assert kept(model, weights) <= kept(small, 0) < 0.95 * full


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced for real, but not handed to a C++ compiler: that takes seconds a graph."""
    original = torch.compile

    @functools.wraps(original)
    def traced(*args: Any, **options: Any) -> Any:
        return original(*args, **{"backend": "aot_eager"} | options)

    monkeypatch.setattr(torch, "compile", traced)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "each"), [("llama", 1), ("bert", 1), ("gpt2", 1), ("t5", 4)])
@pytest.mark.usefixtures("traced_only")
def test_one_graph_for_each_kind_of_layer_and_size(name: str, each: int) -> None:
    """Selections are no part of a graph: other heads and neurons need no other one.

    Full layers need another one after the first narrow ones, whose projections changed their class.
    """
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    case = CASES[name]
    model, eager = (case.build(dtype=torch.float32) for _ in range(2))
    narrow_ones = [subnetwork(one_choice(case, model, scaled=True, seed=seed)) for seed in range(3)]
    given = [full_of(case), *narrow_ones, full_of(case)]
    expected = [each, 2 * each, 2 * each, 2 * each, 3 * each]
    if len(case.stacks) > 1:  # four kinds of layers, whose graphs take long: that others need none is enough
        given, expected = narrow_ones, [each] * 3
    nets = raptr.attach(model, compile=True), raptr.attach(eager)
    graphs = []
    for subnet in given:
        for one, net in zip((model, eager), nets, strict=True):
            net.activate(Script([subnet]), 0)
            one.zero_grad()
            case.row.loss(one).backward()
        graphs.append(counters["stats"]["unique_graphs"])
        for (key, p), q in zip(model.named_parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=key)
    assert graphs == expected
    assert not counters["graph_break"]
    torch._dynamo.reset()
