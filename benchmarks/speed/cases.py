"""The models that are measured, each with its batch and what a step of it costs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from raptr.model import attach_head, count_flops
from raptr.objectives import most_predictions
from raptr.plan import LayerCosts, RaPTr

RATE = 0.15
"""The share of masked tokens, of BERT."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model without dropout, and a batch for it.

    Attributes:
        name: what tables call it.
        config: of transformers.
        settings: what of it was given, as a run's ``model.config`` has it.
        schedule: the stages of RaPTr that it is measured at.
        batch: sequences of a step.
        length: tokens of a sequence.
    """

    name: str
    config: Any
    settings: dict[str, Any]
    schedule: str
    batch: int
    length: int

    @property
    def masked(self) -> bool:
        """Whether it predicts masked tokens, with a head that runs on those only."""
        return isinstance(self.config, BertConfig)

    @property
    def predictions(self) -> int | None:
        """On how many positions of a sequence the head runs; None for all."""
        return most_predictions(self.length, RATE) if self.masked else None

    @property
    def layers(self) -> int:
        """How many the model has."""
        return int(self.config.num_hidden_layers)

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.length

    def build(self, device: str, *, seed: int = 0) -> nn.Module:
        """The model in training mode; the same weights for the same seed."""
        torch.manual_seed(seed)
        model: nn.Module = (BertForMaskedLM if self.masked else LlamaForCausalLM)(self.config)
        if self.masked:
            attach_head(model)
        return model.to(device).train()

    def inputs(self, device: str, *, seed: int = 0) -> dict[str, torch.Tensor]:
        """Random tokens; what they are does not change what a step costs."""
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(5, self.config.vocab_size, (self.batch, self.length), generator=generator)
        if not self.masked:
            return {"input_ids": tokens.to(device), "labels": tokens.to(device)}
        order = torch.rand(self.batch, self.length, generator=generator).argsort(dim=1)
        positions = order[:, : self.predictions].sort(dim=1).values
        labels = tokens.gather(1, positions)
        return {"input_ids": tokens.to(device), "masked_positions": positions.to(device), "labels": labels.to(device)}

    def costs(self) -> LayerCosts:
        """FLOPs of a step of the whole batch."""
        with torch.device("meta"):
            model = (BertForMaskedLM if self.masked else LlamaForCausalLM)(self.config)
        return count_flops(model, self.length, predictions=self.predictions).scaled(self.batch)

    def method(self) -> RaPTr:
        """RaPTr with this schedule."""
        return RaPTr(self.schedule)

    def facts(self) -> dict[str, Any]:
        """What a reader needs to know of it."""
        return {
            "layers": self.layers,
            "hidden_size": self.config.hidden_size,
            "vocabulary": self.config.vocab_size,
            "schedule": self.schedule,
            "batch": self.batch,
            "length": self.length,
        }


def llama(name: str, schedule: str, batch: int, length: int, **config: Any) -> Case:
    """A Llama, which has no dropout."""
    settings = {"max_position_embeddings": length, **config}
    made = LlamaConfig(use_cache=False, **settings)
    return Case(name=name, config=made, settings=settings, schedule=schedule, batch=batch, length=length)


def bert(name: str, schedule: str, batch: int, length: int, **config: Any) -> Case:
    """A BERT without dropout."""
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings = {"max_position_embeddings": length, **without, **config}
    return Case(
        name=name, config=BertConfig(**settings), settings=settings, schedule=schedule, batch=batch, length=length
    )


CPU = (
    llama(
        "Llama, 512 wide",
        "6-8-10-12",
        4,
        128,
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=12,
        num_attention_heads=8,
    ),
    bert(
        "BERT, 512 wide",
        "6-8-10-12",
        4,
        128,
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=8,
    ),
)
"""What two cores can measure in minutes."""

GPU = (
    bert("BERT-base", "6-8-10-12", 64, 512, vocab_size=30522),
    llama(
        "Llama-1B",
        "12-16-20-24",
        4,
        2048,
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=32,
        num_key_value_heads=4,
    ),
)
"""BERT-base as published, without dropout; the layers of TinyLlama (1.1B), 24 of them."""


def tiny(case: Case) -> Case:
    """The same kind of model so small that every measurement ends in seconds: to see that it works."""
    small: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "vocab_size": 512}
    settings = {**case.settings, **small}
    if "num_key_value_heads" in settings:
        settings["num_key_value_heads"] = 2
    make = bert if case.masked else llama
    del settings["max_position_embeddings"]
    return make(case.name, case.schedule, 2, 32, **settings)
