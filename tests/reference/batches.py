"""What the models of the matrix are fed: batches that depend on a seed only.

Shapes: B = 3 sequences of T = 10 tokens (7 for a decoder), V = 61 words.
"""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 61
LENGTH = 10
TARGET_LENGTH = 7


def some_tokens(vocabulary: int = VOCABULARY, seed: int = 5, length: int = LENGTH) -> torch.Tensor:
    """(3, T) token ids."""
    return torch.randint(vocabulary, (3, length), generator=torch.Generator().manual_seed(seed))


def causal(seed: int = 5) -> dict[str, Any]:
    """Tokens that predict their successors; caching off, as training must be."""
    tokens = some_tokens(seed=seed)
    return {"input_ids": tokens, "labels": tokens, "use_cache": False}


def routed(seed: int = 5) -> dict[str, Any]:
    """The same for a mixture of experts, whose loss then has a part for the balance of its routers."""
    return {**causal(seed), "output_router_logits": True}


def masked(seed: int = 5) -> dict[str, Any]:
    """Some positions are asked for, and the last sequence is padded."""
    tokens = some_tokens(seed=seed)
    asked = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    asked[:, 0] = True
    mask = torch.ones_like(tokens)
    mask[-1, 7:] = 0
    labels = tokens.masked_fill(~asked | (mask == 0), -100)
    return {"input_ids": tokens.masked_fill(asked, 3), "attention_mask": mask, "labels": labels}


def replaced(seed: int = 5) -> dict[str, Any]:
    """Which tokens were replaced? ELECTRA's discriminator."""
    found = masked(seed)
    return {**found, "labels": (found["labels"] >= 0).long()}


def encoded(seed: int = 5) -> dict[str, Any]:
    """An encoder alone, without labels."""
    found = masked(seed)
    return {key: found[key] for key in ("input_ids", "attention_mask")}


def translated(seed: int = 5) -> dict[str, Any]:
    """A padded source, and a target of another length."""
    found = masked(seed)
    labels = some_tokens(seed=seed + 100, length=TARGET_LENGTH)
    return {**found, "labels": labels, "use_cache": False}


def pictures(seed: int = 5) -> dict[str, Any]:
    """Three images of 16 x 16 in three colours, with a label each."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(3, 3, 16, 16, generator=generator, dtype=torch.float64)
    return {"pixel_values": pixels, "labels": torch.randint(4, (3,), generator=generator)}


def plain(seed: int = 5) -> dict[str, Any]:
    """Tokens for the hand-written networks."""
    return {"tokens": some_tokens(seed=seed)}
