"""Find the stacks of a model, or say what was seen.

A stack is an `nn.ModuleList` whose elements are the layers. For a Hugging Face model it is found by
the configuration's number of layers; for any other module the user names it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from raptr.errors import RaptrError
from raptr.plan import ModelShape, StackShape

Blocks = nn.ModuleList | Mapping[str, nn.ModuleList]


@dataclass(frozen=True)
class Stack:
    """One stack in a model: its name there and its layers."""

    name: str
    blocks: tuple[nn.Module, ...]


def find_stacks(model: nn.Module, blocks: Blocks | None = None) -> tuple[Stack, ...]:
    """The stacks of a model, in the order in which they run.

    Args:
        model: a Hugging Face model, or any module together with ``blocks``.
        blocks: the stack's ModuleList, or a dict of name -> ModuleList, in running order.

    Raises:
        RaptrError: the stacks cannot be told, or ``blocks`` is not part of the model; the message
            lists what was seen.
    """
    if blocks is not None:
        return _given(model, blocks)
    if not is_hugging_face(model):
        raise RaptrError(
            f"{type(model).__name__} is not a Hugging Face model, so its stacks cannot be told. "
            f"Pass blocks=, the ModuleList of its layers. Seen: {_seen(model)}."
        )
    config: Any = model.config
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    candidates = [stack for stack in _candidates(model) if len(stack.blocks) == layers]
    if len(candidates) != 1:
        raise RaptrError(
            f"{type(model).__name__} has {len(candidates)} lists of {layers} layers (its num_hidden_layers) where "
            "one stack was expected. Pass blocks=, the ModuleList of its layers, or a dict of name -> ModuleList. "
            f"Seen: {_seen(model)}."
        )
    return tuple(candidates)


def shape_of(stacks: tuple[Stack, ...]) -> ModelShape:
    """The shape that a method's `plan` needs."""
    return ModelShape(tuple(StackShape(stack.name, len(stack.blocks)) for stack in stacks))


def is_hugging_face(model: nn.Module) -> bool:
    """Whether this is a transformers model, told without importing transformers."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def _given(model: nn.Module, blocks: Blocks) -> tuple[Stack, ...]:
    names = {id(module): name for name, module in model.named_modules()}
    lists = blocks.items() if isinstance(blocks, Mapping) else [(None, blocks)]
    stacks = []
    for name, modules in lists:
        if not isinstance(modules, nn.ModuleList) or id(modules) not in names or not len(modules):
            raise RaptrError(
                f"blocks={type(modules).__name__} is not a ModuleList with layers inside this {type(model).__name__}; "
                f"pass one of its lists. Seen: {_seen(model)}."
            )
        stacks.append(Stack(name or names[id(modules)], tuple(modules)))
    everything = [id(block) for stack in stacks for block in stack.blocks]
    if not stacks or len(set(everything)) != len(everything):
        raise RaptrError(
            "blocks= names no layer, or names one layer more than once; every layer must be a module of its own."
        )
    return tuple(stacks)


def _candidates(model: nn.Module) -> list[Stack]:
    """Every outermost ModuleList whose elements are different modules of one class."""
    found: list[Stack] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(stack.name + ".") for stack in found)
        if isinstance(module, nn.ModuleList) and len(module) and not inside:
            distinct = len(set(map(id, module))) == len(module)
            if distinct and len({type(block) for block in module}) == 1:
                found.append(Stack(name, tuple(module)))
    return found


def _seen(model: nn.Module) -> str:
    lists = [
        f"{name} ({len(module)} x {', '.join(sorted({type(block).__name__ for block in module}))})"
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    return "; ".join(lists) or "no ModuleList at all"
