"""The smaller model made of the kept layers: what training a path must be equal to.

It is built by the model's own constructor from a config with fewer layers, and knows nothing of
gates, plans or raptr. Its gradients are then named as in the full model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

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
PER_LAYER = ("layer_types", "mlp_layer_types")


def full_name(name: str, kept: Kept) -> str:
    """The full model's name of what the shallow model calls ``name``."""
    for stack, layers in kept.items():
        if name.startswith(stack + "."):
            index, rest = name[len(stack) + 1 :].split(".", 1)
            return f"{stack}.{layers[int(index)]}.{rest}"
    return name


def config_of(full: nn.Module, kept: Kept) -> Any:
    """The full model's config with as many layers as are kept."""
    config = copy.deepcopy(full.config)
    for stack, layers in kept.items():
        depth = DEPTH.get(stack, "num_hidden_layers")
        setattr(config, depth if hasattr(config, depth) else "num_hidden_layers", len(layers))
        for entry in PER_LAYER:
            if getattr(config, entry, None):
                setattr(config, entry, [getattr(config, entry)[i] for i in layers])
    return config


def shallow(full: nn.Module, kept: Kept) -> nn.Module:
    """A separately constructed model of the kept layers, with copies of the full model's weights.

    Build it from a model that is not attached: it must not depend on what is tested.
    """
    assert "raptr" not in type(full).__module__
    if hasattr(full, "config"):
        small = type(full)(config_of(full, kept))
    else:
        (layers,) = kept.values()
        small = full.smaller(layers)
    weights = full.state_dict()
    reference = next(full.parameters())
    small = small.to(dtype=reference.dtype, device=reference.device)
    small.load_state_dict({name: weights[full_name(name, kept)].clone() for name in small.state_dict()})
    small.train(full.training)
    small_storage = {p.data_ptr() for p in small.parameters()}
    assert small_storage.isdisjoint(p.data_ptr() for p in full.parameters())
    return small


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """Every parameter's gradient, copied; None where there is none."""
    return {n: None if p.grad is None else p.grad.detach().clone() for n, p in model.named_parameters()}


def expected_gradients(full: nn.Module, small: nn.Module, kept: Kept) -> dict[str, Tensor | None]:
    """The shallow model's gradients under the full model's names; None for what was skipped."""
    found = {full_name(name, kept): grad for name, grad in gradients(small).items()}
    names = [name for name, _ in full.named_parameters()]
    assert set(found) <= set(names)
    return {name: found.get(name) for name in names}
