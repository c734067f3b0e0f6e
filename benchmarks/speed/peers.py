"""Ways to train a half of the layers side by side: the same OPT, batch and seed, half of the layers kept.

What has no released code that takes such a model is written again here from its description, a function each. Half is
what each keeps on average; of OPT's own layerdrop, which draws every layer by itself, the number varies, so times are
means, and the share that really ran stands beside them.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import mean
from typing import Any

import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

import raptr
from raptr.plan import Copy, LayerPart, ModelShape, SequenceKey, Subnetwork
from raptr.plan.methods import ConstantSize
from speed.cases import Case
from speed.clock import Clock, Variant, in_turn
from speed.step import Step

FULL = "full"
KEEP = 0.5
WARMUP = 2


def peers(case: Case, device: str, rounds: int, clock: Clock, *, bf16: bool) -> dict[str, Any]:
    """Milliseconds of a step of each, its ratio to the full model, and the share of layers and sequences that ran."""
    tokens = case.inputs(device)["input_ids"]
    inputs = {"input_ids": tokens, "labels": tokens}
    variants: dict[str, Variant] = {}
    meters: dict[str, Meter] = {}
    missing = {way: "not installed" for way, package in NEEDS.items() if find_spec(package) is None}
    for name, prepare in WAYS.items():
        if name in missing:
            continue
        torch.manual_seed(0)
        model = opt(case, layerdrop=KEEP if name == LAYERDROP else 0.0).to(device)
        step = Step(model.train(), inputs, bf16=bf16)
        meters[name] = Meter(model.model.decoder.layers, case.batch)
        variants[name] = meters[name].after(WARMUP, prepare(step, rounds + WARMUP))
    seconds = in_turn(variants, rounds, clock, WARMUP)
    full = mean(seconds[FULL])
    rows: dict[str, Any] = {
        name: {
            "milliseconds": 1e3 * mean(times),
            "time_ratio": mean(times) / full,
            "share_that_ran": meters[name].layers / meters[FULL].layers,
        }
        for name, times in seconds.items()
    }
    return {**case.facts(), "model": "OPT", "ways": rows, "not_measured": {**missing, **LEFT_OUT}}


def opt(case: Case, layerdrop: float) -> Any:
    """An OPT as large as the case's model, without dropout."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=case.config.vocab_size,
            hidden_size=case.config.hidden_size,
            word_embed_proj_dim=case.config.hidden_size,
            ffn_dim=4 * case.config.hidden_size,
            num_hidden_layers=case.layers,
            num_attention_heads=case.config.num_attention_heads,
            max_position_embeddings=case.length,
            dropout=0.0,
            attention_dropout=0.0,
            layerdrop=layerdrop,
            use_cache=False,
        )
    )


class Meter:
    """How many layers were computed, one that a half of the sequences ran through being half of one.

    It looks at the MLP of each, which stands behind whatever decides what runs.
    """

    def __init__(self, blocks: Sequence[nn.Module], batch: int) -> None:
        self.layers = 0.0
        self._batch = batch
        for block in blocks:
            block.get_submodule("fc1").register_forward_pre_hook(self._count)

    def after(self, warmup: int, variant: Variant) -> Variant:
        """The same variant; what runs before is not counted."""

        def ready(turn: int) -> Callable[[], object]:
            if turn == warmup:
                self.layers = 0.0
            return variant(turn)

        return ready

    def _count(self, module: nn.Module, args: Any) -> None:
        self.layers += args[0].shape[0] / self._batch


def untouched(step: Step, turns: int) -> Variant:
    """The model as it is: full, or with its own layerdrop."""
    return lambda turn: step


def path(step: Step, turns: int) -> Variant:
    """raptr: exactly a half of the layers, another one at each step."""
    net = raptr.attach(step.model)
    net.prepare(step.optimizer)
    plan = ConstantSize("50%").plan(net.shape, turns)
    return activated(net, plan, step)


