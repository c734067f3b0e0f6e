"""A layer that runs on some of the sequences of a batch: its arguments are cut, its result is put back.

Shapes: B sequences, T tokens, D width, H heads.

Which dimension of an argument counts the sequences is told by the argument's name and its number of dimensions, never
by a size: a batch can have as many sequences as tokens. The hidden states have it first. An argument that has one
sequence there is for all of them, and passed on whole.

The number of kept sequences varies. Layers that are compiled one by one need a graph for one sequence, one for the
first number and one for any other: torch takes a size as open once it has seen two. Ranks of one data-parallel group
draw sequences of their own; ranks that share a batch (tensor parallelism) would too, and are not supported.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.gate.outputs import Arguments, Keywords, Signature

EVERY = -1
"""In place of a dimension: the argument does not depend on the sequence."""

HEADS = -2
"""In place of a dimension: the first one counts heads within sequences, B * H."""

_KINDS: tuple[tuple[tuple[str, ...], dict[int, int]], ...] = (
    (("attention_mask", "encoder_attention_mask", "encoder_attn_mask", "causal_mask"), {2: 0, 3: 0, 4: 0}),
    (("cross_attention_mask", "conv_attention_mask"), {2: 0, 3: 0, 4: 0}),
    (("encoder_hidden_states", "cross_attention_states", "query_states", "per_layer_input"), {3: 0}),
    (("position_ids", "encoder_position_ids"), {1: EVERY, 2: 0, 3: 1}),
    (("position_embeddings", "encoder_position_embeddings"), {2: EVERY, 3: 0, 4: 1}),
    (("position_bias", "encoder_decoder_position_bias", "relative_position_bias"), {3: EVERY, 4: 0}),
    (("relative_pos", "rel_pos", "rel_2d_pos"), {3: 0, 4: 0}),
    (("alibi",), {3: HEADS, 4: 0}),
    (("token_type_ids",), {2: 0}),
    (("rel_embeddings",), {2: EVERY}),
    (("cache_position", "layer_head_mask", "cross_attn_layer_head_mask"), {1: EVERY}),
)

BATCH: dict[str, dict[int, int]] = {name: dict(dimensions) for names, dimensions in _KINDS for name in names}
"""Argument of a layer -> its number of dimensions -> the dimension that counts the sequences.

The names are those of transformers' layers. Position ids and embeddings of one dimension more than usual are those of
models with several kinds of positions (3, B, T), a position bias of one dimension less is for every sequence (H, T, T).
"""

_PLAIN = (bool, int, float, str, torch.dtype, torch.device)


def other_order(block: nn.Module) -> str | None:
    """Why the sequences of a block's hidden states cannot be told apart; None if nothing says so."""
    for name, module in block.named_modules():
        if getattr(module, "batch_first", True) is False:
            return f"{name or type(block).__name__} has batch_first=False, so the first dimension counts tokens"
    return None


def cut(
    signature: Signature, args: Arguments, kwargs: Keywords, kept: torch.Tensor, batch: int
) -> tuple[Arguments, Keywords]:
    """The arguments of a call with the kept sequences only.

    Args:
        signature: of the layer.
        args: positional ones.
        kwargs: and by keyword.
        kept: the numbers of the kept sequences.
        batch: B.

    Raises:
        RaptrError: an argument of which it is not known where its sequences are; with its name.
    """
    names = {argument.position: argument.name for argument in signature.arguments if argument.position is not None}
    hidden = signature.hidden.name

    def one(name: str, value: Any) -> Any:
        if value is None or isinstance(value, _PLAIN) or (isinstance(value, torch.Tensor) and value.ndim == 0):
            return value
        if isinstance(value, tuple | list):
            parts = [one(name, part) for part in value]
            same = all(new is old for new, old in zip(parts, value, strict=True))
            return value if same else tuple(parts) if isinstance(value, tuple) else parts
        if not isinstance(value, torch.Tensor):
            raise RaptrError(_unknown(name, f"a {type(value).__name__}"))
        dimension = 0 if name == hidden else BATCH.get(name, {}).get(value.ndim)
        if dimension is None:
            raise RaptrError(_unknown(name, f"a tensor of {tuple(value.shape)}"))
        return _cut(name, value, dimension, kept, batch)

    positional = tuple(one(names.get(i, f"{i + 1}. argument"), value) for i, value in enumerate(args))
    return positional, {name: one(name, value) for name, value in kwargs.items()}


def put_back(whole: torch.Tensor, part: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The whole batch, with the kept sequences as they are in the part."""
    return whole.to(part.dtype).index_copy(0, kept, part)


def own_rank() -> int:
    """The rank of this process: 0 if there is one only."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def numbers(kept: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Sequence numbers where a tensor is."""
    return torch.tensor(kept, dtype=torch.long).to(like.device, non_blocking=True)


def _cut(name: str, value: torch.Tensor, dimension: int, kept: torch.Tensor, batch: int) -> torch.Tensor:
    if dimension == EVERY:
        return value
    if dimension == HEADS:
        if value.shape[0] % batch:
            raise RaptrError(_unknown(name, f"a tensor of {tuple(value.shape)}, for {batch} sequences"))
        return value.view(batch, -1, *value.shape[1:]).index_select(0, kept).flatten(0, 1)
    if value.shape[dimension] == 1:
        return value
    if value.shape[dimension] != batch:
        raise RaptrError(_unknown(name, f"a tensor of {tuple(value.shape)}, for {batch} sequences"))
    return value.index_select(dimension, kept)


def _unknown(name: str, what: str) -> str:
    return (
        f"a layer was to run on some sequences of the batch, but where the sequences are in its argument {name!r} "
        f"({what}) is not known. Train with use_cache=False and without packing or unpadding; for a layer of your own "
        "use the names of transformers (attention_mask, position_ids, ...), or say it in "
        "raptr.model.gate.batch_subset.BATCH."
    )
