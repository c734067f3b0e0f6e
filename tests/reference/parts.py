"""Layers that run in part, computed by hand: on smaller models that know nothing of raptr.

Shapes: B sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raptr.plan import Subnetwork
from raptr.plan.layer_part import LayerPart, SequenceKey
from reference.family import Family, Path
from reference.rates import run_probability
from reference.shallow import expected_gradients

Scales = Sequence[Sequence[float]]
"""A factor for each kept layer of each stack."""


def scaled(path: Path, scales: Scales) -> Subnetwork:
    """A path with these factors."""
    return Subnetwork(path, tuple(tuple(LayerPart(scale=s) for s in each) for each in scales))


def masked(
    path: Path, scale: Callable[[int], float] = lambda layer: 1.0, keep: float = 0.6, *, inverse: bool = False
) -> Subnetwork:
    """A path whose layers run on some sequences each; layer 0 on all of them."""
    return Subnetwork(
        path,
        tuple(
            tuple(
                LayerPart(
                    scale=scale(layer), share=keep, sequences=SequenceKey(seed=8, step=0, stack=i), inverse=inverse
                )
                if layer
                else LayerPart(scale=scale(layer))
                for layer in layers
            )
            for i, layers in enumerate(path)
        ),
    )


def scale_by_hand(model: nn.Module, stacks: Sequence[str], scales: Scales) -> nn.Module:
    """Make every layer of a plain model return x + s * (f(x) - x)."""
    for stack, each in zip(stacks, scales, strict=True):
        for layer, scale in zip(model.get_submodule(stack), each, strict=True):
            layer.forward = _by_hand(layer.forward, scale)
    return model


def _by_hand(forward: Callable[..., Any], scale: float) -> Callable[..., Any]:
    def scaled_forward(*args: Any, **kwargs: Any) -> Any:
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        output = forward(*args, **kwargs)
        y, rest = (output, None) if isinstance(output, Tensor) else (output[0], output[1:])
        new = x + scale * (y - x)
        return new if rest is None else (new, *rest)

    return scaled_forward


def probed(family: Family, model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """What the model returns for a batch, with a graph: (B, ...)."""
    output = model(**batch)
    return output if family.by_hand else output.get("logits", output[0])


def _factor(part: LayerPart, size: int) -> float:
    """A layer's factor on the update of one of ``size`` sequences."""
    return part.scale / run_probability(part.share, size) if part.inverse else part.scale


def probe(like: Tensor) -> Tensor:
    """Random numbers that weigh every number of an output, so that a sum of them tells sequences apart."""
    return torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(3))


def one_by_one(
    family: Family, full: nn.Module, subnetwork: Subnetwork, batch: dict[str, Any], rank: int = 0
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Outputs and gradients of a batch, each sequence by itself on a smaller model of the layers that keep it.

    Args:
        family: of the model.
        full: an unattached model.
        subnetwork: the kept layers, with their sequences and factors.
        batch: B sequences.
        rank: whose batch it is.
    """
    size = next(iter(batch.values())).shape[0]
    outputs, total = [], dict[str, Tensor | None]()
    weights = None
    for number in range(size):
        path, scales = [], []
        for i in range(len(family.stacks)):
            pairs = list(subnetwork.kept(i))
            of_it = [(layer, _factor(part, size)) for layer, part in pairs if number in part.rows(layer, size, rank)]
            path.append([layer for layer, _ in of_it])
            scales.append([scale for _, scale in of_it])
        small = family.shallow(full, *path)
        if any(scale != 1 for each in scales for scale in each):
            scale_by_hand(small, list(family.stacks), scales)
        alone = {k: v[number : number + 1] if isinstance(v, Tensor) else v for k, v in batch.items()}
        output = probed(family, small, alone)
        if weights is None:
            weights = probe(output.new_empty((size, *output.shape[1:])))
        (output * weights[number]).sum().backward()
        outputs.append(output.detach())
        for name, grad in expected_gradients(full, small, family.kept(path)).items():
            before = total.get(name)
            total[name] = grad if before is None else before if grad is None else before + grad
    return torch.cat(outputs), total
