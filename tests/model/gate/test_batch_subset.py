"""Layers that run on some sequences of the batch: as each sequence by itself on the layers that keep it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import raptr
from raptr import RaptrError
from raptr.model.gate import partial_layer as part_room
from raptr.model.gate.gate import gate_of
from raptr.plan import Subnetwork
from raptr.plan.layer_part import LayerPart, SequenceKey
from raptr.plan.methods import SequenceLayerDropout
from reference.families import (
    ALL,
    ATTENTION,
    BERT,
    HUGGING_FACE,
    KEY_VALUE_SHARING,
    LLAMA,
    T5_ENCODER,
    Family,
    some_families,
)
from reference.handwritten import Net, loss_of, some_tokens
from reference.parts import masked, one_by_one, probe, probed
from reference.script import Script, on
from reference.shallow import gradients

UNKNOWN = ("later", "passing", "later-recorded", "passing-recorded", "making-recorded")
"""Their layers take a bias of their own, of which nobody knows where its sequences are."""
KNOWN = [family for family in ALL if family.name not in UNKNOWN]
known = pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
BY_NAME = {family.name: family for family in ALL}


def wrong(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> list[str]:
    """The parameters whose gradients differ, by more than sums of float32 do (Gemma's norms)."""
    assert found.keys() == expected.keys()

    def differ(grad: Tensor | None, other: Tensor | None) -> bool:
        if grad is None or other is None:
            return grad is not other
        return bool((grad - other).abs().max() > 1e-5 * other.abs().max() + 1e-9)

    return [name for name, grad in found.items() if differ(grad, expected[name])]


def compare(family: Family, model: nn.Module, subnetwork: Subnetwork, batch: dict[str, Any]) -> tuple[float, list[str]]:
    """By how much outputs differ from those of sequences one by one, and where gradients do."""
    model.zero_grad()
    output = probed(family, model, batch)
    (output * probe(output)).sum().backward()
    expected, grads = one_by_one(family, family.build(), subnetwork, batch)
    return (output - expected).abs().max().item(), wrong(gradients(model), grads)


@known
def test_outputs_and_gradients_are_those_of_each_sequence_by_itself(
    family: Family, attached: tuple[nn.Module, Any]
) -> None:
    model, net = attached
    some = masked(family.full)
    sizes = [len(p.rows(layer, 3)) for i in range(len(some.layers)) for layer, p in some.kept(i) if p.sequences]
    assert set(sizes) >= {1, 2}
    net.activate(Script([some]), 0)
    error, lines = compare(family, model, some, family.batch())
    assert error < 1e-6
    assert lines == []


@pytest.mark.parametrize("family", [LLAMA, BERT, BY_NAME["t5"], BY_NAME["bloom"]], ids=lambda family: family.name)
def test_other_sequences_are_noticed(family: Family, attached: tuple[nn.Module, Any]) -> None:
    """Negative control."""
    model, net = attached
    some, other = masked(family.full), masked(family.full, keep=0.3)
    assert some != other
    net.activate(Script([other]), 0)
    error, lines = compare(family, model, some, family.batch())
    assert error > 1e-3
    assert len(lines) > len(list(model.parameters())) / 3


@pytest.mark.parametrize(
    "family", [LLAMA, BY_NAME["gpt2"], BY_NAME["t5"], BY_NAME["attention-recorded"]], ids=lambda family: family.name
)
def test_with_factors_and_skipped_layers(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    some = masked(family.path, scale=lambda layer: 1.6 - 0.2 * layer)
    net.activate(Script([some]), 0)
    error, lines = compare(family, model, some, family.batch())
    assert error < 1e-6
    assert lines == []


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    "family", [LLAMA, BY_NAME["gpt2"], BY_NAME["attention-recorded"]], ids=lambda family: family.name
)
def test_updates_are_divided_by_the_probability_to_run(
    family: Family, attached: tuple[nn.Module, Any], size: int
) -> None:
    """Of two or three sequences, which is more than the share; the share as divisor is noticed."""
    model, net = attached
    batch = {k: v[:size] if isinstance(v, Tensor) else v for k, v in family.batch().items()}
    some = masked(family.full, keep=0.3, inverse=True)
    net.activate(Script([some]), 0)
    error, lines = compare(family, model, some, batch)
    assert error < 1e-6
    assert lines == []
    net.activate(Script([masked(family.full, scale=lambda layer: 1 / 0.3 if layer else 1.0, keep=0.3)]), 0)
    error, lines = compare(family, model, some, batch)
    assert error > 1e-3
    assert lines


@pytest.mark.parametrize("settings", [{}, {"scaling": "none"}, {"redraw": "step"}])
def test_one_sequence_is_rejected_at_the_first_step(settings: dict[str, Any]) -> None:
    """A last batch of one sequence, later, runs whole and unscaled, which its probability of 1 says."""
    model = LLAMA.build()
    net = raptr.attach(model)
    plan = SequenceLayerDropout(rate=0.9, **settings).plan(net.shape, 9)
    one = {k: v[:1] if isinstance(v, Tensor) else v for k, v in LLAMA.batch().items()}
    net.activate(plan, 0)
    with pytest.raises(RaptrError, match=r"nothing would be skipped\. Use micro-batches of at least 2 sequences"):
        model(**one)
    model(**LLAMA.batch())
    plain = LLAMA.build()
    assert torch.equal(probed(LLAMA, model, one), probed(LLAMA, plain, one))
    net.activate(plan, 8)  # control: nothing is skipped at the last step
    assert torch.equal(probed(LLAMA, model, LLAMA.batch()), probed(LLAMA, plain, LLAMA.batch()))


@pytest.mark.parametrize(
    "family", [BERT, BY_NAME["falcon-rw"], BY_NAME["bloom"], BY_NAME["gemma3"]], ids=lambda family: family.name
)
def test_as_many_sequences_as_tokens(family: Family, attached: tuple[nn.Module, Any]) -> None:
    """What counts sequences is told by name: here every dimension is 6."""
    model, net = attached
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(61, (6, 6), generator=generator)
    mask = torch.ones_like(tokens)
    mask[2, 4:] = 0
    mask[5, 3:] = 0
    batch = {"input_ids": tokens, "attention_mask": mask}
    batch |= {"use_cache": False} if "use_cache" in family.batch() else {}
    some = masked(family.full)
    net.activate(Script([some]), 0)
    error, lines = compare(family, model, some, batch)
    assert error < 1e-6
    assert lines == []


@known
def test_only_the_kept_sequences_are_computed(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    some = masked(family.full)
    sizes: dict[str, int] = {}
    handles = []
    for name in family.named_layers(family.full):
        layer = model.get_submodule(name[:-1])
        argument = gate_of(layer).signature.hidden

        def seen(_: Any, args: Any, kwargs: Any, name: str = name, argument: Any = argument) -> None:
            sizes[name] = argument.of(args, kwargs).shape[0]

        handles.append(layer.register_forward_pre_hook(seen, with_kwargs=True))
    net.activate(Script([some]), 0)
    family.loss(model)
    for handle in handles:
        handle.remove()
    expected = {
        f"{stack}.{layer}.": len(p.rows(layer, 3)) for i, stack in enumerate(family.stacks) for layer, p in some.kept(i)
    }
    assert sizes == expected


@pytest.mark.parametrize("family", [LLAMA, BERT, T5_ENCODER], ids=lambda family: family.name)
def test_all_sequences_are_the_whole_layer(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    net.activate(on(*family.path), 0)
    expected = family.loss(model)
    net.activate(Script([masked(family.path, keep=1.0)]), 0)
    assert torch.equal(family.loss(model), expected)


def test_a_required_layer_runs_on_the_whole_batch_for_what_it_makes() -> None:
    """T5's first layer makes the position bias of all; a sequence that it does not keep passes it by."""
    model, net = T5_ENCODER.build(), None
    net = raptr.attach(model)
    part = LayerPart(share=0.5, sequences=SequenceKey(seed=1, step=0))
    kept = part.rows(0, 3)
    assert 0 < len(kept) < 3
    some = Subnetwork(((0, 2, 3),), ((part, LayerPart(), LayerPart()),))
    net.activate(Script([some]), 0)
    batch = T5_ENCODER.batch()
    output = probed(T5_ENCODER, model, batch)
    (output * probe(output)).sum().backward()
    total: dict[str, Tensor] = {}
    for number in range(3):
        small = T5_ENCODER.shallow(T5_ENCODER.build(), (0, 2, 3))
        first = small.encoder.block[0]
        if number not in kept:  # with zeros there, it returns its input, and still makes the bias
            with torch.no_grad():
                first.layer[0].SelfAttention.o.weight.zero_()
                first.layer[1].DenseReluDense.wo.weight.zero_()
            first.layer[0].SelfAttention.o.weight.requires_grad_(False)
            first.layer[1].DenseReluDense.wo.weight.requires_grad_(False)
        one = probed(T5_ENCODER, small, {k: v[number : number + 1] for k, v in batch.items()})
        torch.testing.assert_close(one[0], output[number], rtol=1e-9, atol=1e-9)
        (one * probe(output)[number]).sum().backward()
        for name, p in small.named_parameters():
            if p.grad is not None:
                total[name] = total.get(name, 0) + p.grad
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    for name in (bias, "encoder.block.0.layer.1.DenseReluDense.wi.weight", "shared.weight"):
        torch.testing.assert_close(model.get_parameter(name).grad, total[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", [BY_NAME[name] for name in UNKNOWN], ids=lambda family: family.name)
def test_an_argument_that_nobody_knows_is_refused_by_name(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    net.activate(Script([masked(family.full)]), 0)
    with pytest.raises(RaptrError, match=r"'bias' \(a tensor of \(3, 10, 1\)\)"):
        family.loss(model)


def test_it_can_be_made_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from raptr.model.gate.batch_subset import BATCH

    family = BY_NAME["passing-recorded"]
    monkeypatch.setitem(BATCH, "bias", {3: 0})
    model = family.build()
    net = raptr.attach(model, **family.arguments(model))
    some = masked(family.full)
    net.activate(Script([some]), 0)
    error, lines = compare(family, model, some, family.batch())
    assert error < 1e-6
    assert lines == []


class Packed(Net):
    """Calls its layers as models without padding do."""

    def __init__(self) -> None:
        super().__init__(3, "mlp")
        self.given: Any = None

    def through(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, **self.given)
        return x


class Accepting(nn.Module):
    """Takes anything beside its input."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(16, 16)

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        return x + self.map(x)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cu_seqlens": torch.tensor([0, 4])}, "'cu_seqlens'"),
        ({"past_key_values": object()}, "use_cache=False"),
        ({"attention_mask": torch.ones(2, 1, 1, 10)}, r"\(2, 1, 1, 10\), for 3 sequences"),
        ({"position_embeddings": (torch.ones(2, 3, 4, 3, 10), 1)}, "'position_embeddings'"),
        ({"shared": {"layer": torch.ones(3)}}, "'shared'"),
    ],
)
def test_what_cannot_be_cut_is_refused(given: dict[str, Any], words: str) -> None:
    model = Packed()
    model.layers = nn.ModuleList(Accepting() for _ in range(3))
    model.given = given
    net = raptr.attach(model, blocks=model.layers)
    net.activate(Script([masked(((0, 1, 2),), keep=0.3)]), 0)
    with pytest.raises(RaptrError, match=words):
        loss_of(model, some_tokens())
    model.given = {"use_cache": False, "dropout_p": 0.0, "kind": "x", "attention_mask": None, "layer_head_mask": None}
    assert torch.isfinite(loss_of(model, some_tokens()))


def test_layers_whose_first_dimension_is_not_the_batch_are_refused() -> None:
    model = nn.Sequential(nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2)))
    net = raptr.attach(model, blocks=model[0])
    with pytest.raises(RaptrError, match="batch_first"):
        net.activate(Script([masked(((0, 1),))]), 0)


def test_layers_that_share_keys_and_values_are_refused() -> None:
    family = KEY_VALUE_SHARING[0]
    net = raptr.attach(family.build())
    with pytest.raises(RaptrError, match="later layers also read"):
        net.activate(Script([masked(family.full)]), 0)


def test_a_routers_loss_is_right_or_refused() -> None:
    """Without a mask it counts the tokens that were routed; with one it would match them wrongly."""
    family = BY_NAME["mixtral"]
    model = family.build()
    net = raptr.attach(model)
    net.activate(Script([masked(family.full)]), 0)
    batch = family.batch()
    assert torch.isfinite(model(**batch).aux_loss)
    mask = torch.ones_like(batch["input_ids"])
    mask[1, 6:] = 0
    with pytest.raises(RaptrError, match="output_router_logits"):
        model(**batch, attention_mask=mask)
    assert torch.isfinite(model(**{**batch, "output_router_logits": False}, attention_mask=mask).loss)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_a_checkpoint_around_the_layer_sees_the_same_sequences(checkpointed: bool) -> None:
    family = BY_NAME["attention-recorded"]
    model = family.build(checkpointed=checkpointed)
    net = raptr.attach(model, **family.arguments(model))
    some = masked(family.full)
    net.activate(Script([some]), 0)
    runs = []
    model.layers[3].up.register_forward_hook(lambda _, args, output: runs.append(tuple(output.shape)))
    error, lines = compare(family, model, some, family.batch())
    assert error < 1e-9
    assert lines == []
    assert len(set(runs)) == 1
    assert len(runs) == (2 if checkpointed else 1)


@pytest.mark.slow
@some_families
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_the_models_own_checkpointing_sees_the_same_sequences(family: Family) -> None:
    model = family.build()  # its own: switched on and off again, checkpointing leaves marks in a model
    net = raptr.attach(model, **family.arguments(model))
    some = masked(family.full)
    net.activate(Script([some]), 0)
    runs: list[int] = []
    inner = next(m for m in model.get_submodule(family.stack)[1].modules() if isinstance(m, nn.Linear | nn.LayerNorm))
    handle = inner.register_forward_hook(lambda *_: runs.append(1))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        error, lines = compare(family, model, some, family.batch())
    finally:
        handle.remove()
        model.gradient_checkpointing_disable()
    assert error < 1e-6
    assert lines == []
    assert len(runs) == 2


def test_every_rank_has_sequences_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    family = ATTENTION
    model = family.build()
    net = raptr.attach(model, blocks=model.layers)
    some = masked(family.full)
    kept = [[p.rows(layer, 3, rank) for layer, p in some.kept(0) if p.sequences] for rank in (0, 1)]
    assert kept[0] != kept[1]
    net.activate(Script([some]), 0)
    for rank in (1, 0):
        monkeypatch.setattr(part_room, "own_rank", lambda rank=rank: rank)
        output = probed(family, model, family.batch())
        expected, _ = one_by_one(family, family.build(), some, family.batch(), rank)
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-12)
        other, _ = one_by_one(family, family.build(), some, family.batch(), 1 - rank)
        assert not torch.allclose(output, other, rtol=1e-3)  # control


def test_evaluation_is_whole_unless_forced() -> None:
    model, plain = LLAMA.build().eval(), LLAMA.build().eval()
    net = raptr.attach(model)
    some = masked(LLAMA.full)
    net.activate(Script([some]), 0)
    whole = LLAMA.logits(plain)
    assert torch.equal(LLAMA.logits(model), whole)
    with net.using(some):
        assert not torch.allclose(LLAMA.logits(model), whole)
    assert torch.equal(LLAMA.logits(model), whole)


@pytest.mark.parametrize(
    "family", [family for family in HUGGING_FACE if family.name in ("llama", "t5")], ids=lambda family: family.name
)
def test_dropped_sequences_get_no_gradient_of_the_layer(family: Family, attached: tuple[nn.Module, Any]) -> None:
    """A loss of one sequence reaches the layers that keep it, and no other."""
    model, net = attached
    some = masked(family.full)
    net.activate(Script([some]), 0)
    for number in range(3):
        model.zero_grad()
        probed(family, model, family.batch())[number].square().sum().backward()
        for i, stack in enumerate(family.stacks):
            for layer, p in some.kept(i):
                keeps = number in p.rows(layer, 3)
                grads = [q.grad for q in model.get_submodule(f"{stack}.{layer}").parameters()]
                assert any(g is not None and g.abs().max() > 0 for g in grads) == keeps


@pytest.mark.parametrize("family", [LLAMA, BY_NAME["gpt2"]], ids=lambda family: family.name)
def test_under_autocast(family: Family) -> None:
    """The layer's result and its input can be of different types."""
    model = family.build(dtype=torch.float32)
    net = raptr.attach(model)
    some = masked(family.full, scale=lambda layer: 0.5 + 0.1 * layer)
    net.activate(Script([some]), 0)
    whole = probed(family, model, family.batch()).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = probed(family, model, family.batch())
        output.float().square().mean().backward()
    torch.testing.assert_close(output.float(), whole, rtol=0.1, atol=0.1)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for layer in family.layers(model) for p in layer.parameters())


@pytest.mark.slow
def test_compiled_layers_run_on_any_number_of_sequences() -> None:
    """One graph for one sequence and one for more, whatever their number: torch takes sizes as open when they vary."""
    torch._dynamo.reset()
    model = ATTENTION.build()
    for layer in model.layers:
        layer.compile(backend="eager")
    net = raptr.attach(model, blocks=model.layers)
    plan = [masked(ATTENTION.full, keep=keep) for keep in (0.2, 0.5, 0.8, 0.6, 0.3)]
    expected = [one_by_one(ATTENTION, ATTENTION.build(), some, ATTENTION.batch())[0] for some in plan]
    torch._dynamo.utils.counters.clear()
    for step, some in enumerate(plan):
        net.activate(Script([some]), 0)
        output = probed(ATTENTION, model, ATTENTION.batch())
        torch.testing.assert_close(output, expected[step], rtol=1e-9, atol=1e-12)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    torch._dynamo.reset()
