"""FLOPs of a training step, by layer.

Counted by torch's FlopCounterMode on a meta-device twin. Convention: 2 per multiply-add; causal
attention in full, not halved; backward twice the forward; matrix products, convolutions and attention only (no
norms, activations, embedding look-ups, loss or optimizer). Of a mixture of experts, those that a token uses.

The counter knows a formula for most products and passes over what it does not know: on the CPU it counts no
attention at all. So it is given those of products with a vector, and every operation is looked at too: one that
multiplies and has no formula (an attention kernel, a grouped product, anything that is not torch's own) makes that
count void.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from raptr.errors import RaptrError
from raptr.model.discovery.meta_twin import (
    CannotRun,
    Inputs,
    attempts,
    first_that_runs,
    has_decoder_inputs,
    takes_images,
)
from raptr.model.masked_head import predicting
from raptr.model.stacks import Blocks, Stack, find_stacks, path_of
from raptr.model.width.locate import Unsupported, find_width
from raptr.plan import LayerCosts

_aten = torch.ops.aten


def _matrix_vector(matrix: Sequence[int], vector: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _inner(one: Sequence[int], other: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * one[0]


def _outer(one: Sequence[int], other: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * one[0] * other[0]


def _after_first(formula: Callable[..., int]) -> Callable[..., int]:
    """Of an operation that also adds: its first argument is what is added to."""
    return lambda _, *shapes, **named: formula(*shapes, **named)


VECTORS = {
    _aten.mv: _matrix_vector,
    _aten.addmv: _after_first(_matrix_vector),
    _aten.dot: _inner,
    _aten.vdot: _inner,
    _aten.ger: _outer,
    _aten.addr: _after_first(_outer),
}
"""Formulas of products with a vector, from the shapes of the arguments, that torch's counter has none for."""

WITHOUT = {"addbmm", "_grouped_mm", "_scaled_grouped_mm", "_scaled_mm_v2", "_trilinear", "_cdist_forward"}
"""Torch's own products that no formula is known for, unless its counter has one by now."""

Parts = tuple[tuple[float, ...], ...]
"""FLOPs of a part of each layer of each stack."""

CONVENTION = "2 per multiply-add, matrix products and attention, causal attention in full, backward twice the forward"


def count_flops(
    model: nn.Module,
    length: int | None,
    blocks: Blocks | None = None,
    inputs: Inputs | None = None,
    target_length: int | None = None,
    predictions: int | None = None,
) -> LayerCosts:
    """Training FLOPs of one sequence, by layer.

    Args:
        model: a model; it is neither run nor changed.
        length: tokens per sequence, of an encoder-decoder those of the encoder. It may be None, and is not
            used, where something else says the size: ``inputs``, or the image size in the configuration.
        blocks: as for `attach`, for a module whose stacks cannot be told.
        inputs: the keyword arguments (a dict) or positional ones (a tuple) of one sequence, for a module
            whose inputs cannot be made up.
        target_length: tokens of the decoder of an encoder-decoder; as many as ``length`` if not given.
        predictions: how many positions of a sequence the vocabulary head runs on (`attach_head`); all if not given.

    Returns:
        `LayerCosts` in FLOPs: ``.layers[stack][layer]`` (and of it ``.heads`` and ``.neurons``, which shrink with
        those kept, where width can be chosen), ``.other`` (head and what else is not in a layer), ``.total``, and
        ``.step(subnetwork)`` for a step of a subnetwork. Forward and backward, for one sequence;
        ``.scaled(batch)`` for a batch.

    Raises:
        RaptrError: a length that is missing or does not fit, a model that cannot be run on the meta device, or one
            that multiplies where it cannot be counted.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        ...                      num_attention_heads=2)
        >>> count_flops(LlamaForCausalLM(config), length=16).total > 0
        True
    """
    return flops_of(
        model, find_stacks(model, blocks), length, inputs=inputs, target_length=target_length, predictions=predictions
    )


