"""Small residual networks written by hand: what ``raptr.attach(module, blocks=...)`` must handle.

Shapes: B sequences, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reference.batches import some_tokens as some_tokens


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


class LaterBlock(MLPBlock):
    """Takes something else first, and the hidden states by keyword."""

    def forward(self, bias: Tensor, hidden_states: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(hidden_states + bias)


class PassingBlock(MLPBlock):
    """Takes a bias and passes it on beside the hidden states: the next block gets it from this one."""

    def forward(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x + bias), bias


class MakingBlock(MLPBlock):
    """Makes the bias where there is none yet, as T5's first layer does: the others need that layer."""

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        bias = self.norm(x).mean(-1, keepdim=True) if bias is None else bias
        return super().forward(x + bias), bias


BLOCKS: dict[str, type[MLPBlock]] = {
    "mlp": MLPBlock,
    "attention": AttentionBlock,
    "tuple": TupleBlock,
    "pair": PairBlock,
    "keyword": KeywordBlock,
    "later": LaterBlock,
    "passing": PassingBlock,
    "making": MakingBlock,
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
        return self.head(self.norm(self.through(x)))

    def through(self, x: Tensor) -> Tensor:
        """The layers, one after another, each called as its kind is."""
        bias = None if self.block == "making" else x.mean(-1, keepdim=True)
        for layer in self.layers:
            call = (lambda x, layer=layer: checkpoint(layer, x, use_reentrant=False)) if self.checkpointed else layer
            if self.block == "tuple":
                (x,) = call(x)
            elif self.block == "pair":
                x, nothing = call(x)
                assert nothing is None
            elif self.block == "keyword":
                x = call(hidden_states=x, strength=0.5)
            elif self.block == "later":
                x = call(bias, hidden_states=x)
            elif self.block in ("passing", "making"):
                x, bias = call(x, bias)
            else:
                x = call(x)
        return x


class TwoStacks(nn.Module):
    """Two stacks, one after the other; ``blocks=`` names both."""

    def __init__(self, first: int = 3, second: int = 4, width: int = 16, vocabulary: int = 61) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.lower = nn.ModuleList(MLPBlock(width, 24) for _ in range(first))
        self.upper = nn.ModuleList(AttentionBlock(width, 24) for _ in range(second))
        self.head = nn.Linear(width, vocabulary)

    def smaller(self, lower: Sequence[int], upper: Sequence[int]) -> TwoStacks:
        """A new network with fewer layers in each stack."""
        return TwoStacks(len(lower), len(upper))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for layer in [*self.lower, *self.upper]:
            x = layer(x)
        return self.head(x)


class Unusual(Net):
    """A network that runs its layers in a way in which none can be left out: ``how`` says which."""

    def __init__(self, how: str, layers: int = 4) -> None:
        super().__init__(layers, "mlp")
        self.how = how

    def through(self, x: Tensor) -> Tensor:
        return UNUSUAL[self.how](self.layers, x)


def _u_net(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """The outputs of the first half are added to the inputs of the second, the last one first."""
    kept: list[Tensor] = []
    for i, layer in enumerate(layers):
        x = layer(x if i < len(layers) // 2 else x + kept.pop())
        kept.append(x)
        kept = kept if i < len(layers) // 2 else kept[:-1]
    return x


def _twice(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in [*layers, *layers]:
        x = layer(x)
    return x


def _backwards(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in reversed(layers):
        x = layer(x)
    return x


def _one_is_left_out(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers[:-1]:
        x = layer(x)
    return x


def _between(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Something is done to what a layer returns before the next one takes it."""
    for layer in layers:
        x = 0.5 * layer(x)
    return x


def _side_by_side(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Every layer takes the same input; their outputs are summed."""
    return torch.stack([layer(x) for layer in layers]).sum(0)


UNUSUAL: dict[str, Callable[[nn.ModuleList, Tensor], Tensor]] = {
    "u-net": _u_net,
    "twice": _twice,
    "backwards": _backwards,
    "one-left-out": _one_is_left_out,
    "between": _between,
    "side-by-side": _side_by_side,
}


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Next-token cross-entropy of a network that returns logits (B, T, V)."""
    logits = model(tokens)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
