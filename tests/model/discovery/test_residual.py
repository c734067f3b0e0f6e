"""How a layer adds to its input is seen, never told by its class: pre-norm or post-norm, and what silences it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import raptr
from helpers.families_in_docs import rows
from raptr import RaptrError
from raptr.model import find_layers
from raptr.plan import Copy, Subnetwork
from raptr.plan.layer_part import LayerPart
from reference.families import HUGGING_FACE, OPT_POST, Family
from reference.script import Script, on
from reference.snapshot import left_alone

ATTENTION_AND_MLP = {
    "roberta-prelayernorm": "attention.output.dense output.dense",
    "modernbert": "attn.Wo mlp.Wo",
    "vit": "attention.o_proj mlp.fc2",
    "gpt2": "attn.c_proj mlp.c_proj",
    "gpt-neox": "attention.dense mlp.dense_4h_to_h",
    "opt": "self_attn.out_proj fc2",
    "bloom": "self_attention.dense mlp.dense_4h_to_h",
    "falcon-7b": "self_attention.dense mlp.dense_4h_to_h",
    "falcon-40b": "self_attention.dense mlp.dense_4h_to_h",
    "falcon-rw": "self_attention.dense mlp.dense_4h_to_h",
    "llama": "self_attn.o_proj mlp.down_proj",
    "qwen3": "self_attn.o_proj mlp.down_proj",
    "gemma3": "self_attn.o_proj mlp.down_proj",
    "mixtral": "self_attn.o_proj mlp.experts.down_proj",
    "qwen3-moe": "self_attn.o_proj mlp.experts.down_proj",
    "t5-encoder": "layer.0.SelfAttention.o layer.1.DenseReluDense.wo",
    "t5": "layer.0.SelfAttention.o layer.1.DenseReluDense.wo",
    "t5-gated": "layer.0.SelfAttention.o layer.1.DenseReluDense.wo",
}
"""The families whose layers return their input plus an update, with the last maps of the first layer's branches."""
POST_NORM = {
    *("bert", "roberta", "deberta-v2", "electra-discriminator", "electra-generator", "distilbert", "bart"),
    "opt-post-norm",
}
RESIDUAL = [family for family in HUGGING_FACE if family.name in ATTENTION_AND_MLP]
residual = pytest.mark.parametrize("family", RESIDUAL, ids=lambda family: family.name)
EVERYONE = [*HUGGING_FACE, OPT_POST]


def scaled(family: Family, scale: float = 0.5) -> Subnetwork:
    """Every layer, with this factor."""
    return Subnetwork(family.full, tuple(tuple(LayerPart(scale=scale) for _ in path) for path in family.full))


def test_the_table_is_whole() -> None:
    assert {family.name for family in EVERYONE} == ATTENTION_AND_MLP.keys() | POST_NORM
    assert not ATTENTION_AND_MLP.keys() & POST_NORM


def test_the_docs_say_which_families_are_post_norm() -> None:

    assert {name for name, cells in rows().items() if "post-norm" in cells[2]} == POST_NORM - {"opt-post-norm"}


@pytest.mark.parametrize("family", EVERYONE, ids=lambda family: family.name)
def test_pre_norm_and_post_norm_are_told_apart(family: Family) -> None:
    seen = find_layers(family.build()).verified
    expected = family.name in ATTENTION_AND_MLP
    assert [[layer.residual for layer in stack.branches] for stack in seen] == [
        [expected] * layers for layers in family.stacks.values()
    ]
    found = seen[0].branches[0].outputs
    assert (found is not None) == expected
    if found is not None:
        modules = dict.fromkeys(name.removesuffix(".weight").removesuffix(".bias") for name in found)
        assert list(modules) == ATTENTION_AND_MLP[family.name].split()


@pytest.mark.parametrize("family", EVERYONE, ids=lambda family: family.name)
def test_a_scale_is_taken_or_refused(family: Family) -> None:
    model = family.build()
    net = raptr.attach(model)
    net.activate(on(*family.path), 0)
    with left_alone(model):
        if family.name in ATTENTION_AND_MLP:
            with net.using(scaled(family)):
                pass
            return
        for use in (
            lambda: net.activate(Script([scaled(family)]), 0),
            lambda: net.using(scaled(family)).__enter__(),
        ):
            with pytest.raises(RaptrError, match="post-norm") as refusal:
                use()
            assert "scaling='none'" in str(refusal.value)
            assert family.stack in str(refusal.value)
        assert net.subnetwork == Subnetwork.of(*family.path)
        net.activate(Script([scaled(family, 1.0)]), 0)  # nothing is asked


