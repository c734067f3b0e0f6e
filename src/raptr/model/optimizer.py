"""Skipped layers and the optimizer.

A layer that did not take part in a step has no gradient. ``freeze`` makes sure that the optimizer
leaves it and its state alone; ``zero`` gives it zero gradients, so that momentum and weight decay
go on acting, as they do in frameworks where every parameter always has a gradient.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.plan import Copy

Inactive = Literal["freeze", "zero"]

# State that is zero before the first step, in torch's optimizers and those of the same build.
_ZERO_STATE = {
    "step",
    "exp_avg",
    "exp_avg_sq",
    "exp_inf",
    "max_exp_avg_sq",
    "momentum_buffer",
    "square_avg",
    "grad_avg",
    "row_var",
    "col_var",
    "variance",
}


def create_state(optimizer: torch.optim.Optimizer) -> None:
    """Create the optimizer state of every parameter that has none, as it is before the first step.

    Optimizers make a parameter's state when it first has a gradient. A checkpoint written before
    some layer was ever trained would then lack that layer's state, which sharded checkpoints refuse
    to load. One step with zero gradients, learning rate and weight decay makes the state without
    moving anything; its step count is set back to 0, which is bit-identical to making it later.
    """
    missing = [p for p in _parameters(optimizer) if p.requires_grad and not optimizer.state.get(p)]
    if not missing or any(group.get("dampening") for group in optimizer.param_groups):
        return
    gradients = {p: p.grad for p in _parameters(optimizer)}
    settings: list[dict[str, Any]] = [
        {key: group[key] for key in ("lr", "weight_decay") if key in group} for group in optimizer.param_groups
    ]
    wanted = set(missing)
    try:
        for p in gradients:
            p.grad = torch.zeros_like(p) if p in wanted else None
        for group, values in zip(optimizer.param_groups, settings, strict=True):
            group.update({k: torch.zeros_like(v) if torch.is_tensor(v) else 0.0 for k, v in values.items()})
        optimizer.step()
    finally:
        for group, values in zip(optimizer.param_groups, settings, strict=True):
            group.update(values)
        for p, gradient in gradients.items():
            p.grad = gradient
    strange = {key for p in missing for key in optimizer.state.get(p, {})} - _ZERO_STATE
    if strange:
        for p in missing:
            optimizer.state.pop(p, None)
        warnings.warn(
            f"the state of {type(optimizer).__name__} ({', '.join(sorted(strange))}) is not known to begin at zero, so "
            "it is left to be made when a layer is first trained; a sharded checkpoint written before may not load.",
            stacklevel=3,
        )
        return
    for p in missing:
        state = optimizer.state.get(p, {})
        if "step" in state:
            state["step"] = torch.zeros_like(state["step"]) if torch.is_tensor(state["step"]) else 0


def settle_gradients(skipped: Iterable[nn.Parameter], inactive: Inactive) -> None:
    """Give the parameters of skipped layers the gradient that the policy asks for."""
    for p in skipped:
        if inactive == "freeze":
            p.grad = None
        elif p.grad is None and p.requires_grad:
            p.grad = torch.zeros_like(p)


def copy_layers(
    stacks: Sequence[Sequence[nn.Module]], optimizers: Sequence[torch.optim.Optimizer], copies: Sequence[Copy]
) -> None:
    """Copy layers onto layers: parameters, buffers and optimizer state, in place.

    Every source is read before anything is written, so a chain or a swap of copies means what it
    says.

    Raises:
        RaptrError: a layer is out of range, or source and target differ in their tensors.
    """
    writes: list[tuple[torch.Tensor, torch.Tensor]] = []
    states: list[tuple[torch.optim.Optimizer, torch.Tensor, dict[str, Any]]] = []
    for copy in copies:
        source, target = (_layer(stacks, copy, layer) for layer in (copy.source, copy.target))
        pairs = list(zip(_tensors(source), _tensors(target), strict=False))
        if [(n, t.shape) for n, t in _tensors(source)] != [(n, t.shape) for n, t in _tensors(target)]:
            raise RaptrError(
                f"layer {copy.source} cannot be copied onto layer {copy.target} of stack {copy.stack}: "
                "their parameters differ in name or shape."
            )
        for (_, read), (_, written) in pairs:
            writes.append((written, read.detach().clone()))
            for optimizer in optimizers:
                if read in optimizer.state:
                    states.append((optimizer, written, _cloned(optimizer.state[read])))
    with torch.no_grad():
        for written, value in writes:
            written.copy_(value)
    for optimizer, written, state in states:
        optimizer.state[written] = state


def _layer(stacks: Sequence[Sequence[nn.Module]], copy: Copy, layer: int) -> nn.Module:
    if not (0 <= copy.stack < len(stacks) and 0 <= layer < len(stacks[copy.stack])):
        raise RaptrError(f"{copy} names a layer that the model does not have; layers are numbered from 0.")
    return stacks[copy.stack][layer]


def _tensors(block: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*block.named_parameters(), *block.named_buffers()]


def _cloned(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if torch.is_tensor(value) else value for key, value in state.items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
