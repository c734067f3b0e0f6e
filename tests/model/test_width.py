"""With some of its heads and neurons, a model computes what a model computes that has no others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from reference import batches
from reference.families import BERT, GPT2, HIDDEN_DROPOUT, LLAMA, TWO_STACKS, Family, family
from reference.narrow import Choice, Chosen, counts, difference, masked, narrow, subnetwork
from reference.script import Script

ROWS = {row.name: row for row in TWO_STACKS}
GROUPED: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}
FOUR: dict[str, Any] = {"num_attention_heads": 4}


def like_llama(name: str, model: str, **entries: Any) -> Family:
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


def one_choice(case: Sized, model: nn.Module, *, alike: bool = False, scaled: bool = False) -> Choice:
    """Two of four heads and nine neurons of every layer; others in each, unless they are to be alike."""
    heads, neurons = counts(model)
    draw = torch.Generator().manual_seed(3)

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


def compare(
    case: Sized,
    choice_of: Callable[[nn.Module], Choice],
    reference: Callable[[nn.Module, Choice], nn.Module],
    **options: Any,
) -> None:
    """Loss and every gradient of the narrow subnetwork are those of the reference."""
    full = case.build(**options)
    choice = choice_of(full)
    other = reference(full, choice)
    net = raptr.attach(full)
    net.activate(Script([subnetwork(choice)]), 0)
    losses = [case.row.loss(model) for model in (full, other)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses, rtol=1e-7, atol=0)  # T5's loss is in float32
    assert difference(full, other, choice) == []


@every_case
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_it_is_the_smaller_model(name: str, scaled: bool) -> None:
    case = CASES[name]
    compare(case, lambda m: one_choice(case, m, alike=name.startswith("t5"), scaled=scaled), narrow)


@every_case
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_it_is_the_masked_model(name: str, scaled: bool) -> None:
    """The layers of T5's stacks too, each with heads of its own."""
    case = CASES[name]
    compare(case, lambda m: one_choice(case, m, scaled=scaled), masked)


@every_case
def test_plain_attention_too(name: str) -> None:
    case = CASES[name]
    compare(case, lambda m: one_choice(case, m), masked, attn_implementation="eager")


@every_case
def test_another_choice_is_noticed(name: str) -> None:
    """Negative control of the three tests above."""
    case = CASES[name]
    full = case.build()
    choice, other = one_choice(case, full), one_choice(case, full, scaled=True)
    for wrong in (other, {stack: chosen[::-1] for stack, chosen in choice.items()}):
        reference = masked(full, wrong)
        twin = copy.deepcopy(full)
        net = raptr.attach(twin)
        net.activate(Script([subnetwork(choice)]), 0)
        for model in (twin, reference):
            case.row.loss(model).backward()
        assert len(difference(twin, reference, choice)) > 10