@residual
def test_a_silenced_layer_returns_its_input(family: Family) -> None:
    """With zeros in what was seen, exactly; otherwise not."""
    model = family.build()
    seen, checked = find_layers(model).verified, []
    for stack, name in zip(seen, family.stacks, strict=True):
        for layer, branches in zip(model.get_submodule(name), stack.branches, strict=True):
            assert branches.outputs is not None
            checked.append((layer, [layer.get_parameter(parameter) for parameter in branches.outputs]))
    returned: list[bool] = []

    def compare(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        entered = args[0] if args else kwargs["hidden_states"]
        returned.append(torch.equal(output if isinstance(output, Tensor) else output[0], entered))

    for layer, _ in checked:
        layer.register_forward_hook(compare, with_kwargs=True)
    family.logits(model)
    assert returned == [False] * len(checked)  # control
    returned.clear()
    for layer, parameters in checked:
        assert 1 < len(parameters) < len(list(layer.parameters()))
        with torch.no_grad():
            for parameter in parameters:
                parameter.zero_()
    family.logits(model)
    assert returned == [True] * len(checked)


@residual
def test_no_part_of_what_was_seen_is_needless(family: Family) -> None:
    """Control: with one of the parameters as it was, the layer does not return its input."""
    model = family.build()
    outputs = find_layers(model).verified[0].branches[1].outputs
    layer = model.get_submodule(family.stack)[1]
    same: list[bool] = []
    layer.register_forward_hook(
        lambda _, args, output: same.append(torch.equal(output if isinstance(output, Tensor) else output[0], args[0]))
    )
    values = {name: layer.get_parameter(name).detach().clone() for name in outputs}
    for left in outputs:
        with torch.no_grad():
            for name in outputs:
                layer.get_parameter(name).copy_(values[name] if name == left else torch.zeros_like(values[name]))
        family.logits(model)
    assert same == [False] * len(outputs)


class Block(nn.Module):
    """A layer of one kind, by hand."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.norm, self.post = nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.down, self.gate = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 8)
        self.bend = nn.Conv1d(8, 8, 1)
        self.size = nn.Parameter(torch.full((8,), 0.5))
        self.shift = nn.Parameter(torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return KINDS[self.kind][0](self, x)

    def update(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


DOWN = ("down.weight", "down.bias")
KINDS: dict[str, tuple[Any, bool, tuple[str, ...] | None]] = {
    "pre": (lambda b, x: x + b.update(x), True, DOWN),
    "other-order": (lambda b, x: b.update(x) + x, True, DOWN),
    "into-a-view": (lambda b, x: b.update(x).add_(x), False, None),  # autograd then says less: refused, not guessed
    "layer-scale": (lambda b, x: x + b.size * b.update(x), True, DOWN),
    "half": (lambda b, x: x + 0.5 * b.update(x), True, DOWN),
    "sandwich": (lambda b, x: x + b.post(b.update(x)), True, ("post.bias", *DOWN)),
    "shifted": (lambda b, x: x + b.update(x) + b.shift, True, ("shift", *DOWN)),
    "bent": (lambda b, x: x + b.bend(b.norm(x).mT).mT, True, ("bend.weight", "bend.bias")),
    "gated": (lambda b, x: x + torch.sigmoid(b.gate(x)) * b.update(x), True, DOWN),
    "flattened": (
        lambda b, x: (x.reshape(-1, 8) + b.update(x).reshape(-1, 8)).view(x.shape),
        True,
        DOWN,
    ),
    "fused": (
        lambda b, x: torch.addmm(x.reshape(-1, 8), b.up(b.norm(x)).flatten(0, 1), b.down.weight.mT).view(x.shape),
        True,
        ("down.weight",),
    ),
    "mean-of-words": (lambda b, x: x + b.norm(x).softmax(-1), True, None),
    "constant": (lambda b, x: x + b.update(x) + torch.ones(8), True, None),
    "post": (lambda b, x: b.post(x + b.update(x)), False, None),
    "no-residual": (lambda b, x: b.update(x), False, None),
    "scaled-input": (lambda b, x: 0.5 * x + b.update(x), False, None),
    "alpha": (lambda b, x: torch.add(b.update(x), x, alpha=0.5), False, None),
    "turned": (lambda b, x: x.mT.mT + b.update(x), False, None),
    "highway": (lambda b, x: torch.lerp(x, b.update(x), torch.sigmoid(b.gate(x))), False, None),
}


class OfBlocks(nn.Module):
    """Features in, features out: what enters the first layer has no history."""

    def __init__(self, kind: str, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(kind) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_layers(kind: str) -> None:
    _, is_residual, outputs = KINDS[kind]
    model, x = OfBlocks(kind), torch.randn(2, 3, 8)
    (seen,) = find_layers(model, model.layers, {"x": x}).verified
    for branches in seen.branches:
        assert branches.residual is is_residual
        found = None if branches.outputs is None else set(branches.outputs)
        assert found == (None if outputs is None else set(outputs))
    assert x.grad_fn is None
    assert not x.requires_grad
    if outputs is not None:
        assert not torch.equal(model.layers[0](x), x)
        with torch.no_grad():
            for name in outputs:
                model.layers[0].get_parameter(name).zero_()
        assert torch.equal(model.layers[0](x), x)


def test_layers_taken_on_trust_are_not_scaled_or_silenced() -> None:
    model = OfBlocks("pre")
    net = raptr.attach(model, blocks=model.layers)
    net.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    whole = Subnetwork.of((0, 1, 2))
    half = Subnetwork(whole.layers, ((LayerPart(), LayerPart(scale=0.5), LayerPart()),))
    with left_alone(model):
        with pytest.raises(RaptrError, match="pass inputs= to attach"):
            net.activate(Script([half]), 0)
        with pytest.raises(RaptrError, match="pass inputs= to attach"):
            net.activate(Script([whole], {0: (Copy(source=0, target=1, silent=True),)}), 0)
    net.activate(Script([whole]), 0)
