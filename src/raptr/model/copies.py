"""Growth: at a stage boundary layers get what other layers have learned, in place.

No parameter is made or replaced, so optimizers, DDP and FSDP2 go on with the same ones. Every source is read before
anything is written: a chain or a swap of copies means what it says.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.discovery.layers import Layers
from raptr.model.optimizer import set_anew
from raptr.plan import Copy


@dataclass(frozen=True)
class _Written:
    """What becomes of one tensor of a target.

    Attributes:
        tensor: it.
        value: what is written.
        states: of each optimizer that holds it, the state of its source there; None, which is state that begins anew,
            where there is none.
    """

    tensor: torch.Tensor
    value: torch.Tensor
    states: tuple[tuple[torch.optim.Optimizer, dict[str, Any] | None], ...]


def check_copies(layers: Layers, copies: Sequence[Copy]) -> None:
    """Refuse copies that cannot be made; nothing is changed.

    Raises:
        RaptrError: a layer is out of range or written twice, has a tensor that its source lacks, or is to begin
            silent where no parameters make it so.
    """
    written = set()
    for copy in copies:
        count = len(layers.stacks[copy.stack].blocks) if 0 <= copy.stack < len(layers.stacks) else 0
        if not (0 <= copy.source < count and 0 <= copy.target < count):
            raise RaptrError(f"{copy} names a layer that the model does not have; layers are numbered from 0.")
        stack = layers.stacks[copy.stack]
        if (copy.stack, copy.target) in written:
            raise RaptrError(
                f"layer {copy.target} of {stack.name!r} would be written by two copies of one step; give one of them."
            )
        written.add((copy.stack, copy.target))
        source, target = (dict(_tensors(stack.blocks[layer])) for layer in (copy.source, copy.target))
        lacking = [name for name in target if name not in source or source[name].shape != target[name].shape]
        if lacking:
            raise RaptrError(
                f"layer {copy.source} of {stack.name!r} cannot be copied onto layer {copy.target}: their parameters "
                f"differ in name or shape ({', '.join(lacking[:3])})."
            )
        if copy.silent:
            _silencing(layers, copy)


def copy_layers(
    model: nn.Module, layers: Layers, optimizers: Sequence[torch.optim.Optimizer], copies: Sequence[Copy]
) -> None:
    """Copy layers onto layers: parameters, saved buffers and optimizer state, in place.

    Buffers that are not saved (a window's mask, the angles of rotary positions) are a layer's own: a local layer stays
    local, in memory as in a checkpoint.

    Args:
        model: the model.
        layers: of the model.
        optimizers: all that hold parameters of the layers.
        copies: what to copy. With ``reset`` the target's optimizer state begins anew; with ``silent`` the parameters
            at the ends of its branches are then zero, so that the layer returns its input.

    Raises:
        RaptrError: as `check_copies`, before anything is changed.
    """
    check_copies(layers, copies)
    _gather_not(model)
    targets = (layers.stacks[copy.stack].blocks[copy.target] for copy in copies)
    changed = {id(tensor) for block in targets for _, tensor in _tensors(block)}
    writes = [written for copy in copies for written in _read(layers, optimizers, copy, changed)]
    with torch.no_grad():
        for written in writes:
            written.tensor.copy_(written.value)
            for optimizer, state in written.states:
                _write_state(optimizer, written.tensor, state)
        for copy in copies:
            if copy.silent:
                parameters = dict(layers.stacks[copy.stack].blocks[copy.target].named_parameters())
                for name in _silencing(layers, copy):
                    parameters[name].zero_()
    for copy in copies:
        if copy.reset:
            for parameter in layers.stacks[copy.stack].blocks[copy.target].parameters():
                for optimizer in optimizers:
                    set_anew(optimizer, parameter)


def _read(
    layers: Layers, optimizers: Sequence[torch.optim.Optimizer], copy: Copy, changed: Collection[int]
) -> Iterator[_Written]:
    """What is written by one copy, read now; only what is itself changed is copied aside, which takes memory."""
    if copy.source == copy.target:
        return
    blocks = layers.stacks[copy.stack].blocks
    source = dict(_tensors(blocks[copy.source]))
    for name, tensor in _tensors(blocks[copy.target]):
        read = source[name]
        known = [] if copy.reset else [o for o in optimizers if _holds(o, tensor)]
        value, found = read.detach(), tuple((o, o.state.get(read)) for o in known)
        if id(read) in changed:
            value, found = value.clone(), tuple((o, _cloned(state)) for o, state in found)
        yield _Written(tensor, value, found)


def _holds(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> bool:
    return any(held is parameter for group in optimizer.param_groups for held in group["params"])


def _write_state(optimizer: torch.optim.Optimizer, written: torch.Tensor, state: dict[str, Any] | None) -> None:
    """Give a parameter another state, in the tensors that it has."""
    if state is None:
        set_anew(optimizer, written)
        return
    before = optimizer.state[written]
    for key in before.keys() - state.keys():
        del before[key]
    for key, value in state.items():
        old = before.get(key)
        if torch.is_tensor(old) and torch.is_tensor(value) and old.shape == value.shape and old.dtype == value.dtype:
            old.copy_(value)
        else:
            before[key] = value.clone() if torch.is_tensor(value) else value


def _silencing(layers: Layers, copy: Copy) -> tuple[str, ...]:
    """The parameters of a target that have to be zero for it to return its input."""
    asked = f"layer {copy.target} of {layers.stacks[copy.stack].name!r} was to begin silent, returning its input"
    if layers.verified is None:
        raise RaptrError(
            f"{asked}, but its layers were taken on trust, so it is not known which parameters do that; "
            "pass inputs= to attach."
        )
    seen = layers.verified[copy.stack].branches[copy.target]
    if seen.outputs is None:
        why = (
            "no parameters at the ends of its branches do that"
            if seen.residual
            else "it does not return its input plus an update (a post-norm layer normalises the sum)"
        )
        raise RaptrError(f"{asked}, but {why}; copy it without silent=True, or use a pre-norm model.")
    return seen.outputs


def _gather_not(model: nn.Module) -> None:
    """Make the parameters under FSDP2 those that the optimizer holds, if they were left gathered.

    All of the model: what holds a layer's parameters may be a module around it, and a root stays gathered after a
    forward without gradients.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _tensors(block: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The parameters of a layer, and those of its buffers that a checkpoint keeps."""
    buffers = [
        (f"{prefix}.{name}".lstrip("."), buffer)
        for prefix, module in block.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    ]
    return [*block.named_parameters(), *buffers]


def _cloned(state: dict[str, Any] | None) -> dict[str, Any] | None:
    return state and {key: value.clone() if torch.is_tensor(value) else value for key, value in state.items()}
