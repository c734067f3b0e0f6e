"""Small residual networks written by hand: what ``raptr.attach(module, blocks=...)`` must handle.

Shapes: B sequences, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class MLPBlock(nn.Module):
    """x + MLP(norm(x))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class AttentionBlock(MLPBlock):
    """Causal attention of two heads, then the MLP, both residual."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(width, inner)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(b, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return super().forward(x + self.out(mixed.transpose(1, 2).reshape(b, t, d)))


class TupleBlock(AttentionBlock):
    """Returns a 1-tuple, as many transformers do; the caller unpacks it."""

    def forward(self, x: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        return (super().forward(x),)


class PairBlock(AttentionBlock):
    """Returns the hidden states and a None (no attention weights asked for)."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(x), None


class KeywordBlock(MLPBlock):
    """Is called by keyword only."""

    def forward(self, *, hidden_states: Tensor, strength: float) -> Tensor:  # type: ignore[override]
        return hidden_states + strength * (super().forward(hidden_states) - hidden_states)


BLOCKS: dict[str, type[MLPBlock]] = {
    "mlp": MLPBlock,
    "attention": AttentionBlock,
    "tuple": TupleBlock,
    "pair": PairBlock,
    "keyword": KeywordBlock,
}


class Net(nn.Module):
    """Token and position embeddings, ``layers`` residual blocks, a norm and a head."""

    def __init__(
        self,
        layers: int,
        block: str,
        width: int = 16,
        vocabulary: int = 61,
        inner: int | Sequence[int] = 24,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        inners = [inner] * layers if isinstance(inner, int) else list(inner)
        self.block = block
        self.arguments: dict[str, Any] = {"block": block, "width": width, "vocabulary": vocabulary}
        self.inners = inners
        self.checkpointed = checkpointed
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(64, width)
        self.layers = nn.ModuleList(BLOCKS[block](width, size) for size in inners)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def smaller(self, kept: Sequence[int]) -> Net:
        """A new network of the same widths with ``len(kept)`` layers; its weights are its own."""
        return Net(len(kept), inner=[self.inners[i] for i in kept], **self.arguments)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            call = (lambda x, layer=layer: checkpoint(layer, x, use_reentrant=False)) if self.checkpointed else layer
            if self.block == "tuple":
                (x,) = call(x)
            elif self.block == "pair":
                x, nothing = call(x)
                assert nothing is None
            elif self.block == "keyword":
                x = call(hidden_states=x, strength=0.5)
            else:
                x = call(x)
        return self.head(self.norm(x))


class TwoStacks(nn.Module):
    """Two stacks, one after the other; ``blocks=`` names both."""

    def __init__(self, first: int = 3, second: int = 4, width: int = 16, vocabulary: int = 61) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.lower = nn.ModuleList(MLPBlock(width, 24) for _ in range(first))
        self.upper = nn.ModuleList(AttentionBlock(width, 24) for _ in range(second))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for layer in [*self.lower, *self.upper]:
            x = layer(x)
        return self.head(x)


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Next-token cross-entropy of a network that returns logits (B, T, V)."""
    logits = model(tokens)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def some_tokens(vocabulary: int = 61, seed: int = 5) -> Tensor:
    """(3, 10) token ids that depend on the seed only."""
    return torch.randint(vocabulary, (3, 10), generator=torch.Generator().manual_seed(seed))
