"""The models that the model room is tested with: tiny, float64, no dropout unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reference.handwritten import Net, loss_of, some_tokens
from reference.shallow import shallow

VOCABULARY = 61
LAYERS = 6


def llama(layers: int = LAYERS, **options: Any) -> nn.Module:
    """A Llama with grouped key-value heads and an untied head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    defaults: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "attention_dropout": 0.0,
    }
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **(defaults | options)))


def gpt2(layers: int = LAYERS, dropout: float = 0.0, **options: Any) -> nn.Module:
    """A GPT-2 with a tied head."""
    from transformers import GPT2Config, GPT2LMHeadModel

    defaults: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "n_embd": 16,
        "n_head": 2,
        "n_positions": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    drops = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    return GPT2LMHeadModel(GPT2Config(n_layer=layers, **(defaults | drops | options)))


def bert(layers: int = LAYERS, dropout: float = 0.0, **options: Any) -> nn.Module:
    """A BERT with a masked-language-model head, tied."""
    from transformers import BertConfig, BertForMaskedLM

    defaults: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    return BertForMaskedLM(BertConfig(num_hidden_layers=layers, **(defaults | options)))


def handwritten(block: str) -> Callable[..., nn.Module]:
    """A builder of the hand-written network with this kind of block."""
    return lambda layers=LAYERS, **options: Net(layers, block, **options)


def causal_batch(seed: int = 5) -> dict[str, Any]:
    """Tokens that predict their successors; caching off, as training must be."""
    tokens = some_tokens(VOCABULARY, seed)
    return {"input_ids": tokens, "labels": tokens, "use_cache": False}


def masked_batch(seed: int = 5) -> dict[str, Any]:
    """Some positions are asked for, and the last sequence is padded."""
    tokens = some_tokens(VOCABULARY, seed)
    asked = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    asked[:, 0] = True
    mask = torch.ones_like(tokens)
    mask[-1, 7:] = 0
    labels = tokens.masked_fill(~asked | (mask == 0), -100)
    return {"input_ids": tokens.masked_fill(asked, 3), "attention_mask": mask, "labels": labels}


def handwritten_batch(seed: int = 5) -> dict[str, Any]:
    """Tokens for the hand-written networks."""
    return {"tokens": some_tokens(VOCABULARY, seed)}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one kind of model is built, fed and compared."""

    name: str
    make: Callable[..., nn.Module]
    stack: str
    batch: Callable[..., dict[str, Any]]
    by_hand: bool = False

    def build(self, layers: int = LAYERS, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any):
        """A model in training mode whose weights depend on the seed only; every tensor is random."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.make(layers, **options).to(dtype).train()
            with torch.no_grad():  # biases and norms too, or a mix-up of layers could go unseen
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    def blocks(self, model: nn.Module) -> nn.ModuleList | None:
        """What to pass as ``blocks=``: nothing where raptr must find the layers by itself."""
        return model.get_submodule(self.stack) if self.by_hand else None

    def layers(self, model: nn.Module) -> nn.ModuleList:
        """The model's layers."""
        return model.get_submodule(self.stack)

    def loss(self, model: nn.Module, seed: int = 5) -> Tensor:
        """The loss of the batch of this seed."""
        batch = self.batch(seed)
        return loss_of(model, **batch) if self.by_hand else model(**batch).loss

    def logits(self, model: nn.Module, seed: int = 5) -> Tensor:
        """The model's output for the batch of this seed, without a graph."""
        batch = self.batch(seed)
        with torch.no_grad():
            return model(**batch) if self.by_hand else model(**batch).logits

    def shallow(self, model: nn.Module, kept: Sequence[int]) -> nn.Module:
        """The reference made of the kept layers."""
        return shallow(model, {self.stack: kept})


LLAMA = Family(name="llama", make=llama, stack="model.layers", batch=causal_batch)
GPT2 = Family(name="gpt2", make=gpt2, stack="transformer.h", batch=causal_batch)
BERT = Family(name="bert", make=bert, stack="bert.encoder.layer", batch=masked_batch)
HUGGING_FACE = (LLAMA, GPT2, BERT)
BY_HAND = tuple(
    Family(name=block, make=handwritten(block), stack="layers", batch=handwritten_batch, by_hand=True)
    for block in ("mlp", "attention", "tuple", "pair", "keyword")
)
MLP, ATTENTION, TUPLE, PAIR, KEYWORD = BY_HAND
ALL = (*HUGGING_FACE, *BY_HAND)
