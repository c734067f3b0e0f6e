"""The families whose width can be chosen, with layers of four heads (four groups of two) that make choices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from reference import batches
from reference.families import BERT, GPT2, HIDDEN_DROPOUT, LLAMA, TWO_STACKS, Family, family
from reference.narrow import Choice, Chosen, counts

ROWS = {row.name: row for row in TWO_STACKS}
GROUPED: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}
FOUR: dict[str, Any] = {"num_attention_heads": 4}


def like_llama(name: str, model: str, **entries: Any) -> Family:
    """A family of three layers with the names of Llama's."""
    return family(
        name,
        f"{model}ForCausalLM",
        f"{model}Config",
        {"model.layers": 3},
        batches.causal,
        {"vocab_size": batches.VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 64}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        | GROUPED,
        **entries,
    )


class Sized:
    """A family and the entries that give its layers four heads."""

    def __init__(self, row: Family, **entries: Any) -> None:
        self.row, self.entries = row, entries
        self.stacks = row.stacks

    def build(self, **more: Any) -> nn.Module:
        """As the family's."""
        return self.row.build(**self.entries, **more)


CASES = {
    "llama": Sized(LLAMA, **GROUPED),
    "llama-with-biases": Sized(LLAMA, **GROUPED, attention_bias=True, mlp_bias=True),
    "llama-ungrouped": Sized(LLAMA, num_attention_heads=4, num_key_value_heads=4, head_dim=4),
    "mistral": Sized(like_llama("mistral", "Mistral", sliding_window=4)),
    "qwen2": Sized(like_llama("qwen2", "Qwen2")),
    "qwen3": Sized(like_llama("qwen3", "Qwen3")),
    "gemma": Sized(like_llama("gemma", "Gemma")),
    "granite": Sized(like_llama("granite", "Granite", attention_multiplier=0.3, residual_multiplier=0.7)),
    "smollm3": Sized(like_llama("smollm3", "SmolLM3")),
    "bert": Sized(BERT, **FOUR),
    "roberta": Sized(
        family(
            "roberta",
            "RobertaForMaskedLM",
            "RobertaConfig",
            {"roberta.encoder.layer": 3},
            batches.masked,
            {"vocab_size": batches.VOCABULARY, "hidden_size": 16, "intermediate_size": 24},
            dropout=HIDDEN_DROPOUT,
            num_attention_heads=4,
        )
    ),
    "gpt2": Sized(GPT2, n_head=4),
    "t5": Sized(ROWS["t5"], num_heads=4),
    "t5-gated": Sized(ROWS["t5-gated"], num_heads=4),
}
every_case = pytest.mark.parametrize("name", CASES)


def one_choice(case: Sized, model: nn.Module, *, alike: bool = False, scaled: bool = False, seed: int = 3) -> Choice:
    """Two of four heads and nine neurons of every layer; others in each, unless they are to be alike."""
    heads, neurons = counts(model)
    draw = torch.Generator().manual_seed(seed)

    def some(count: int, of: int) -> list[int]:
        return sorted(torch.randperm(of, generator=draw)[:count].tolist())

    made = {}
    for i, (stack, layers) in enumerate(case.stacks.items()):
        shared = some(2, heads)
        made[stack] = [
            Chosen(
                shared if alike else some(2, heads),
                some(9, neurons),
                head_scale=1.5 + 0.25 * layer if scaled else 1.0,
                neuron_scale=0.75 + i if scaled else 1.0,
            )
            for layer in range(layers)
        ]
    return made
