"""The vocabulary head on masked positions only.

B sequences of T tokens, K masked positions in each, hidden size D, V entries of the vocabulary.

A masked language model's loss looks at K of T logits, but its head makes all (B, T, V). Here the positions
travel in the batch, as ``masked_positions`` of shape (B, K). The model takes them out of its arguments, and the head
gathers the hidden states (B, T, D) -> (B, K, D) before anything is multiplied. The forward is the model's own, so
that DDP and FSDP2 see what they always see; losses of Hugging Face's models flatten logits and labels, so that with
labels of shape (B, K) they are the same sum over the same positions.

As for layers (`raptr.model.gate.gate`) this is a swap of two classes for subclasses of the same name: nothing is
wrapped or renamed, and a copied or pickled model is an ordinary one. Without ``masked_positions`` the model does what
it did.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.class_swap import is_restorable, restore_class, swap_class
from raptr.model.discovery.meta_twin import attempts, first_that_runs

POSITIONS = "masked_positions"
"""What the positions are called in a batch."""

_HEAD = "_raptr_head"

_LENGTH, _PREDICTIONS = 8, 3  # of the runs that find the head and try it


@dataclass(slots=True)
class _Asked:
    """The positions that one forward was called with, and whether the head was."""

    positions: torch.Tensor
    gathered: bool = False


_ASKED: ContextVar[_Asked | None] = ContextVar("raptr_masked_positions", default=None)


class AttachedHead:
    """The handle that `attach_head` returns.

    Attributes:
        model: the model.
        name: the module that gathers: the first that works on the last hidden states.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model = model
        self.name = name
        self._swapped: tuple[nn.Module, ...] = (model, model.get_submodule(name))
        for module, methods in zip(self._swapped, (_taking, _gathering), strict=True):
            swap_class(module, methods, _HEAD, name)

    def __repr__(self) -> str:
        return f"raptr: {type(self.model).__name__} with {self.name} on {POSITIONS}"

    def detach(self) -> None:
        """Make the model an ordinary one again.

        Raises:
            RaptrError: it is one already, or a class was swapped again after `attach_head`.
        """
        if not all(is_restorable(module, _HEAD) for module in self._swapped):
            raise RaptrError(
                f"the head of this {type(self.model).__name__} cannot be detached: it was before, or its class was "
                "changed since (fully_shard does that; a sharded model stays attached, save it instead)."
            )
        for module in self._swapped:
            restore_class(module)


def attach_head(model: nn.Module) -> AttachedHead:
    """Let a masked language model run its vocabulary head on masked positions only, in place.

    ``model(input_ids=..., masked_positions=..., labels=...)`` with positions and labels of shape (B, K) then has
    the loss and the gradients of the same labels at their places in (B, T), and returns logits of shape (B, K, V):
    those of the masked positions only. A position may be given more than once (labels of -100 fill up a
    sequence that has fewer). Called without ``masked_positions``, the model is as it was.

    The head is the module that is given the last hidden states in a recorded run of a twin on the meta device
    (BERT's ``cls``, RoBERTa's ``lm_head``, ModernBERT's ``head``). That it then makes K logits is tried there too,
    before the model is changed.

    Args:
        model: a Hugging Face masked language model. Before DDP or ``fully_shard``.

    Returns:
        The handle that takes it off again.

    Raises:
        RaptrError: the model's head is attached already, or works otherwise.

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> config = BertConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        ...                     num_attention_heads=2)
        >>> model = BertForMaskedLM(config)
        >>> attach_head(model).name
        'cls'
        >>> tokens = torch.arange(16).view(2, 8)
        >>> model(tokens, masked_positions=torch.tensor([[1, 5], [0, 2]])).logits.shape
        torch.Size([2, 2, 64])
    """
    attached = f"the head of this {type(model).__name__} is attached already; use that handle."
    if isinstance(model, nn.Module) and _HEAD in model.__dict__:
        raise RaptrError(attached)
    name = find_head(model)
    if _HEAD in model.get_submodule(name).__dict__:
        raise RaptrError(attached)
    return AttachedHead(model, name)


