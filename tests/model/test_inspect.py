"""What `inspect_model` says of a model, against numbers written down by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from raptr import RaptrError, attach
from raptr.model import count_flops, inspect_model
from reference.handwritten import MLPBlock, Net, some_tokens
from reference.snapshot import Snapshot, untouched

TEXT: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 16,
    "d_ff": 40,
    "d_kv": 8,
    "num_heads": 2,
    "num_layers": 3,
    "num_decoder_layers": 4,
}
BART: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
EXPERTS = {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
GPT2 = {"vocab_size": 61, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64}
OPT = {"ffn_dim": 40, "word_embed_proj_dim": 16}
FALCON = {"alibi": False, "new_decoder_architecture": False}
VIT = {"image_size": 16, "patch_size": 4}


def made(model: str, config: str, **options: Any) -> nn.Module:
    """A tiny transformers model by the names of its classes, on the meta device."""
    with torch.device("meta"):
        return getattr(transformers, model)(getattr(transformers, config)(**options))


# name: (model, configuration, its values, per stack: name, layers, heads, key-value heads, neurons)
MODELS: dict[str, tuple[str, str, dict[str, Any], list[tuple[str, int, int, int, int]]]] = {
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**TEXT, "num_key_value_heads": 2},
        [("model.layers", 3, 4, 2, 24)],
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2, [("transformer.h", 3, 4, 4, 64)]),
    "bert": ("BertForMaskedLM", "BertConfig", TEXT, [("bert.encoder.layer", 3, 4, 4, 24)]),
    "opt": ("OPTForCausalLM", "OPTConfig", {**TEXT, **OPT}, [("model.decoder.layers", 3, 4, 4, 40)]),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", TEXT, [("model.layers", 3, 4, 4, 24)]),
    "falcon": ("FalconForCausalLM", "FalconConfig", {**TEXT, **FALCON}, [("transformer.h", 3, 4, 1, 64)]),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**TEXT, **EXPERTS}, [("model.layers", 3, 4, 2, 24)]),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        T5,
        [("encoder.block", 3, 2, 2, 40), ("decoder.block", 4, 2, 2, 40)],
    ),
    "bart": (
        "BartForConditionalGeneration",
        "BartConfig",
        BART,
        [("model.encoder.layers", 2, 2, 2, 24), ("model.decoder.layers", 3, 4, 4, 40)],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_of_each_stack(name: str) -> None:
    model, config, values, expected = MODELS[name]
    found = inspect_model(made(model, config, **values), length=8)
    assert [(s.name, s.layers, s.heads, s.key_value_heads, s.neurons) for s in found.stacks] == expected
    assert {stack.hidden_size for stack in found.stacks} == {16}
    assert found.model == model


def test_parameters_are_counted_once_and_by_part() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    found = inspect_model(model, length=8)
    layer = (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16) + 2 * 32
    assert found.embedding_parameters == 61 * 16 + 64 * 16  # the head is tied: no more than these
    assert found.stacks[0].parameters == 3 * layer
    assert found.parameters == found.embedding_parameters + 3 * layer + 32


def test_an_image_model_has_no_length() -> None:
    found = inspect_model(made("ViTForImageClassification", "ViTConfig", **{**_without_tokens(), **VIT}), length=99)
    assert found.length is None
    tokens, width, inner = 17, 16, 24
    layer = 4 * 2 * tokens * width * width + 2 * 2 * tokens * tokens * width + 2 * 2 * tokens * width * inner
    assert found.costs is not None
    assert found.costs.layers == ((3.0 * layer,) * 3,)


def _without_tokens() -> dict[str, Any]:
    return {key: TEXT[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")}


@pytest.mark.slow
def test_the_length_is_what_was_asked_for_or_what_the_model_takes() -> None:
    model = made("BertForMaskedLM", "BertConfig", **TEXT)
    assert inspect_model(model).length == 64
    assert inspect_model(model, length=8).length == 8
    assert inspect_model(model, length=8).costs == count_flops(model, 8)
    assert inspect_model(made("T5ForConditionalGeneration", "T5Config", **T5)).length == 512


def test_what_is_required_is_said_with_the_reason() -> None:
    found = inspect_model(made("T5ForConditionalGeneration", "T5Config", **T5), length=8)
    assert [[layer for layer, _ in stack.required] for stack in found.stacks] == [[0], [0]]
    assert "position_bias" in found.stacks[0].required[0][1]
    assert inspect_model(made("BertForMaskedLM", "BertConfig", **TEXT), length=8).stacks[0].required == ()


@pytest.mark.slow
def test_the_half_depth_schedule_is_the_papers() -> None:
    options = {**TEXT, "num_hidden_layers": 12}
    found = inspect_model(made("BertModel", "BertConfig", **options), length=8)
    assert found.costs is not None
    layers, rest = found.costs.all_layers, found.costs.other
    assert found.half_depth == pytest.approx((0.75 * layers + rest) / (layers + rest), rel=1e-12)
    assert inspect_model(made("BertModel", "BertConfig", **{**TEXT, "num_hidden_layers": 1})).half_depth == 1.0


def test_a_handwritten_module_is_inspected_with_inputs() -> None:
    model = Net(4, "attention")
    found = inspect_model(model, blocks=model.layers, inputs={"tokens": some_tokens()})
    (stack,) = found.stacks
    assert (stack.name, stack.layers, stack.kinds) == ("layers", 4, ("AttentionBlock",))
    assert (stack.hidden_size, stack.heads, stack.key_value_heads, stack.neurons) == (None,) * 4
    assert found.costs is not None
    assert found.costs.all_layers > 0


def test_what_cannot_be_counted_is_said() -> None:
    model = Net(4, "mlp")
    found = inspect_model(model, length=8, blocks=model.layers)
    assert found.costs is None
    assert found.half_depth is None
    assert "inputs=" in found.uncounted


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Net(4, "mlp"), ("Net", "blocks=", "layers (4 x MLPBlock)")),
        (
            lambda: made("AlbertForMaskedLM", "AlbertConfig", **{**TEXT, "embedding_size": 8}),
            ("AlbertForMaskedLM", "3 times", "share their weights", "albert_layer_groups (1 x AlbertLayerGroup)"),
        ),
        (lambda: nn.ModuleDict({"a": MLPBlock(4, 4)}), ("ModuleDict", "no ModuleList at all")),
    ],
    ids=["by-hand", "albert", "no-list"],
)
def test_a_model_that_cannot_be_handled_is_refused_with_what_was_seen(build: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(RaptrError) as refusal:
        inspect_model(build())
    for word in words:
        assert word in str(refusal.value)
    assert str(refusal.value).count("Seen: ") == 1


def test_inspecting_changes_nothing() -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT)).train()
    before, config, state = Snapshot.of(model), copy.deepcopy(model.config.to_dict()), torch.get_rng_state()
    inspect_model(model, length=8)
    assert untouched(model, before)
    assert model.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), state)
    attach(model)
