"""The gate: how a layer is skipped.

A block's class is swapped for a subclass of the same name whose ``__call__`` returns the hidden
states at once when the layer is not part of the subnetwork. Nothing is wrapped and nothing is
renamed, so parameter names, ``state_dict``, ``isinstance`` and auto-wrap policies that match class
names go on working. The gate stands before every hook, so that what hangs on a block (FSDP2's
gathering, checkpointing, a compiled graph) is not touched when the block is skipped.
"""

import copyreg
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from raptr.model.part import run_in_part
from raptr.model.recording import refuse_recording
from raptr.model.returns import Returns, Signature
from raptr.plan.subnetwork import WHOLE, LayerPart

_GATE = "_raptr_gate"


@dataclass(slots=True, eq=False)
class Gate:
    """What one layer asks when it is called.

    Attributes:
        signature: of the block's forward.
        returns: shared by the blocks of a stack.
        required: whether the layer makes what others need; its return value is then no pattern for theirs.
        kept: whether the layer is part of the subnetwork.
        part: what a kept layer runs of itself.
        forced: whether the subnetwork also holds in evaluation.
        checks: whether it is the first layer of its stack that is not run whole: it checks the call for all.
        ran: whether the layer ran with gradients since the last optimizer step.
    """

    signature: Signature
    returns: Returns
    required: bool = False
    kept: bool = True
    part: LayerPart = WHOLE
    forced: bool = False
    checks: bool = False
    ran: bool = False

    @property
    def in_part(self) -> bool:
        """Whether the layer's update is scaled, or for some sequences only."""
        return self.part.scale != 1 or self.part.sequences is not None


def gate_of(block: nn.Module) -> Gate | None:
    """The block's gate, or None for an ordinary block."""
    return block.__dict__.get(_GATE)


def put_gate(block: nn.Module, returns: Returns, *, required: bool = False) -> Gate:
    """Swap the block's class for its gated subclass."""
    gate = Gate(Signature.of(block), returns, required=required)
    block.__dict__[_GATE] = gate
    original: Any = type(block)
    block.__class__ = _gated(original)
    return gate


def keep_only(gates: Sequence[Gate], kept: Iterable[tuple[int, LayerPart]], *, forced: bool) -> None:
    """Set which layers of a stack run, and what each runs of itself."""
    for gate in gates:
        gate.kept = gate.checks = False
        gate.part, gate.forced = WHOLE, forced
    for layer, part in kept:
        gate = gates[layer]
        gate.kept, gate.part = True, part
    for gate in gates:
        if not gate.kept or (gate.part is not WHOLE and gate.part != WHOLE):
            gate.checks = True
            return


def take_gate(block: nn.Module) -> None:
    """Give the block its own class back."""
    block.__class__ = _ungated(type(block))
    del block.__dict__[_GATE]


def is_topmost(block: nn.Module) -> bool:
    """Whether the gated class is the block's own, and not hidden under a later class swap (FSDP2's)."""
    return "_raptr_original" in type(block).__dict__


@cache
def _gated(original: Any) -> Any:
    """The gated subclass of a block's class: the same name, the same module, two methods more."""

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        gate: Gate = self.__dict__[_GATE]
        returns = gate.returns
        run = super(gated, self).__call__
        applies = self.training or gate.forced
        if gate.checks and applies:
            refuse_recording(returns.stack)
        if gate.kept and applies and gate.in_part:
            gate.ran |= torch.is_grad_enabled()
            return run_in_part(run, gate.part, returns, gate.signature, args, kwargs, required=gate.required)
        if gate.kept or not applies:
            gate.ran |= torch.is_grad_enabled()
            output = run(*args, **kwargs)
            if applies and not gate.required:
                returns.learn(output, gate.signature, args, kwargs)
            return output
        hidden = gate.signature.states(returns.stack, args, kwargs)
        if returns.pattern is None and returns.made is None:
            # No block of the stack has run yet: run this one once, to see what it returns.
            devices = [hidden.device] if hidden.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices):
                returns.learn(run(*args, **kwargs), gate.signature, args, kwargs)
        return returns.supply(hidden, args, kwargs)

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:
        # deepcopy and pickle come here: what they make is an ordinary, full, unattached block.
        _, _, state, *rest = super(gated, self).__reduce_ex__(protocol)
        state = {name: value for name, value in state.items() if name != _GATE}
        return (copyreg._reconstructor, (original, object, None), state, *rest)  # type: ignore[attr-defined]

    body = {
        "__call__": __call__,
        "__reduce_ex__": __reduce_ex__,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "_raptr_original": original,
    }
    gated = type(original)(original.__name__, (original,), body)
    return gated


def _ungated(gated: type[nn.Module]) -> type[nn.Module]:
    original: type[nn.Module] = gated.__dict__["_raptr_original"]
    return original