def find_head(model: Any) -> str:
    """The name of the module that `attach_head` lets gather; the model is neither run nor changed.

    Raises:
        RaptrError: it cannot be told, or does not work on some positions only.
    """
    base = getattr(model, "base_model", model)
    if base is model or not hasattr(model, "get_output_embeddings") or model.get_output_embeddings() is None:
        raise RaptrError(
            f"{type(model).__name__} has no vocabulary head of its own beside a base model; expected a Hugging Face "
            "masked language model, like BertForMaskedLM."
        )
    if getattr(model, "sparse_prediction", False):
        raise RaptrError(
            "sparse_prediction=True is ModernBERT's own head on masked positions, whose shapes change with every "
            "batch; set sparse_prediction=False in the model's configuration."
        )
    ways = attempts(model, length=_LENGTH)
    seen = first_that_runs(model, ways, _first_heads).seen
    if not seen:
        raise RaptrError(f"no module of {type(model).__name__} is given its last hidden states; {_INSTEAD}.")
    name = seen[0]

    def predicted(twin: nn.Module) -> AbstractContextManager[None]:
        return _attached(twin, name, _PREDICTIONS)

    logits = getattr(first_that_runs(model, ways, predicted).output, "logits", None)
    if not isinstance(logits, torch.Tensor) or logits.shape[:-1] != (1, _PREDICTIONS):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else None
        raise RaptrError(
            f"{name} of {type(model).__name__} was given {_PREDICTIONS} positions and logits of the shape {shape} came "
            f"back; {_INSTEAD}."
        )
    return name


_INSTEAD = "its head cannot be run on masked positions only: give the labels of all positions instead"


def predicting(model: nn.Module, predictions: int) -> AbstractContextManager[None]:
    """Attach the head of a twin on the meta device, and run it on this many positions of one sequence."""
    return _attached(model, find_head(model), predictions)


@contextmanager
def _attached(twin: nn.Module, name: str, predictions: int) -> Iterator[None]:
    head = AttachedHead(twin, name)
    try:
        with _given(torch.zeros((1, predictions), dtype=torch.long, device="meta")):
            yield
    finally:
        head.detach()


@contextmanager
def _first_heads(twin: nn.Module) -> Iterator[list[str]]:
    """The modules that are called with what the base model returned, in order."""
    base: nn.Module = twin.base_model  # type: ignore[assignment]
    states, seen = list[Any](), list[str]()
    inside = {id(module) for module in base.modules()}

    def returned(module: nn.Module, args: Any, output: Any) -> None:
        states.append(output[0])

    def called(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            if states and args and args[0] is states[-1]:
                seen.append(name)

        return hook

    handles = [base.register_forward_hook(returned)]
    for name, module in twin.named_modules():
        if module is not twin and id(module) not in inside:
            handles.append(module.register_forward_pre_hook(called(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _given(positions: torch.Tensor | None) -> Iterator[_Asked | None]:
    asked = None if positions is None else _Asked(positions)
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)


def _taking(original: Any) -> dict[str, Any]:
    """``__call__`` of a model that takes the positions out of its arguments."""

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        positions = kwargs.pop(POSITIONS, None)
        if positions is None:
            return original.__call__(self, *args, **kwargs)
        with _given(positions) as asked:
            output = original.__call__(self, *args, **kwargs)
        assert asked is not None
        if not asked.gathered:
            raise RaptrError(
                f"{type(self).__name__} was given {POSITIONS}, but its head did not run; "
                "call the model itself, and not with an argument that leaves the head out."
            )
        return output

    return {"__call__": __call__}


def _gathering(original: Any) -> dict[str, Any]:
    """``__call__`` of a head that works on the asked positions only."""

    def __call__(self: nn.Module, states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        asked = _ASKED.get()
        if asked is not None and not asked.gathered:
            asked.gathered = True
            states = _gather(states, asked.positions)
        return original.__call__(self, states, *args, **kwargs)

    return {"__call__": __call__}


def _gather(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(B, T, D) and (B, K) -> (B, K, D)."""
    if positions.dim() != 2 or positions.shape[0] != states.shape[0] or positions.is_floating_point():
        raise RaptrError(
            f"{POSITIONS} has the shape {tuple(positions.shape)} and the type {positions.dtype}; expected whole "
            f"numbers of shape ({states.shape[0]}, K), K positions for each sequence."
        )
    return states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[-1]))
