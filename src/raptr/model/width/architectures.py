"""The kinds of layers whose heads and neurons are known: where their projections are."""

from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Attention:
    """An attention of a kind of layer: paths in the layer, those of projections in the attention."""

    path: str
    inward: tuple[tuple[str, int], ...]  # projections into the heads, and how many times the heads lie in each
    keys: str  # the one of them by which heads are counted
    outward: str
    size: str  # attribute with the entries of one head
    optional: bool = False
    further: tuple[str, ...] = ()  # modules with parameters that do not depend on the number of heads
    table: str = ""  # a table with an entry per head, which all layers share
    how: Literal["", "split", "bias"] = ""


@dataclass(frozen=True)
class Kind:
    """A kind of layer, the same in several models of transformers."""

    layers: tuple[str, ...]
    attentions: tuple[Attention, ...]
    inward: tuple[tuple[str, ...], ...]  # projections into the neurons: the first of these sets that is there
    outward: str
    neurons: str  # the module that holds them, whose class is transformers' too


def _three(*names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, 1) for name in names)


_BERT = Attention(
    path="attention",
    inward=_three("self.query", "self.key", "self.value"),
    keys="self.key",
    outward="output.dense",
    size="self.attention_head_size",
    further=("output.LayerNorm",),
)
_GPT2 = Attention(path="attn", inward=(("c_attn", 3),), keys="c_attn", outward="c_proj", size="head_dim", how="split")
_T5 = Attention(
    path="layer.0.SelfAttention",
    inward=_three("q", "k", "v"),
    keys="k",
    outward="o",
    size="key_value_proj_dim",
    table="relative_attention_bias",
    how="bias",
)


def _also(attention: Attention, **changes: Any) -> Attention:
    return replace(attention, optional=True, **changes)


KINDS = (
    Kind(
        layers=tuple(
            f"{name}DecoderLayer" for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Granite", "SmolLM3")
        ),
        attentions=(
            Attention(
                path="self_attn",
                inward=_three("q_proj", "k_proj", "v_proj"),
                keys="k_proj",
                outward="o_proj",
                size="head_dim",
                further=("q_norm", "k_norm"),  # of one head
            ),
        ),
        inward=(("mlp.gate_proj", "mlp.up_proj"),),
        outward="mlp.down_proj",
        neurons="mlp",
    ),
    Kind(
        layers=("BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer"),
        attentions=(_BERT, _also(_BERT, path="crossattention")),
        inward=(("intermediate.dense",),),
        outward="output.dense",
        neurons="intermediate",
    ),
    Kind(
        layers=("GPT2Block",),
        attentions=(_GPT2, _also(_GPT2, path="crossattention", inward=(("q_attn", 1), ("c_attn", 2)))),
        inward=(("mlp.c_fc",),),
        outward="mlp.c_proj",
        neurons="mlp",
    ),
    Kind(
        layers=("T5Block", "MT5Block"),
        attentions=(_T5, _also(_T5, path="layer.1.EncDecAttention")),
        inward=(
            ("layer.-1.DenseReluDense.wi",),
            ("layer.-1.DenseReluDense.wi_0", "layer.-1.DenseReluDense.wi_1"),
        ),
        outward="layer.-1.DenseReluDense.wo",
        neurons="layer.-1.DenseReluDense",
    ),
)
SUPPORTED = ", ".join(layer for kind in KINDS for layer in kind.layers)
"""The classes of layers whose width can be chosen."""
