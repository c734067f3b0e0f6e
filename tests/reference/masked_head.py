"""The loss and gradients of a masked language model from all of its logits, and batches that say where they are."""

from typing import Any

import torch
from torch import nn

VOCABULARY, LENGTH, BATCH, PREDICTIONS = 40, 12, 4, 3

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH + 2,
    "pad_token_id": 0,
}
_MODERN = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}

MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("Bert", {}, "cls"),
    "roberta": ("Roberta", {}, "lm_head"),
    "roberta-prelayernorm": ("RobertaPreLayerNorm", {}, "lm_head"),
    "modernbert": ("ModernBert", _MODERN, "head"),
}
"""By architecture: transformers' name for it, what it is configured with, and its head."""


def build(architecture: str, **changes: Any) -> Any:
    """A small model in float64, in training, without dropout."""
    import transformers

    name, more, _ = MODELS[architecture]
    settings = {**_SIZES, **more, **changes}
    if architecture != "modernbert":
        settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForMaskedLM")(getattr(transformers, f"{name}Config")(**settings))
    return model.double().train()


def batch(seed: int = 0, counts: tuple[int, ...] = (3, 3, 2, 1)) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Tokens and labels of shape (B, T), and the same labels by place; ``counts`` masked positions in each row."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCABULARY, (len(counts), LENGTH), generator=random)
    labels = torch.full_like(tokens, -100)
    positions = torch.zeros((len(counts), PREDICTIONS), dtype=torch.long)
    chosen = torch.full_like(positions, -100)
    for row, count in enumerate(counts):
        places = torch.randperm(LENGTH, generator=random)[:count].sort().values
        labels[row, places] = torch.randint(3, VOCABULARY, (count,), generator=random)
        positions[row, :count], chosen[row, :count] = places, labels[row, places]
    return tokens, labels, {"input_ids": tokens, "masked_positions": positions, "labels": chosen}


def loss_of_all(model: nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By hand: the mean over the labelled places of minus the log-probability of the label."""
    logits = model(input_ids=tokens).logits
    log = logits - logits.exp().sum(-1, keepdim=True).log()
    rows, places = (labels != -100).nonzero(as_tuple=True)
    return -log[rows, places, labels[rows, places]].mean()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """All gradients, which are then cleared."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found
