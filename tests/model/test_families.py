"""Models beyond the promised three: trained rightly on a path, or refused. Nothing in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from reference.families import causal_batch
from reference.handwritten import some_tokens
from reference.script import Script
from reference.shallow import expected_gradients, gradients, shallow
from reference.snapshot import Snapshot, untouched

RaptrError = raptr.RaptrError
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 6,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    """A builder of a tiny transformers model by the names of its classes."""

    def build() -> nn.Module:
        import transformers

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = getattr(transformers, model)(getattr(transformers, config)(**(SIZES | options)))
            made = made.double().train()
            with torch.no_grad():
                for parameter in made.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return made

    return build


def seq2seq_batch() -> dict[str, Any]:
    """Inputs and labels of an encoder-decoder."""
    return {"input_ids": some_tokens() + 0, "labels": some_tokens(seed=6), "use_cache": False}


def image_batch() -> dict[str, Any]:
    """Images of 8 x 8 and their classes."""
    generator = torch.Generator().manual_seed(3)
    return {
        "pixel_values": torch.randn((3, 3, 8, 8), generator=generator, dtype=torch.float64),
        "labels": torch.tensor([0, 1, 1]),
    }


def routed_batch() -> dict[str, Any]:
    """Inputs of a mixture of experts, its router loss included."""
    return {**causal_batch(), "output_router_logits": True}


def plain_batch() -> dict[str, Any]:
    """Inputs and labels of an encoder."""
    return {"input_ids": some_tokens(), "labels": some_tokens(seed=6)}


# name: (builder, batch, the stacks and the layers to keep in each)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]], dict[str, tuple[int, ...]]]] = {
    "qwen3": (
        make("Qwen3ForCausalLM", "Qwen3Config", num_key_value_heads=1, head_dim=8),
        causal_batch,
        {"model.layers": (0, 2, 5)},
    ),
    "gemma3": (
        make(
            "Gemma3ForCausalLM",
            "Gemma3TextConfig",
            num_key_value_heads=1,
            head_dim=8,
            sliding_window=4,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        ),
        causal_batch,
        {"model.layers": (0, 2, 3, 5)},
    ),
    "gptneox": (
        make("GPTNeoXForCausalLM", "GPTNeoXConfig", hidden_dropout=0.0, attention_dropout=0.0),
        causal_batch,
        {"gpt_neox.layers": (0, 2, 5)},
    ),
    "opt": (
        make("OPTForCausalLM", "OPTConfig", ffn_dim=24, word_embed_proj_dim=16, dropout=0.0),
        causal_batch,
        {"model.decoder.layers": (0, 2, 5)},
    ),
    "bloom": (
        make("BloomForCausalLM", "BloomConfig", n_head=2, n_layer=6, hidden_dropout=0.0, attention_dropout=0.0),
        causal_batch,
        {"transformer.h": (0, 2, 5)},
    ),
    "falcon": (
        make("FalconForCausalLM", "FalconConfig", alibi=False, new_decoder_architecture=False),
        causal_batch,
        {"transformer.h": (0, 2, 5)},
    ),
    "roberta": (
        make("RobertaForMaskedLM", "RobertaConfig", **NO_DROPOUT),
        plain_batch,
        {"roberta.encoder.layer": (0, 2, 5)},
    ),
    "distilbert": (
        make(
            "DistilBertForMaskedLM",
            "DistilBertConfig",
            dim=16,
            hidden_dim=24,
            n_heads=2,
            n_layers=6,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        plain_batch,
        {"distilbert.transformer.layer": (0, 2, 5)},
    ),
    "deberta": (
        make(
            "DebertaV2ForMaskedLM",
            "DebertaV2Config",
            relative_attention=True,
            pos_att_type=["c2p", "p2c"],
            **NO_DROPOUT,
        ),
        plain_batch,
        {"deberta.encoder.layer": (0, 2, 5)},
    ),
    "roberta-prelayernorm": (
        make("RobertaPreLayerNormForMaskedLM", "RobertaPreLayerNormConfig", **NO_DROPOUT),
        plain_batch,
        {"roberta_prelayernorm.encoder.layer": (0, 2, 5)},
    ),
    "electra-generator": (
        make("ElectraForMaskedLM", "ElectraConfig", embedding_size=8, **NO_DROPOUT),
        plain_batch,
        {"electra.encoder.layer": (0, 2, 5)},
    ),
    "modernbert": (
        make(
            "ModernBertForMaskedLM",
            "ModernBertConfig",
            local_attention=4,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"] * 2,
            embedding_dropout=0.0,
            cls_token_id=1,
            sep_token_id=2,
        ),
        plain_batch,
        {"model.layers": (0, 2, 5)},
    ),
    "mixtral": (
        make(
            "MixtralForCausalLM",
            "MixtralConfig",
            num_key_value_heads=1,
            num_local_experts=4,
            num_experts_per_tok=2,
            experts_implementation="eager",
        ),
        routed_batch,
        {"model.layers": (0, 2, 5)},
    ),
    "qwen3-moe": (
        make(
            "Qwen3MoeForCausalLM",
            "Qwen3MoeConfig",
            num_key_value_heads=1,
            head_dim=8,
            moe_intermediate_size=8,
            num_experts=4,
            experts_implementation="eager",
            num_experts_per_tok=2,
        ),
        routed_batch,
        {"model.layers": (0, 2, 5)},
    ),
    "vit": (
        make("ViTForImageClassification", "ViTConfig", image_size=8, patch_size=4, **NO_DROPOUT),
        image_batch,
        {"vit.layers": (0, 2, 5)},
    ),
    "t5": (
        make(
            "T5ForConditionalGeneration",
            "T5Config",
            d_model=16,
            d_ff=24,
            d_kv=8,
            num_heads=2,
            num_layers=3,
            num_decoder_layers=4,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        ),
        seq2seq_batch,
        {"encoder.block": (0, 2), "decoder.block": (0, 1, 3)},
    ),
    "bart": (
        make(
            "BartForConditionalGeneration",
            "BartConfig",
            d_model=16,
            encoder_layers=3,
            decoder_layers=4,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            dropout=0.0,
            decoder_start_token_id=2,
        ),
        seq2seq_batch,
        {"model.encoder.layers": (0, 2), "model.decoder.layers": (0, 1, 3)},
    ),
}


REFUSED_WITH_BLOCKS: set[str] = {"bloom", "t5"}
"""Refused when a layer first runs: without a recorded run, nobody knows who needs all that a layer returns."""


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_every_gradient_are_those_of_a_smaller_model(name: str) -> None:
    build, batch, kept = MODELS[name]
    model = build()
    small = shallow(model, kept)
    with torch.no_grad():
        model(**batch())  # transformers hangs recorders of its own on a model when it first runs
    before = Snapshot.of(model)
    net = raptr.attach(model)
    found = {stack.name: stack.layers for stack in net.shape.stacks}
    assert found.keys() == kept.keys()
    net.activate(Script([raptr.Subnetwork.of(*(kept[stack.name] for stack in net.shape.stacks))]), 0)
    losses = [each(**batch()).loss for each in (model, small)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    expected = expected_gradients(model, small, kept)
    for parameter, grad in gradients(model).items():
        if expected[parameter] is None:
            assert grad is None, parameter
        else:
            torch.testing.assert_close(grad, expected[parameter], rtol=1e-9, atol=1e-12, msg=parameter)
    model.zero_grad()
    net.detach()
    assert untouched(model, before)


@pytest.mark.parametrize("name", MODELS)
def test_given_the_blocks_it_is_right_or_refused(name: str) -> None:
    """The user names the layers: then only what the layers return can go wrong."""
    build, batch, kept = MODELS[name]
    model = build()
    small = shallow(model, kept)
    net = raptr.attach(model, blocks={stack: model.get_submodule(stack) for stack in kept})
    net.activate(Script([raptr.Subnetwork.of(*kept.values())]), 0)
    if name in REFUSED_WITH_BLOCKS:
        with pytest.raises(RaptrError, match="a skipped layer can only pass on hidden states"):
            model(**batch())
        return
    loss = model(**batch()).loss
    assert torch.equal(loss, small(**batch()).loss)


def test_the_table_of_families_is_the_one_tested() -> None:
    table = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    for name, (build, _, kept) in MODELS.items():
        row = next((line for line in table.splitlines() if line.startswith(f"| {name} |")), None)
        assert row is not None, name
        assert f"`{type(build()).__name__}`" in row
        assert all(f"`{stack}`" in row for stack in kept), name


@pytest.mark.parametrize("name", MODELS)
def test_the_reference_of_each_family_runs(name: str) -> None:
    """Control of the two tests above: with every layer kept the reference is the model itself."""
    build, batch, kept = MODELS[name]
    model = build()
    every = {stack: tuple(range(len(model.get_submodule(stack)))) for stack in kept}
    full = model(**batch()).loss
    assert torch.equal(shallow(model, every)(**batch()).loss, full)
    assert not torch.equal(shallow(model, kept)(**batch()).loss, full)
