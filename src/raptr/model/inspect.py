"""`inspect_model`: what raptr sees in a model, without running it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from raptr.errors import RaptrError
from raptr.model.discovery.layers import find_layers
from raptr.model.discovery.meta_twin import Inputs, longest_sequence, takes_images
from raptr.model.flops import flops_of
from raptr.model.stacks import Blocks, Stack, StacksNotFound, config_of, lists_of, side_of
from raptr.plan import LayerCosts, ModelShape, RaPTr, plan_cost
from raptr.plan.methods.spec_parts import HALF_DEPTH


@dataclass(frozen=True, kw_only=True)
class StackInspection:
    """One stack. A number is None where it cannot be read, or is not the same in every layer.

    Attributes:
        name: its name in the model.
        kinds: the classes of its layers.
        layers: how many it has.
        parameters: in its layers.
        hidden_size: the width of the hidden states.
        heads: attention heads of a layer.
        key_value_heads: its key-value heads, fewer than heads where heads share them.
        neurons: the width inside its MLP, of one expert where there are several.
        required: (layer, reason) pairs of the layers that no path can leave out.
    """

    name: str
    kinds: tuple[str, ...]
    layers: int
    parameters: int
    hidden_size: int | None
    heads: int | None
    key_value_heads: int | None
    neurons: int | None
    required: tuple[tuple[int, str], ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What raptr sees in a model.

    Attributes:
        model: its class.
        parameters: all of them, shared ones counted once.
        embedding_parameters: those of look-up tables, also where the head shares them.
        stacks: in running order.
        length: tokens of the sequence that FLOPs are of; None for an image.
        costs: training FLOPs of one sequence, by layer; None if they cannot be counted.
        uncounted: then the reason.
        half_depth: the share of full training's FLOPs that `HALF_DEPTH` in equal stages takes; None if
            FLOPs are not known or its layers do not allow that schedule.
    """

    model: str
    parameters: int
    embedding_parameters: int
    stacks: tuple[StackInspection, ...]
    length: int | None
    costs: LayerCosts | None
    uncounted: str
    half_depth: float | None


def inspect_model(
    model: nn.Module,
    length: int | None = None,
    blocks: Blocks | None = None,
    inputs: Inputs | None = None,
    predictions: int | None = None,
) -> Inspection:
    """What raptr sees in a model: its stacks, what is required and why, FLOPs by part. Nothing is changed.

    Args:
        model: a model; on the meta device, it takes no memory.
        length: tokens per sequence, for FLOPs; default 512, or fewer if the model takes fewer. Not used for images.
        blocks: as for `attach`.
        inputs: as for `attach`.
        predictions: how many positions of a sequence the vocabulary head runs on; all if not given.

    Raises:
        RaptrError: the model cannot be trained by parts; with what was seen, why, and what to do.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> found = inspect_model(GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=64)), length=8)
        >>> [(stack.name, stack.layers, stack.heads, stack.neurons) for stack in found.stacks]
        [('transformer.h', 3, 2, 64)]
    """
    try:
        layers = find_layers(model, blocks, inputs)
    except StacksNotFound:  # its message lists them already
        raise
    except RaptrError as error:
        raise RaptrError(f"{error} Seen: {lists_of(model)}.") from error
    if takes_images(model):
        length = None
    elif length is None and inputs is None:
        length = min(512, longest_sequence(model) or 512)
    costs, uncounted = None, ""
    try:
        costs = flops_of(model, layers.stacks, length, inputs=inputs, target_length=None, predictions=predictions)
    except RaptrError as error:
        uncounted = str(error)
    tables = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    pairs = zip(layers.stacks, layers.shape.stacks, strict=True)
    return Inspection(
        model=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        embedding_parameters=sum(tables.values()),
        stacks=tuple(_stack(model, stack, shape.required) for stack, shape in pairs),
        length=length,
        costs=costs,
        uncounted=uncounted,
        half_depth=None if costs is None else _half_depth(layers.shape, costs),
    )


def _half_depth(shape: ModelShape, costs: LayerCosts) -> float | None:
    with warnings.catch_warnings():  # that required layers are kept is shown anyway
        warnings.simplefilter("ignore")
        try:
            plan = RaPTr(HALF_DEPTH).plan(shape, 4000)
        except RaptrError:
            return None
    return sum(stage.total for stage in plan_cost(plan, costs)) / (4000 * costs.total)


def _stack(model: nn.Module, stack: Stack, required: tuple[tuple[int, str], ...]) -> StackInspection:
    config = config_of(model, stack.name) if stack.name in dict(model.named_modules()) else None
    side = side_of(stack.name)
    hidden = _number(config, "hidden_size")
    heads = _number(config, f"{side}_attention_heads", "num_attention_heads")
    size = _number(config, "head_dim", "d_kv") or (hidden // heads if hidden and heads else None)

    def in_all(read: Callable[[nn.Module], int | None]) -> int | None:
        found = {read(block) for block in stack.blocks} - {None}  # a layer may take over keys from another
        return found.pop() if len(found) == 1 else None

    return StackInspection(
        name=stack.name,
        kinds=tuple(sorted({type(block).__name__ for block in stack.blocks})),
        layers=len(stack.blocks),
        parameters=sum({id(p): p.numel() for block in stack.blocks for p in block.parameters()}.values()),
        hidden_size=hidden,
        heads=heads,
        key_value_heads=in_all(lambda block: _key_value_heads(block, heads, size)),
        neurons=in_all(lambda block: _neurons(block, hidden)),
        required=required,
    )


def _number(config: Any, *names: str) -> int | None:
    """The first whole number that a configuration says under one of these names."""
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)


def _products(block: nn.Module) -> list[tuple[str, bool, int, int]]:
    """The linear maps of a block: their last name, whether they are attention's, inputs and outputs."""
    found = []
    for name, module in block.named_modules():
        weight = getattr(module, "weight", None)
        attention = any(word in name.lower() for word in ("attn", "attention"))
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Linear):
            found.append((last, attention, module.weight.shape[1], module.weight.shape[0]))
        elif type(module).__name__ == "Conv1D" and isinstance(weight, nn.Parameter):  # GPT-2's: transposed
            found.append((last, attention, weight.shape[0], weight.shape[1]))
    return found


def _key_value_heads(block: nn.Module, heads: int | None, size: int | None) -> int | None:
    """From the width of the key projection, or of one that makes queries, keys and values at once."""
    if not heads or not size:
        return None
    for name, attention, _, outputs in _products(block):
        if attention and outputs % size == 0:
            if name in ("k", "key", "k_proj", "key_proj", "k_lin"):
                return outputs // size
            shared = outputs // size - heads
            if name in ("c_attn", "query_key_value", "qkv", "Wqkv", "qkv_proj") and shared > 0 and shared % 2 == 0:
                return shared // 2
    return None


def _neurons(block: nn.Module, hidden: int | None) -> int | None:
    """The inputs of the one map outside attention that leads back to the width of the hidden states."""
    experts = {p.shape[-1] for name, p in block.named_parameters() if name.endswith("down_proj") and p.dim() == 3}
    back = {(name, i) for name, attention, i, outputs in _products(block) if not attention and outputs == hidden}
    named = {inputs for name, inputs in back if name in ("down_proj", "fc2", "wo", "Wo", "c_proj", "dense_4h_to_h")}
    found = experts or named or {inputs for _, inputs in back}
    return found.pop() if len(found) == 1 else None
