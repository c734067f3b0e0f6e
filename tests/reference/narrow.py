"""Two slow models of a narrow subnetwork, written differently from raptr and from each other.

`narrow` is really smaller: for Llama, Qwen3 and T5 made by the model's own constructor from a config with fewer heads
and neurons, for BERT and GPT-2 (whose heads are a fixed share of the hidden size) from a copy whose projections are
replaced by smaller ones. Every layer has as many heads and neurons, but may choose others; T5's layers share a bias
by head, so there all layers of a stack choose the same.

`masked` is the whole model, in which hooks set to zero what an unselected head or neuron hands on. It wastes all the
work, and can choose anything anywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raptr.plan.layer_part import LayerPart
from raptr.plan.subnetwork import Subnetwork


@dataclass(frozen=True)
class Chosen:
    """The kept heads and neurons of one layer, and the factors on what leads out of them."""

    heads: Sequence[int]
    neurons: Sequence[int]
    head_scale: float = 1.0
    neuron_scale: float = 1.0

    @property
    def part(self) -> LayerPart:
        """The same in raptr's words."""
        return LayerPart(
            heads=tuple(self.heads),
            neurons=tuple(self.neurons),
            head_scale=self.head_scale,
            neuron_scale=self.neuron_scale,
        )


Choice = Mapping[str, Sequence[Chosen]]
"""Name of a stack -> what each of its layers keeps."""


def subnetwork(choice: Choice) -> Subnetwork:
    """All layers, each with its choice."""
    layers = tuple(tuple(range(len(chosen))) for chosen in choice.values())
    return Subnetwork(layers, tuple(tuple(one.part for one in chosen) for chosen in choice.values()))


# Last name of a projection -> (what, the dimension of its weight, how many times the units lie in it).
# Weights are (outputs, inputs), but GPT-2's (inputs, outputs).
LINEAR = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "query", "key", "value", "q", "k", "v"), ("heads", 0, 1)),
    **dict.fromkeys(("o_proj", "o", "attention.output.dense"), ("heads", 1, 1)),
    **dict.fromkeys(("gate_proj", "up_proj", "intermediate.dense", "wi", "wi_0", "wi_1"), ("neurons", 0, 1)),
    **dict.fromkeys(("down_proj", "output.dense", "wo"), ("neurons", 1, 1)),
}
CONV = {
    "attn.c_attn": ("heads", 1, 3),
    "attn.c_proj": ("heads", 0, 1),
    "mlp.c_fc": ("neurons", 1, 1),
    "mlp.c_proj": ("neurons", 0, 1),
}
TABLE = {"relative_attention_bias": ("heads", 1, 1)}


def rule_of(name: str) -> tuple[str, int, int] | None:
    """What of a module is chosen, by the longest end of its name that is known."""
    rules = {**LINEAR, **CONV, **TABLE}
    ends = [end for end in rules if name == end or name.endswith("." + end)]
    return rules[max(ends, key=len)] if ends else None


def counts(model: nn.Module) -> tuple[int, int]:
    """How many heads (key-value heads) and neurons a layer of the model has, by its config."""
    config: Any = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    neurons = next(n for n in ("intermediate_size", "d_ff", "n_inner") if hasattr(config, n))
    return heads, getattr(config, neurons) or 4 * config.n_embd


def indices(name: str, parameter: Tensor, chosen: Chosen, sizes: tuple[int, int]) -> tuple[int, list[int]] | None:
    """The dimension of a parameter, and the entries along it, that a layer keeps; None where all are."""
    module, _, last = name.rpartition(".")
    rule = rule_of(module)
    if rule is None:
        return None
    what, dim, times = rule
    if last == "bias":
        if (dim == 1) != any(module.endswith(end) for end in CONV):
            return None  # of what leads out of the heads or neurons
        dim = 0
    units, kept = (sizes[0], chosen.heads) if what == "heads" else (sizes[1], chosen.neurons)
    size, rest = divmod(parameter.shape[dim], units * times)
    assert rest == 0, name
    return dim, [(t * units + unit) * size + i for t in range(times) for unit in kept for i in range(size)]


def kept_of(model: nn.Module, choice: Choice) -> dict[str, tuple[int, list[int]]]:
    """`indices` of every parameter of which a part is kept."""
    found = {}
    for stack, chosen in choice.items():
        for layer, one in enumerate(chosen):
            prefix = f"{stack}.{layer}."
            for name, parameter in model.named_parameters():
                if name.startswith(prefix) and (kept := indices(name, parameter, one, counts(model))):
                    found[name] = kept
    return found


