"""Training FLOPs counted by hand, from a config's numbers alone.

Per sequence of T tokens; D width, H heads of d, K key-value heads, M inner width, V vocabulary.
2 per multiply-add; attention in full, also where it is causal; backward twice the forward; the
head included, embedding look-ups (which multiply nothing), norms and softmax not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TRAINING = 3  # forward, and a backward of twice the forward


@dataclass(frozen=True)
class HandCount:
    """FLOPs of one layer, and of everything that is not a layer."""

    layer: float
    other: float

    def total(self, layers: int) -> float:
        """FLOPs of a training step on one sequence with this many layers."""
        return layers * self.layer + self.other


def llama(config: Any, length: int, attention: float = 1.0) -> HandCount:
    """``attention=0`` leaves the attention products out; 0.5 counts half of them (as causal)."""
    t, d, m = length, config.hidden_size, config.intermediate_size
    h, k = config.num_attention_heads, config.num_key_value_heads
    head = config.head_dim
    projections = 2 * t * d * (h * head) * 2 + 2 * t * d * (k * head) * 2  # q and o, k and v
    products = 2 * t * t * h * head * 2  # scores, and their mix of the values
    mlp = 3 * 2 * t * d * m  # gate, up, down
    return HandCount(
        layer=TRAINING * (projections + attention * products + mlp),
        other=TRAINING * 2 * t * d * config.vocab_size,
    )


def bert(config: Any, length: int, attention: float = 1.0) -> HandCount:
    """A BERT with the masked-language-model head: a square transform, then the vocabulary."""
    t, d, m = length, config.hidden_size, config.intermediate_size
    projections = 4 * 2 * t * d * d
    products = 2 * 2 * t * t * d
    mlp = 2 * 2 * t * d * m
    return HandCount(
        layer=TRAINING * (projections + attention * products + mlp),
        other=TRAINING * (2 * t * d * d + 2 * t * d * config.vocab_size),
    )
