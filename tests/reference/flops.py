"""Training FLOPs counted by hand, from a config's numbers alone.

Per sequence of T tokens (S of a decoder that has an encoder); D width, H heads of d, K key-value heads, M inner
width, V vocabulary. 2 per multiply-add; attention in full, also where it is causal; backward twice the forward;
the head included, embedding look-ups (which multiply nothing), norms and softmax not.

``attention=0`` leaves the attention products out, and 0.5 counts half of them (as causal).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TRAINING = 3  # forward, and a backward of twice the forward


@dataclass(frozen=True)
class HandCount:
    """FLOPs of a layer of each stack, and of everything that is not a layer."""

    layers: tuple[float, ...]
    other: float

    def total(self, *numbers: int) -> float:
        """FLOPs of a training step on one sequence with these numbers of layers."""
        return sum(n * layer for n, layer in zip(numbers, self.layers, strict=True)) + self.other


Count = Callable[..., HandCount]
"""(config, T, attention, S) -> FLOPs."""


def product(rows: float, inner: float, columns: float) -> float:
    """(rows, inner) times (inner, columns), and its backward."""
    return TRAINING * 2 * rows * inner * columns


def attend(queries: int, keys: int, width: int, share: float) -> float:
    """Scores of H heads of d = width / H, and their mix of the values."""
    return share * 2 * product(queries, width, keys)


def grouped(config: Any, t: int, attention: float) -> float:
    """Attention of K <= H key-value heads, without biases."""
    d, heads, kv = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    width = heads * config.head_dim
    return (
        2 * product(t, d, width)  # q, o
        + 2 * product(t, d, kv * config.head_dim)  # k, v
        + attend(t, t, width, attention)
    )


def plain(t: int, d: int, m: int, attention: float) -> float:
    """A layer with H d = D and one inner matrix each way."""
    return 4 * product(t, d, d) + attend(t, t, d, attention) + 2 * product(t, d, m)


def llama(config: Any, t: int, attention: float = 1.0, s: int = 0) -> HandCount:
    """Grouped attention and three inner matrices: gate, up, down."""
    d, m = config.hidden_size, config.intermediate_size
    layer = grouped(config, t, attention) + 3 * product(t, d, m)
    return HandCount((layer,), product(t, d, config.vocab_size))


def mixtral(config: Any, t: int, attention: float = 1.0, s: int = 0) -> HandCount:
    """A router over all experts, and the experts that a token uses."""
    d, m = config.hidden_size, config.intermediate_size
    experts = config.num_experts_per_tok * 3 * product(t, d, m)
    layer = grouped(config, t, attention) + product(t, d, config.num_local_experts) + experts
    return HandCount((layer,), product(t, d, config.vocab_size))


def gpt2(config: Any, t: int, attention: float = 1.0, s: int = 0) -> HandCount:
    """An inner width of 4 D."""
    d = config.n_embd
    return HandCount((plain(t, d, 4 * d, attention),), product(t, d, config.vocab_size))


def bert(config: Any, t: int, attention: float = 1.0, s: int = 0) -> HandCount:
    """With the masked-language-model head: a square transform, then the vocabulary."""
    d = config.hidden_size
    layer = plain(t, d, config.intermediate_size, attention)
    return HandCount((layer,), product(t, d, d) + product(t, d, config.vocab_size))


def vit(config: Any, t: int, attention: float = 1.0, s: int = 0) -> HandCount:
    """(I / P)^2 patches of 3 P^2 numbers, and a class token; a head on that token."""
    d, patches = config.hidden_size, (config.image_size // config.patch_size) ** 2
    layer = plain(patches + 1, d, config.intermediate_size, attention)
    made = product(patches, config.num_channels * config.patch_size**2, d)
    return HandCount((layer,), made + product(1, d, config.num_labels))


def crossed(t: int, s: int, d: int, width: int, attention: float) -> float:
    """Attention of S tokens to T of the encoder: q and o of the former, k and v of the latter."""
    return 2 * product(s, d, width) + 2 * product(t, d, width) + attend(s, t, width, attention)


def t5(config: Any, t: int, attention: float = 1.0, s: int = 0) -> HandCount:
    """Heads of d_kv, whatever D is; gated variants have a third inner matrix."""
    d, width, inner = config.d_model, config.num_heads * config.d_kv, 3 if config.is_gated_act else 2

    def layer(n: int) -> float:
        return 4 * product(n, d, width) + attend(n, n, width, attention) + inner * product(n, d, config.d_ff)

    decoder = layer(s) + crossed(t, s, d, width, attention)
    return HandCount((layer(t), decoder), product(s, d, config.vocab_size))


def bart(config: Any, t: int, attention: float = 1.0, s: int = 0) -> HandCount:
    """H d = D in both stacks."""
    d = config.d_model
    encoder = plain(t, d, config.encoder_ffn_dim, attention)
    decoder = plain(s, d, config.decoder_ffn_dim, attention) + crossed(t, s, d, d, attention)
    return HandCount((encoder, decoder), product(s, d, config.vocab_size))