def narrow(full: nn.Module, choice: Choice) -> nn.Module:
    """A smaller model with copies of the full model's weights; the full model must not be attached."""
    every = [one for chosen in choice.values() for one in chosen]
    (heads,), (neurons,) = {len(one.heads) for one in every}, {len(one.neurons) for one in every}
    kept = kept_of(full, choice)
    state = {
        name: value.index_select(kept[name][0], torch.tensor(kept[name][1])) if name in kept else value
        for name, value in full.state_dict().items()
    }
    small = _constructed(full, heads, neurons) or _replaced(full, heads, neurons, state)
    reference = next(full.parameters())
    small.to(dtype=reference.dtype).load_state_dict({name: value.clone() for name, value in state.items()})
    small.train(full.training)
    for name, chosen in _layers(choice):
        _scale(small.get_submodule(name), chosen)
    return small


def masked(full: nn.Module, choice: Choice) -> nn.Module:
    """A copy of the whole model in which nothing comes out of the heads and neurons that are not kept."""
    whole, sizes = copy.deepcopy(full), counts(full)
    for name, chosen in _layers(choice):
        for path, module, what, factor in _outward(whole.get_submodule(name), chosen):
            _, entries = indices(f"{path}.weight", module.weight, chosen, sizes) or (0, [])
            mask = torch.zeros(module.weight.shape[_inputs(path)], dtype=module.weight.dtype)
            mask[entries] = factor
            assert what
            module.register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask, *args[1:]))
    return whole


def difference(full: nn.Module, other: nn.Module, choice: Choice, *, rtol: float = 1e-9, atol: float = 1e-12) -> list:
    """One line for each parameter whose gradient is not the other's: zero where nothing was kept."""
    kept, lines, others = kept_of(full, choice), [], dict(other.named_parameters())
    for name, parameter in full.named_parameters():
        right = others[name].grad
        if right is not None and right.shape != parameter.shape:
            dim, entries = kept[name]
            right = torch.zeros_like(parameter).index_copy_(dim, torch.tensor(entries), right)
        found = parameter.grad
        if (found is None) != (right is None):
            lines.append(f"{name}: a gradient was {'not ' if right is None else ''}expected")
        elif found is not None and right is not None:
            if not torch.allclose(found, right, rtol=rtol, atol=atol):
                lines.append(f"{name}: differs by up to {(found - right).abs().max():.3g}")
            if name in kept and TABLE.keys().isdisjoint(name.split(".")):
                dim, entries = kept[name]
                others_of = torch.ones(parameter.shape[dim], dtype=torch.bool)
                others_of[entries] = False
                if found.index_select(dim, others_of.nonzero().flatten()).any():
                    lines.append(f"{name}: what was not kept has a gradient")
    return lines


def _layers(choice: Choice) -> list[tuple[str, Chosen]]:
    return [(f"{stack}.{i}", one) for stack, chosen in choice.items() for i, one in enumerate(chosen)]


def _inputs(path: str) -> int:
    return 0 if any(path.endswith(end) for end in CONV) else 1


def _outward(layer: nn.Module, chosen: Chosen) -> list[tuple[str, Any, str, float]]:
    """The projections of a layer that lead out of its heads and neurons."""
    found = []
    for name, module in layer.named_modules():
        path = f"layer.{name}"
        rule = rule_of(path)
        if rule is not None and name and not isinstance(module, nn.Embedding) and rule[1] == _inputs(path):
            factor = chosen.head_scale if rule[0] == "heads" else chosen.neuron_scale
            found.append((path, module, rule[0], factor))
    return found


def _scale(layer: nn.Module, chosen: Chosen) -> None:
    """Scale what projections lead out, but not their bias."""
    for _, module, _, factor in _outward(layer, chosen):
        if factor != 1:
            bias = 0.0 if module.bias is None else module.bias

            def scaled(_: Any, __: Any, output: Tensor, bias: Any = bias, factor: float = factor) -> Tensor:
                return factor * (output - bias) + bias

            module.register_forward_hook(scaled)


def _constructed(full: nn.Module, heads: int, neurons: int) -> nn.Module | None:
    """A model of a config with fewer heads and neurons, where head sizes do not depend on their number."""
    config: Any = copy.deepcopy(full.config)
    if config.model_type in ("t5", "mt5"):
        config.num_heads, config.d_ff = heads, neurons
    elif getattr(config, "head_dim", None) and getattr(config, "num_key_value_heads", None):
        config.num_attention_heads = heads * config.num_attention_heads // config.num_key_value_heads
        config.num_key_value_heads, config.intermediate_size = heads, neurons
    else:
        return None
    return type(full)(config)


def _replaced(full: nn.Module, heads: int, neurons: int, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy with smaller projections, and what its attention says of its size."""
    small = copy.deepcopy(full)
    for name, module in small.named_modules():
        if hasattr(module, "split_size"):
            module.split_size = heads * module.head_dim
        for key, parameter in list(module.named_parameters(recurse=False)):
            value = state[f"{name}.{key}".lstrip(".")]
            if value.shape != parameter.shape:
                setattr(module, key, nn.Parameter(torch.empty_like(value)))
                if hasattr(module, "nf"):
                    module.nf = module.weight.shape[1]
    return small
