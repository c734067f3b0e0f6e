"""Skipped layers and the optimizer.

A layer that did not take part in a step has no gradient. ``freeze`` makes sure that the optimizer
leaves it and its state alone; ``zero`` gives it zero gradients, so that momentum and weight decay
go on acting, as they do in frameworks where every parameter always has a gradient.
"""

import warnings
from collections import OrderedDict, defaultdict
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
    to load. The state is made by a step of the same optimizer class on stand-ins: zeros of each
    parameter's shape with zero gradients. Its step count is set back to 0, which is bit-identical to
    making it later; the parameters, their gradients and the optimizer's hooks are not touched.

    Raises:
        RaptrError: the optimizer cannot take such a step (LBFGS needs a closure).
    """
    strange: set[str] = set()
    for group in optimizer.param_groups:
        if group.get("momentum") and group.get("dampening"):
            continue  # SGD's first momentum is then the undamped gradient: zeros would not be the same
        for p in group["params"]:
            if p.requires_grad and not optimizer.state.get(p):
                state = _first_state(optimizer, group, p)
                if state.keys() <= _ZERO_STATE:
                    optimizer.state[p] = state
                strange |= state.keys() - _ZERO_STATE
    if strange:
        warnings.warn(
            f"the state of {type(optimizer).__name__} ({', '.join(sorted(strange))}) is not known to begin at zero, so "
            "it is left to be made when a layer is first trained; a sharded checkpoint written before may not load.",
            stacklevel=3,
        )


def _first_state(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: torch.Tensor) -> dict[str, Any]:
    """The state that an optimizer would make for a parameter, before its first step."""
    twin = torch.zeros_like(p, requires_grad=True)
    twin.grad = torch.zeros_like(p)
    stand_in = object.__new__(type(optimizer))
    stand_in.__dict__.update(optimizer.__dict__)
    stand_in.__dict__.pop("step", None)  # a scheduler's patch, which counts steps
    stand_in.__dict__.update(
        param_groups=[{**group, "params": [twin]}],
        state=defaultdict(dict),
        _optimizer_step_pre_hooks=OrderedDict(),
        _optimizer_step_post_hooks=OrderedDict(),
    )
    try:
        stand_in.step()
    except TypeError as error:
        raise RaptrError(
            f"{type(optimizer).__name__} cannot make its state before the first step ({error}); "
            "use an optimizer whose step() needs no closure."
        ) from error
    state: dict[str, Any] = dict(stand_in.state[twin])
    if "step" in state:
        state["step"] = torch.zeros_like(state["step"]) if torch.is_tensor(state["step"]) else 0
    return state


def drop_gradients(skipped: Iterable[nn.Parameter]) -> None:
    """``freeze``: without a gradient, an optimizer leaves a parameter and its state alone."""
    for p in skipped:
        p.grad = None


def fill_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """``zero``: every parameter has a gradient, so that momentum and weight decay act on it."""
    for p in parameters:
        if p.grad is None and p.requires_grad:
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
