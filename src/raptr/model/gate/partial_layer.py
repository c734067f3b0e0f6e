"""A kept layer that runs in part: with a factor on its update, or on some sequences of the batch.

    x + s (layer(x) - x)

for the kept sequences, and x for the others. Where the sequences of a batch skip layers by themselves, s depends on
their number (`LayerPart.factor`).
"""

from collections.abc import Callable
from typing import Any

import torch

from raptr.errors import RaptrError
from raptr.model.gate.batch_subset import cut, numbers, own_rank, put_back
from raptr.model.gate.outputs import Arguments, Keywords, Returns, Signature
from raptr.model.gate.unsupported import refuse_routing
from raptr.plan.layer_part import ONE_SEQUENCE, LayerPart

Run = Callable[..., Any]


def run_in_part(
    run: Run,
    part: LayerPart,
    returns: Returns,
    signature: Signature,
    args: Arguments,
    kwargs: Keywords,
    *,
    layer: int,
    required: bool,
) -> Any:
    """Run a kept layer as its part says, and return what it does.

    Args:
        run: the layer.
        part: its scale and its sequences.
        returns: what the layers of its stack return.
        signature: of the layer.
        args: of the call.
        kwargs: of the call.
        layer: its number.
        required: whether it makes what others need: then it runs on the whole batch, and only what becomes of the
            hidden states is chosen.

    Raises:
        RaptrError: sequences are to be chosen, and no batch had more than one so far. A later batch may: the last one
            of an epoch.
    """
    hidden = signature.states(returns.stack, args, kwargs)
    batch = hidden.shape[0]
    if part.sequences is not None and not returns.several:
        if batch == 1:
            raise RaptrError(ONE_SEQUENCE)
        returns.several = True
    scale = part.factor(batch)
    kept = part.rows(layer, batch, own_rank())
    if len(kept) == batch:
        output = _run(run, scale, hidden, args, kwargs)
        if not required:
            returns.learn(output, signature, args, kwargs)
        return _with(output, _scaled(hidden, _first(output), scale))
    chosen = numbers(kept, hidden)
    if required:
        output = _run(run, scale, hidden, args, kwargs)
        before, after = (x.index_select(0, chosen) for x in (hidden, _first(output)))
        return _with(output, put_back(hidden, _scaled(before, after, scale), chosen))
    masks = (argument for argument in signature.arguments if argument.name == "attention_mask")
    refuse_routing(returns.stack, masked=any(mask.of(args, kwargs) is not None for mask in masks))
    some, named = cut(signature, args, kwargs, chosen, batch)
    before = signature.hidden.of(some, named)
    output = _run(run, scale, before, some, named)
    returns.learn(output, signature, some, named)
    return returns.supply(put_back(hidden, _scaled(before, _first(output), scale), chosen), args, kwargs)


def _run(run: Run, scale: float, hidden: torch.Tensor, args: Arguments, kwargs: Keywords) -> Any:
    version = None if hidden.is_inference() else hidden._version
    output = run(*args, **kwargs)
    if scale != 1 and version is not None and hidden._version != version:
        raise RaptrError(
            "a layer's update was to be scaled, but the layer writes over its input, so it is not known any more what "
            "was added; use scaling='none', or a layer that adds into a new tensor."
        )
    return output


def _scaled(before: torch.Tensor, after: torch.Tensor, scale: float) -> torch.Tensor:
    return after if scale == 1 else torch.add(before, after - before, alpha=scale)


def _first(output: Any) -> Any:
    return output if isinstance(output, torch.Tensor) else output[0]


def _with(output: Any, hidden: torch.Tensor) -> Any:
    return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])
