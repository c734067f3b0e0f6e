"""Growth: at a stage boundary layers get what other layers have learned, in place.

No parameter is made or replaced, so optimizers, DDP and FSDP2 go on with the same ones. Every source is read before
anything is written: a chain or a swap of copies means what it says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.check import Layers
from raptr.model.optimizer import set_anew
from raptr.plan import Copy


@dataclass(frozen=True)
class _Written:
    """What becomes of one tensor of a target.

    Attributes:
        tensor: it.
        value: what is written.
        states: of each optimizer that holds it, the state of its source there, copied; None, which is state that
            begins anew, where there is none.
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


def copy_layers(layers: Layers, optimizers: Sequence[torch.optim.Optimizer], copies: Sequence[Copy]) -> None:
    """Copy layers onto layers: parameters, buffers and optimizer state, in place.

    Args:
        layers: of the model.
        optimizers: all that hold parameters of the layers.
        copies: what to copy. With ``reset`` the target's optimizer state begins anew; with ``silent`` the parameters
            at the ends of its branches are then zero, so that the layer returns its input.

    Raises:
        RaptrError: as `check_copies`, before anything is changed.
    """
    check_copies(layers, copies)
    for copy in copies:
        for layer in (copy.source, copy.target):
            _gather_not(layers.stacks[copy.stack].blocks[layer])
    writes = [written for copy in copies for written in _read(layers, optimizers, copy)]
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


def _read(layers: Layers, optimizers: Sequence[torch.optim.Optimizer], copy: Copy) -> Iterator[_Written]:
    """What is written by one copy, read now."""
    if copy.source == copy.target:
        return
    blocks = layers.stacks[copy.stack].blocks
    source = dict(_tensors(blocks[copy.source]))
    for name, tensor in _tensors(blocks[copy.target]):
        read = source[name]
        known = [] if copy.reset else [o for o in optimizers if _holds(o, tensor)]
        states = tuple((o, _cloned(o.state[read]) if read in o.state else None) for o in known)
        yield _Written(tensor, read.detach().clone(), states)


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
            before[key] = value


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


def _gather_not(block: nn.Module) -> None:
    """Make the parameters of a layer under FSDP2 those that the optimizer holds, if they were left gathered."""
    from torch.distributed.fsdp import FSDPModule

    for module in block.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _tensors(block: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*block.named_parameters(), *block.named_buffers()]


def _cloned(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if torch.is_tensor(value) else value for key, value in state.items()}
