"""The smaller model made of the kept layers: what training a path must be equal to.

It is built by the model's own constructor from a config with fewer layers, and knows nothing of
gates, plans or raptr. Its gradients are then named as in the full model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Kept = Mapping[str, Sequence[int]]
"""Name of a stack in the full model -> the layers of it that are kept, ascending."""

# The config entry that holds a stack's depth, where it is not num_hidden_layers.
DEPTH = {
    "encoder.block": "num_layers",
    "decoder.block": "num_decoder_layers",
    "model.encoder.layers": "encoder_layers",
    "model.decoder.layers": "decoder_layers",
}
# Entries with one value per layer.
PER_LAYER = ("layer_types", "mlp_layer_types", "intermediate_size", "activation_sparsity_pattern")
# Tensors that hold a slice of every layer side by side, and the dimension along which (Gemma-3n, Gemma-4).
PACKED = {"embed_tokens_per_layer.weight": 1, "per_layer_model_projection.weight": 0}


def depth_entry(config: Any, stack: str) -> str:
    """The entry of a config that says how many layers a stack has."""
    entry = DEPTH.get(stack, "num_hidden_layers")
    return entry if hasattr(config, entry) else "num_hidden_layers"


def full_name(name: str, kept: Kept) -> str:
    """The full model's name of what the shallow model calls ``name``."""
    for stack, layers in kept.items():
        if name.startswith(stack + "."):
            index, rest = name[len(stack) + 1 :].split(".", 1)
            return f"{stack}.{layers[int(index)]}.{rest}"
    return name


def config_of(full: nn.Module, kept: Kept) -> Any:
    """The full model's config with as many layers as are kept, whatever it says of layers one by one."""
    config = copy.deepcopy(full.config)
    for stack, layers in kept.items():
        before = getattr(config, depth_entry(config, stack))
        setattr(config, depth_entry(config, stack), len(layers))
        for entry in PER_LAYER:
            if isinstance(getattr(config, entry, None), list):
                setattr(config, entry, [getattr(config, entry)[i] for i in layers])
        if getattr(config, "mlp_only_layers", None):
            config.mlp_only_layers = [new for new, old in enumerate(layers) if old in config.mlp_only_layers]
        if getattr(config, "num_kv_shared_layers", 0):  # the last ones reuse keys and values of others
            config.num_kv_shared_layers = sum(old >= before - config.num_kv_shared_layers for old in layers)
    return config


def shallow(full: nn.Module, kept: Kept) -> nn.Module:
    """A separately constructed model of the kept layers, with copies of the full model's weights.

    Build it from a model that is not attached: it must not depend on what is tested.
    """
    assert "raptr" not in type(full).__module__
    if hasattr(full, "config"):
        small = type(full)(config_of(full, kept))
        _build_layers_alike(small, full, kept)
    else:
        small = full.smaller(*kept.values())
    reference = next(full.parameters())
    small = small.to(dtype=reference.dtype, device=reference.device)
    weights = full.state_dict()
    small.load_state_dict({n: _taken(n, weights[full_name(n, kept)], w, kept) for n, w in small.state_dict().items()})
    small.train(full.training)
    small_storage = {p.data_ptr() for p in small.parameters()}
    assert small_storage.isdisjoint(p.data_ptr() for p in full.parameters())
    return small


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """Every parameter's gradient, copied; None where there is none."""
    return {n: None if p.grad is None else p.grad.detach().clone() for n, p in model.named_parameters()}


def expected_gradients(full: nn.Module, small: nn.Module, kept: Kept) -> dict[str, Tensor | None]:
    """The shallow model's gradients under the full model's names; None for what was skipped."""
    small_gradients = gradients(small)
    found = {full_name(name, kept): grad for name, grad in small_gradients.items()}
    parameters = dict(full.named_parameters())
    assert set(found) <= set(parameters)
    for name, grad in found.items():
        if grad is not None and grad.shape != parameters[name].shape:
            found[name] = _spread(name, grad, parameters[name], kept)
    return {name: found.get(name) for name in parameters}


def difference(full: nn.Module, small: nn.Module, kept: Kept, *, rtol: float = 0.0, atol: float = 0.0) -> list[str]:
    """One line for each parameter whose gradient is not what the smaller model says; bit for bit unless told."""
    expected, found, lines = expected_gradients(full, small, kept), gradients(full), []
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        grad = found[name]
        if (grad is None) != (right is None):
            lines.append(f"{name}: a gradient was {'not ' if right is None else ''}expected")
        elif grad is not None and right is not None and not torch.allclose(grad, right, rtol=rtol, atol=atol):
            lines.append(f"{name}: differs by up to {(grad - right).abs().max():.3g}")
    return lines


def _build_layers_alike(small: nn.Module, full: nn.Module, kept: Kept) -> None:
    """A part that the constructor leaves out by a layer's number (ModernBERT's first norm) as in the full model."""
    for stack, layers in kept.items():
        for new, old in enumerate(layers):
            mine, theirs = small.get_submodule(f"{stack}.{new}"), full.get_submodule(f"{stack}.{old}")
            for name, child in theirs.named_children():
                if isinstance(child, nn.Identity) != isinstance(mine.get_submodule(name), nn.Identity):
                    setattr(mine, name, copy.deepcopy(child))


def _taken(name: str, weight: Tensor, wanted: Tensor, kept: Kept) -> Tensor:
    """A copy of what the smaller model needs of one of the full model's tensors."""
    return (weight if weight.shape == wanted.shape else _cut(name, weight, wanted, kept)).clone()


def _packed(name: str) -> int:
    """Along which dimension a tensor holds a slice of every layer."""
    return next(dim for end, dim in PACKED.items() if name.endswith(end))


def _cut(name: str, weight: Tensor, wanted: Tensor, kept: Kept) -> Tensor:
    """The kept layers' slices of a packed tensor."""
    (layers,), dim = kept.values(), _packed(name)
    size = wanted.shape[dim] // len(layers)
    return torch.cat([weight.narrow(dim, i * size, size) for i in layers], dim)


def _spread(name: str, grad: Tensor, full: Tensor, kept: Kept) -> Tensor:
    """The gradient of a packed tensor from that of the kept layers' slices: zero elsewhere."""
    (layers,), dim = kept.values(), _packed(name)
    size, found = grad.shape[dim] // len(layers), torch.zeros_like(full)
    for new, old in enumerate(layers):
        found.narrow(dim, old * size, size).copy_(grad.narrow(dim, new * size, size))
    return found
