"""The gate: how a layer is skipped.

A block's class is swapped for a subclass of the same name whose ``__call__`` returns the hidden
states at once when the layer is not part of the subnetwork. Nothing is wrapped and nothing is
renamed, so parameter names, ``state_dict``, ``isinstance`` and auto-wrap policies that match class
names go on working. The gate stands before every hook, so that what hangs on a block (FSDP2's
gathering, checkpointing, a compiled graph) is not touched when the block is skipped.
"""

import copyreg
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from raptr.errors import RaptrError

_GATE = "_raptr_gate"


@dataclass(slots=True, eq=False)
class Returns:
    """What the blocks of one stack return, learned from the first one that ran.

    Attributes:
        stack: the stack's name, for messages.
        wrap: makes a block's return value from hidden states; None until learned.
    """

    stack: str
    wrap: Callable[[torch.Tensor], Any] | None = None

    def learn(self, output: Any) -> None:
        """Take an executed block's return value as the pattern.

        Raises:
            RaptrError: it holds more than hidden states; a skipped block could not supply the rest.
        """
        if isinstance(output, torch.Tensor):
            self.wrap = _bare
        elif isinstance(output, tuple) and output and isinstance(output[0], torch.Tensor):
            if any(part is not None for part in output[1:]):
                raise RaptrError(
                    f"the layers of {self.stack!r} return {_describe(output)}; a skipped layer can only pass on "
                    "hidden states. Attach a model whose layers return a tensor, or (tensor, None, ...)."
                )
            rest = output[1:]
            self.wrap = lambda hidden: (hidden, *rest)
        else:
            raise RaptrError(
                f"the layers of {self.stack!r} return {_describe(output)}; "
                "expected a tensor of hidden states, or a tuple that begins with one."
            )


@dataclass(slots=True, eq=False)
class Gate:
    """What one layer asks when it is called.

    Attributes:
        hidden: the name of the block's first argument, the hidden states.
        returns: shared by the blocks of a stack.
        kept: whether the layer is part of the subnetwork.
        forced: whether the subnetwork also holds in evaluation.
        ran: whether the layer ran with gradients since the last optimizer step.
    """

    hidden: str
    returns: Returns
    kept: bool = True
    forced: bool = False
    ran: bool = False


def gate_of(block: nn.Module) -> Gate | None:
    """The block's gate, or None for an ordinary block."""
    return block.__dict__.get(_GATE)


def first_argument(block: nn.Module) -> str:
    """The name of a block's first argument, which must be the hidden states.

    Raises:
        RaptrError: the block's forward takes nothing.
    """
    for name in inspect.signature(block.forward).parameters:
        return name
    raise RaptrError(
        f"the forward of {type(block).__name__} takes no argument; a layer takes hidden states first and returns them."
    )


def put_gate(block: nn.Module, returns: Returns) -> Gate:
    """Swap the block's class for its gated subclass."""
    gate = Gate(first_argument(block), returns)
    block.__dict__[_GATE] = gate
    original: Any = type(block)
    block.__class__ = _gated(original)
    return gate


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
        run = super(gated, self).__call__
        if gate.kept or not (self.training or gate.forced):
            gate.ran |= torch.is_grad_enabled()
            output = run(*args, **kwargs)
            if gate.returns.wrap is None:
                gate.returns.learn(output)
            return output
        _refuse_recording(gate.returns.stack)
        hidden = args[0] if args else kwargs[gate.hidden]
        if gate.returns.wrap is None:
            # No block of the stack has run yet: run this one once, to see what it returns.
            devices = [hidden.device] if hidden.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices):
                gate.returns.learn(run(*args, **kwargs))
        assert gate.returns.wrap is not None
        return gate.returns.wrap(hidden)

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


def _refuse_recording(stack: str) -> None:
    """Refuse to skip a layer whose output was asked for: the list would come back shorter, without a word."""
    capturing = sys.modules.get("transformers.utils.output_capturing")
    collector = getattr(capturing, "_active_collector", None)
    asked = (collector.get() if collector is not None else None) or {}
    for name in asked:
        if name.endswith(("hidden_states", "attentions")):
            raise RaptrError(
                f"output_{name}=True was asked for while layers of {stack!r} are skipped: skipped layers have none, so "
                "the list would not match the layers. Ask for it in evaluation, where the full model runs."
            )


def _bare(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def _describe(output: Any) -> str:
    if isinstance(output, tuple):
        return "a tuple (" + ", ".join(type(part).__name__ for part in output) + ")"
    return f"a {type(output).__name__}"
