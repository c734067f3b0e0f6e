"""The rows of the matrix: every family that the model room is tested with, tiny and in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from torch import nn

from reference import batches
from reference.batches import VOCABULARY
from reference.family import Family as Family
from reference.handwritten import BLOCKS, Net, TwoStacks
from reference.shallow import depth_entry

LAYERS = 6
TOKENS: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES: dict[str, Any] = {
    **TOKENS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
GROUPED: dict[str, Any] = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
HIDDEN_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
MIXED = ["sliding_attention", "sliding_attention", "full_attention"] * 2
T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "decoder_start_token_id": 0}
BART = {
    **TOKENS,
    "d_model": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}


def family(
    name: str,
    model: str,
    config: str,
    stacks: Mapping[str, int],
    batch: Callable[..., dict[str, Any]],
    sizes: Mapping[str, Any],
    *,
    dropout: tuple[str, ...] = (),
    required: Mapping[str, tuple[int, ...]] | None = None,
    **entries: Any,
) -> Family:
    """A family of transformers, by the names of its classes."""

    def construct(layers: int | None = None, **options: Any) -> nn.Module:
        import transformers

        made = getattr(transformers, config)
        depth = {depth_entry(made(), stack): layers or count for stack, count in stacks.items()}
        return getattr(transformers, model)(made(**{**sizes, **entries, **depth, **options}))

    return Family(
        name=name,
        model=model,
        construct=construct,
        stacks=stacks,
        batch=batch,
        required=required or {},
        dropout=dropout,
    )


BERT = family(
    "bert", "BertForMaskedLM", "BertConfig", {"bert.encoder.layer": 6}, batches.masked, SIZES, dropout=HIDDEN_DROPOUT
)
GPT2 = family(
    "gpt2",
    "GPT2LMHeadModel",
    "GPT2Config",
    {"transformer.h": 6},
    batches.causal,
    {"vocab_size": VOCABULARY, "n_embd": 16, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0},
    dropout=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
)
LLAMA = family(
    "llama",
    "LlamaForCausalLM",
    "LlamaConfig",
    {"model.layers": 6},
    batches.causal,
    GROUPED,
    dropout=("attention_dropout",),
)
ENCODERS = (
    BERT,
    family(
        "roberta",
        "RobertaForMaskedLM",
        "RobertaConfig",
        {"roberta.encoder.layer": 6},
        batches.masked,
        SIZES,
        dropout=HIDDEN_DROPOUT,
    ),
    family(
        "roberta-prelayernorm",
        "RobertaPreLayerNormForMaskedLM",
        "RobertaPreLayerNormConfig",
        {"roberta_prelayernorm.encoder.layer": 6},
        batches.masked,
        SIZES,
        dropout=HIDDEN_DROPOUT,
    ),
    family(
        "modernbert",
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        {"model.layers": 6},
        batches.masked,
        SIZES,
        dropout=("embedding_dropout", "mlp_dropout", "attention_dropout"),
        local_attention=8,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"] * 2,
    ),
    family(
        "deberta-v2",
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        {"deberta.encoder.layer": 6},
        batches.masked,
        SIZES,
        dropout=HIDDEN_DROPOUT,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
    ),
    family(
        "electra-discriminator",
        "ElectraForPreTraining",
        "ElectraConfig",
        {"electra.encoder.layer": 6},
        batches.replaced,
        SIZES,
        dropout=HIDDEN_DROPOUT,
        embedding_size=8,
    ),
    family(
        "electra-generator",
        "ElectraForMaskedLM",
        "ElectraConfig",
        {"electra.encoder.layer": 6},
        batches.masked,
        SIZES,
        dropout=HIDDEN_DROPOUT,
        embedding_size=8,
    ),
    family(
        "distilbert",
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"distilbert.transformer.layer": 6},
        batches.masked,
        {"vocab_size": VOCABULARY, "dim": 16, "hidden_dim": 24, "n_heads": 2, "max_position_embeddings": 64},
        dropout=("dropout", "attention_dropout"),
    ),
    family(
        "vit",
        "ViTForImageClassification",
        "ViTConfig",
        {"vit.layers": 6},
        batches.pictures,
        {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "image_size": 16, "patch_size": 4},
        dropout=HIDDEN_DROPOUT,
        num_labels=4,
    ),
)
OPT_POST = family(
    "opt-post-norm",
    "OPTForCausalLM",
    "OPTConfig",
    {"model.decoder.layers": 6},
    batches.causal,
    SIZES,
    dropout=("dropout", "attention_dropout"),
    ffn_dim=24,
    word_embed_proj_dim=16,
    do_layer_norm_before=False,
)
"""Not a row: the same class as "opt", with the norms after the sums, as in its 350m."""
FALCON_7B = {"multi_query": True, "parallel_attn": True, "alibi": False, "new_decoder_architecture": False}
FALCON_40B = {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}
FALCON_RW = {"multi_query": False, "parallel_attn": False, "alibi": True, "new_decoder_architecture": False}
FALCONS = tuple(
    family(
        name,
        "FalconForCausalLM",
        "FalconConfig",
        {"transformer.h": 6},
        batches.causal,
        {**SIZES, "num_attention_heads": 4, "ffn_hidden_size": 24},
        dropout=("hidden_dropout", "attention_dropout"),
        **entries,
    )
    for name, entries in (("falcon-7b", FALCON_7B), ("falcon-40b", FALCON_40B), ("falcon-rw", FALCON_RW))
)
# Run one by one: grouped matrix products have no float64.
EXPERTS = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.1, "experts_implementation": "eager"}
DECODERS = (
    GPT2,
    family(
        "gpt-neox",
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {"gpt_neox.layers": 6},
        batches.causal,
        SIZES,
        dropout=("hidden_dropout", "attention_dropout"),
    ),
    family(
        "opt",
        "OPTForCausalLM",
        "OPTConfig",
        {"model.decoder.layers": 6},
        batches.causal,
        SIZES,
        dropout=("dropout", "attention_dropout"),
        ffn_dim=24,
        word_embed_proj_dim=8,
    ),
    family(
        "bloom",
        "BloomForCausalLM",
        "BloomConfig",
        {"transformer.h": 6},
        batches.causal,
        {**TOKENS, "hidden_size": 16, "n_head": 2},
        dropout=("hidden_dropout", "attention_dropout"),
    ),
    *FALCONS,
    LLAMA,
    family(
        "qwen3",
        "Qwen3ForCausalLM",
        "Qwen3Config",
        {"model.layers": 6},
        batches.causal,
        {**GROUPED, "head_dim": 8},
        dropout=("attention_dropout",),
    ),
    family(
        "gemma3",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {"model.layers": 6},
        batches.causal,
        GROUPED,
        dropout=("attention_dropout",),
        sliding_window=4,
        layer_types=MIXED,
    ),
    family(
        "mixtral",
        "MixtralForCausalLM",
        "MixtralConfig",
        {"model.layers": 6},
        batches.routed,
        GROUPED,
        dropout=("attention_dropout",),
        num_local_experts=4,
        **EXPERTS,
    ),
    family(
        "qwen3-moe",
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {"model.layers": 6},
        batches.routed,
        GROUPED,
        dropout=("attention_dropout",),
        num_experts=4,
        moe_intermediate_size=8,
        mlp_only_layers=[2],
        **EXPERTS,
    ),
)
FIRST = {"encoder.block": (0,), "decoder.block": (0,)}
TWO_STACKS = (
    family(
        "t5",
        "T5ForConditionalGeneration",
        "T5Config",
        {"encoder.block": 3, "decoder.block": 4},
        batches.translated,
        T5,
        dropout=("dropout_rate",),
        required=FIRST,
    ),
    family(
        "t5-gated",
        "T5ForConditionalGeneration",
        "T5Config",
        {"encoder.block": 3, "decoder.block": 4},
        batches.translated,
        T5,
        dropout=("dropout_rate",),
        required=FIRST,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
    family(
        "bart",
        "BartForConditionalGeneration",
        "BartConfig",
        {"model.encoder.layers": 3, "model.decoder.layers": 4},
        batches.translated,
        BART,
        dropout=("dropout", "attention_dropout", "activation_dropout"),
    ),
)
T5_ENCODER = family(
    "t5-encoder",
    "T5EncoderModel",
    "T5Config",
    {"encoder.block": 6},
    batches.encoded,
    T5,
    dropout=("dropout_rate",),
    required={"encoder.block": (0,)},
)
HUGGING_FACE = (*ENCODERS, *DECODERS, T5_ENCODER, *TWO_STACKS)
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
_SHARING: dict[str, Any] = {
    **GROUPED,
    "num_hidden_layers": 6,
    "vocab_size_per_layer_input": 61,
    "hidden_size_per_layer_input": 4,
    "num_kv_shared_layers": 3,
    "layer_types": [*_ALTERNATING, "sliding_attention", "full_attention", "full_attention"],
    "sliding_window": 4,
}
KEY_VALUE_SHARING = (
    family(
        "gemma3n",
        "Gemma3nForCausalLM",
        "Gemma3nTextConfig",
        {"model.layers": 6},
        batches.causal,
        {**_SHARING, "laurel_rank": 2, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 6},
        required={"model.layers": (1, 2)},
    ),
    family(
        "gemma4",
        "Gemma4ForCausalLM",
        "Gemma4TextConfig",
        {"model.layers": 6},
        batches.causal,
        {**_SHARING, "global_head_dim": 4},
        required={"model.layers": (1, 2)},
    ),
)
"""Their last three of six layers reuse keys and values that layers 1 and 2 made: too special for `ALL`."""


def by_hand(block: str, *, with_inputs: bool) -> Family:
    """A hand-written network with this kind of block."""
    return Family(
        name=f"{block}-recorded" if with_inputs else block,
        model="Net",
        construct=lambda layers=LAYERS, **options: Net(layers, block, **options),
        stacks={"layers": LAYERS},
        batch=batches.plain,
        required={"layers": (0,)} if block == "making" else {},
        by_hand=True,
        with_inputs=with_inputs,
    )


# Without inputs blocks are taken on trust: that the first block makes something can then not be known.
TRUSTED = tuple(by_hand(block, with_inputs=False) for block in BLOCKS if block != "making")
MLP, ATTENTION = TRUSTED[:2]
RECORDED = tuple(by_hand(block, with_inputs=True) for block in BLOCKS)
BY_HAND = (
    *TRUSTED,
    *RECORDED,
    Family(
        name="two-stacks",
        model="TwoStacks",
        construct=TwoStacks,
        stacks={"lower": 3, "upper": 4},
        batch=batches.plain,
        by_hand=True,
    ),
)
ALL = (*HUGGING_FACE, *BY_HAND)
SOME = (LLAMA, GPT2, BERT)
"""Three different families, for what no family can change."""

every_family = pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
hugging_face = pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda family: family.name)
some_families = pytest.mark.parametrize("family", SOME, ids=lambda family: family.name)
