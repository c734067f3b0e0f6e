"""The gate: how a layer is skipped.

A block's class is swapped for a subclass of the same name whose ``__call__`` returns the hidden
states at once when the layer is not part of the subnetwork. Nothing is wrapped and nothing is
renamed, so parameter names, ``state_dict``, ``isinstance`` and auto-wrap policies that match class
names go on working. The gate stands before every hook, so that what hangs on a block (FSDP2's
gathering, checkpointing, a compiled graph) is not touched when the block is skipped.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from raptr.messages import warn
from raptr.model.class_swap import swap_class
from raptr.model.gate.outputs import Returns, Signature
from raptr.model.gate.partial_layer import run_in_part
from raptr.model.gate.unsupported import refuse_cache, refuse_recording
from raptr.plan.layer_part import WHOLE, LayerPart, all_whole

GATE = "_raptr_gate"
"""Name of the attribute that holds a block's gate."""


class Runs:
    """What an attached model remembers of its runs, for all of its stacks.

    Attributes:
        now: a number that rises with each optimizer step and each new step of a plan. What runs is stamped with it, so
            that every optimizer can tell what ran since its own last step.
        warned: whether training in evaluation mode was warned of.
    """

    __slots__ = ("now", "warned")

    def __init__(self) -> None:
        self.now = 0
        self.warned = False

    def advance(self) -> int:
        """Begin a new interval, and return its number."""
        self.now += 1
        return self.now


class Selection:
    """What runs of a stack. Its gates share it, so that a step sets it for all of them at once.

    Attributes:
        layers: the kept ones, rising.
        parts: what each of them runs of itself; nothing where all are whole.
        forced: whether this also holds in evaluation.
        whole: whether every layer runs, and all of itself.
        ran: the layers that ran with gradients, each with the `Runs.now` of its last run.
        runs: of the attached model.
    """

    __slots__ = ("_all", "_kept", "_places", "forced", "layers", "parts", "ran", "runs", "whole")

    def __init__(self, layers: int, runs: Runs) -> None:
        self._all = range(layers)
        self.ran: dict[int, int] = {}
        self.runs = runs
        self.keep(tuple(self._all))

    def keep(self, layers: Sequence[int], parts: Sequence[LayerPart] = (), *, forced: bool = False) -> None:
        """Run these layers, and of each what its part says."""
        self.layers, self.parts, self.forced = layers, parts, forced
        self._kept = frozenset(layers)
        self._places: dict[int, int] | None = None  # of the kept layers' parts; made when one is asked for
        self.whole = len(layers) == len(self._all) and all_whole(parts)

    def part(self, layer: int) -> LayerPart | None:
        """What a layer runs of itself; None for nothing."""
        if layer not in self._kept:
            return None
        if not self.parts:
            return WHOLE
        if self._places is None:
            self._places = dict(zip(self.layers, self._all, strict=False))
        return self.parts[self._places[layer]]


@dataclass(slots=True, eq=False)
class Gate:
    """What one layer asks when it is called.

    Attributes:
        signature: of the block's forward.
        returns: shared by the blocks of a stack.
        selection: what runs of the stack.
        layer: its number in the stack.
        required: whether the layer makes what others need; its return value is then no pattern for theirs.
    """

    signature: Signature
    returns: Returns
    selection: Selection
    layer: int
    required: bool = False

    def ran_since(self, stamp: int) -> bool:
        """Return whether the layer ran with gradients since `Runs.now` was ``stamp``."""
        return self.selection.ran.get(self.layer, -1) >= stamp


def gate_of(block: nn.Module) -> Gate | None:
    """The block's gate, or None for an ordinary block."""
    return block.__dict__.get(GATE)


def put_gates(
    blocks: Sequence[nn.Module], returns: Returns, required: Collection[int], runs: Runs | None = None
) -> Selection:
    """Swap the class of every block of a stack for its gated subclass.

    Args:
        blocks: of the stack.
        returns: what they return.
        required: the numbers of those that make what others need.
        runs: of the attached model; not needed where nothing is trained.
    """
    selection = Selection(len(blocks), runs or Runs())
    for layer, block in enumerate(blocks):
        gate = Gate(Signature.of(block), returns, selection, layer, layer in required)
        swap_class(block, _gated, GATE, gate)
    return selection


def _gated(original: Any) -> dict[str, Any]:
    """``__call__`` of the gated subclass of a block's class."""

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        gate: Gate = self.__dict__[GATE]
        returns, selection, layer = gate.returns, gate.selection, gate.layer
        run = partial(original.__call__, self)
        applies = self.training or selection.forced
        if applies and layer == 0 and not selection.whole:  # the first layer checks the call for all
            refuse_recording(returns.stack)
        part = selection.part(layer) if applies else WHOLE
        if part is not None:
            graded = torch.is_grad_enabled()
            if graded:
                selection.ran[layer] = selection.runs.now
            if part.scale != 1 or part.sequences is not None:
                signature, required = gate.signature, gate.required
                return run_in_part(run, part, returns, signature, args, kwargs, layer=layer, required=required)
            output = run(*args, **kwargs)
            if applies and not gate.required:
                returns.learn(output, gate.signature, args, kwargs)
            elif graded and not applies and not selection.whole and not selection.runs.warned:
                _warn_of_backward(output, selection.runs)
            return output
        if layer == 0:
            refuse_cache(returns.stack, (*args, *kwargs.values()))
        hidden = gate.signature.states(returns.stack, args, kwargs)
        if returns.pattern is None and returns.made is None:
            # No block of the stack has run yet: run this one once, to see what it returns.
            devices = [hidden.device] if hidden.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices):
                returns.learn(run(*args, **kwargs), gate.signature, args, kwargs)
        return returns.supply(hidden, args, kwargs)

    return {"__call__": __call__}


def _warn_of_backward(output: Any, runs: Runs) -> None:
    """Warn, once, when there is a backward through a layer that ran whole in evaluation mode, though less is active."""

    def seen(_: torch.Tensor) -> None:
        if not runs.warned:
            runs.warned = True
            warn(
                "a subnetwork is active, but this backward is of a model in evaluation mode, where all layers run, so "
                "that nothing was skipped and nothing saved: call model.train() before training. from_pretrained "
                "returns a model in evaluation mode, and a validation may have left it there.",
                inside=("raptr.", "torch."),
            )

    hidden = output[0] if isinstance(output, tuple) and output else output
    if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
        hidden.register_hook(seen)  # type: ignore[no-untyped-call]