class HalfOfTheSequences:
    """raptr: every layer runs on a half of the sequences, each layer on another one. A plan of one's own."""

    def __init__(self, shape: ModelShape) -> None:
        (self._layers,) = shape.layers

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """All layers, each with its sequences."""
        part = LayerPart(share=KEEP, sequences=SequenceKey(seed=0, step=step, micro=micro), inverse=True)
        return Subnetwork((tuple(range(self._layers)),), ((part,) * self._layers,))

    def transition(self, step: int) -> tuple[Copy, ...]:
        """Nothing is copied."""
        return ()


def sequences(step: Step, turns: int) -> Variant:
    """raptr: half of the sequences of each layer."""
    net = raptr.attach(step.model)
    net.prepare(step.optimizer)
    return activated(net, HalfOfTheSequences(net.shape), step)


def activated(net: raptr.AttachedModel, plan: Any, step: Step) -> Variant:
    """A step of a plan, with what it takes to choose and set its part."""

    def ready(turn: int) -> Callable[[], object]:
        def run() -> None:
            net.activate(plan, turn)
            step()

        return run

    return ready


def masking(step: Step, turns: int) -> Variant:
    """DropPath, as in timm: everything is computed, and a sequence's update multiplied with 0 or 1 / keep."""

    def replaced(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def masked(states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            mask = torch.empty(len(states), 1, 1, dtype=states.dtype, device=states.device).bernoulli_(KEEP) / KEEP
            return states + mask * (forward(states, *args, **kwargs) - states)

        return masked

    return replacing(step, replaced)


def subsets(step: Step, turns: int) -> Variant:
    """DINOv2: a layer runs on a random half of the sequences, whose updates are added back, scaled."""

    def replaced(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def on_some(states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            batch = len(states)
            some = torch.randperm(batch, device=states.device)[: max(1, round(KEEP * batch))]
            part = states[some]
            own = {name: of_some(value, some, batch) for name, value in kwargs.items()}
            update = forward(part, *(of_some(value, some, batch) for value in args), **own) - part
            return torch.index_add(states, 0, some, update.to(states.dtype), alpha=batch / len(some))

        return on_some

    return replacing(step, replaced)


def of_some(value: Any, some: torch.Tensor, batch: int) -> Any:
    """What belongs to some of the sequences of an argument that has one entry for each."""
    each = isinstance(value, torch.Tensor) and value.dim() and len(value) == batch
    return value[some] if each else value


def replacing(step: Step, replaced: Callable[[Any], Any]) -> Variant:
    """Every layer with another forward."""
    layers: Any = step.model.get_submodule("model.decoder.layers")
    for layer in layers:
        layer.forward = replaced(layer.forward)
    return lambda turn: step


def layer_dropout(step: Step, turns: int) -> Variant:
    """torchtune's LayerDropout, where torchtune is installed: each sequence skips each layer by itself."""
    from torchtune.modules.layer_dropout import LayerDropout

    def replaced(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        dropout = LayerDropout(prob=1 - KEEP, seed=len(seeds))
        seeds.append(dropout)

        def dropped(states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return dropout(forward, states, *args, **kwargs)

        return dropped

    seeds: list[Any] = []
    return replacing(step, replaced)


LAYERDROP, TORCHTUNE = "transformers, OPTConfig(layerdrop=0.5)", "torchtune, LayerDropout"

WAYS: dict[str, Callable[[Step, int], Variant]] = {
    FULL: untouched,
    "raptr, half of the layers": path,
    "raptr, half of the sequences of each layer": sequences,
    LAYERDROP: untouched,
    "masking (DropPath)": masking,
    "sub-batches (DINOv2)": subsets,
    TORCHTUNE: layer_dropout,
}

NEEDS = {TORCHTUNE: "torchtune"}
"""Packages that are measured where they are installed; raptr does not need them."""

LEFT_OUT = {
    "DeepSpeed, progressive layer dropping": "it passes its share to the model as an argument that an OPT of "
    "transformers does not know, and skips nothing by itself"
}