def flops_of(
    model: nn.Module,
    stacks: tuple[Stack, ...],
    length: int | None,
    *,
    inputs: Inputs | None,
    target_length: int | None,
    predictions: int | None = None,
) -> LayerCosts:
    """`count_flops` of a model whose stacks are known."""
    for name, given in (("length", length), ("target_length", target_length), ("predictions", predictions)):
        if given is not None and given < 1:
            raise RaptrError(f"{name} is {given}; a sequence has at least 1 token.")
    if predictions is not None and length is not None and predictions > length:
        raise RaptrError(f"predictions is {predictions}, but the sequence has {length} tokens.")
    if length is None and inputs is None and not takes_images(model):
        raise RaptrError(f"length is missing: say how many tokens a sequence of this {type(model).__name__} has.")
    if target_length is not None and not has_decoder_inputs(model):
        raise RaptrError(
            f"target_length is {target_length}, but {type(model).__name__} takes no sequence for a decoder; "
            "leave it out."
        )
    ways = attempts(model, length=length or 1, target_length=target_length, inputs=inputs)
    ran = first_that_runs(model, ways, _counted if predictions is None else partial(_counted, predictions=predictions))
    counts = ran.seen.get_flop_counts()

    def training_flops(name: str) -> float:
        return 3.0 * float(sum(counts.get(name, {}).values()))

    root = type(ran.twin).__name__

    def of_module(module: nn.Module) -> float:
        return training_flops(f"{root}.{path_of(model, module)}")

    layers = tuple(tuple(map(of_module, stack.blocks)) for stack in stacks)
    heads, neurons = _of_width(stacks, of_module)
    return LayerCosts(
        layers=layers, other=training_flops("Global") - sum(map(sum, layers)), heads=heads, neurons=neurons
    )


def _of_width(stacks: tuple[Stack, ...], flops: Callable[[nn.Module], float]) -> tuple[Parts, Parts]:
    """What each layer spends in its attention and in its MLP; nothing where no stack's width can be chosen.

    All that is counted inside them is a product with the chosen heads or neurons, and shrinks as they do. Of a
    stack without such a choice, beside one with, it is 0.
    """
    found = [find_width(stack) for stack in stacks]
    if all(isinstance(widths, Unsupported) for widths in found):
        return (), ()
    heads, neurons = list[tuple[float, ...]](), list[tuple[float, ...]]()
    for stack, widths in zip(stacks, found, strict=True):
        if isinstance(widths, Unsupported):
            heads.append((0.0,) * len(stack.blocks))
            neurons.append((0.0,) * len(stack.blocks))
        else:
            heads.append(tuple(sum(map(flops, width.attention)) for width in widths))
            neurons.append(
                tuple(sum(flops(p.module) for p in width.projections if p.what == "neurons") for width in widths)
            )
    return tuple(heads), tuple(neurons)


@contextmanager
def _counted(twin: nn.Module, predictions: int | None = None) -> Iterator[FlopCounterMode]:
    twin.requires_grad_(False)  # the counter follows modules by hooks on gradients, where there are any
    head = nullcontext() if predictions is None else predicting(twin, predictions)
    with (
        head,
        torch.no_grad(),
        _Uncounted() as uncounted,
        FlopCounterMode(display=False, custom_mapping=VECTORS) as counter,
    ):
        yield counter
    if uncounted.seen:
        raise CannotRun(
            f"{type(twin).__name__} runs {', '.join(sorted(uncounted.seen))}, for which no count of FLOPs is known."
        )


class _Uncounted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes note of operations that multiply and have no formula."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        if packet not in flop_registry and packet not in VECTORS:
            own = func.namespace in ("aten", "prim", "prims", "profiler")
            if not own or "attention" in str(func) or packet.__name__ in WITHOUT:
                self.seen.add(str(func))
        return func(*args, **(kwargs or {}))
