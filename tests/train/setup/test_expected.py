"""What a wrong value of `training`, or a model without a head for the objective, is told."""

import typing

import pytest
from transformers import TrainingArguments

from raptr.config import load
from raptr.errors import RaptrError
from raptr.train.setup.arguments import words_of
from raptr.train.task import plan_run


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.learning_rate=abc", "training.learning_rate is 'abc'; expected a number."),
        ("training.bf16=maybe", "training.bf16 is 'maybe'; expected true or false."),
        ("training.max_steps=many", "training.max_steps is 'many'; expected a whole number."),
        ("training.fsdp=3", "training.fsdp is 3; expected true or false, a text or null."),
        ("training.probe_memory=maybe", "training.probe_memory is 'maybe'; expected true or false or null."),
        (
            "objective.name=masked",
            "objective.name is 'masked', but llama has no masked-language model in transformers; use bert, roberta, "
            "roberta-prelayernorm, modernbert, electra or distilbert, or another objective.",
        ),
        ("model={architecture: vit}", "vit has no causal language model in transformers; use llama, gpt2, qwen3"),
    ],
)
def test_what_is_expected_is_said_in_plain_words(override: str, said: str) -> None:
    with pytest.raises(RaptrError) as caught:
        plan_run(load("demo", [override]))
    assert said in str(caught.value)
    assert "<class" not in str(caught.value)


def test_every_type_of_the_trainer_has_words() -> None:
    words = {name: words_of(hint) for name, hint in typing.get_type_hints(TrainingArguments).items()}
    assert [name for name, found in words.items() if "<" in found or "typing" in found] == []
    assert words["learning_rate"] == "a number"
    assert words_of(int | float | None) == "a number or null"
