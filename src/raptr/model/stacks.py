"""Find the stacks of a model, or say what was seen.

A stack is an `nn.ModuleList` whose elements are the layers. For a Hugging Face model it is found by
the number of layers in the configuration of the model that the list is in, an encoder's and a decoder's each
by its own; for any other module the user names it. `raptr.model.discovery.verify` then checks that these are the
layers.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from raptr.errors import RaptrError
from raptr.plan import ModelShape, StackShape

Required = tuple[tuple[int, str], ...]
"""(layer, reason) pairs, as in `raptr.plan.StackShape`."""

Blocks = nn.ModuleList | Mapping[str, nn.ModuleList]


class StacksNotFound(RaptrError):
    """The stacks of a model cannot be told; the message lists the model's lists of modules."""


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
        raise StacksNotFound(
            f"{type(model).__name__} is not a Hugging Face model, so its stacks cannot be told. "
            f"Pass blocks=, the ModuleList of its layers. Seen: {lists_of(model)}."
        )
    found = _by_configuration(model)
    sides = [side_of(stack.name) for stack in found]
    if not found or (len(found) > 1 and sorted(sides, key=str) != ["decoder", "encoder"]):
        raise StacksNotFound(
            f"{type(model).__name__} has {len(found)} lists of as many layers as its configuration says "
            f"({_counts(model.config) or 'no number of layers'}); expected was one, or an encoder's and a decoder's. "
            "Pass blocks=, the ModuleList of its layers, or a dict of name -> ModuleList. "
            f"Seen: {lists_of(model)}."
        )
    return tuple(sorted(found, key=lambda stack: side_of(stack.name) == "decoder"))


def shape_of(stacks: tuple[Stack, ...], required: Sequence[Required] = ()) -> ModelShape:
    """The shape that a method's `plan` needs: the stacks, and of each the layers that are required."""
    needed = required or [()] * len(stacks)
    pairs = zip(stacks, needed, strict=True)
    return ModelShape(tuple(StackShape(stack.name, len(stack.blocks), layers) for stack, layers in pairs))


def depth_settings(model: nn.Module, stacks: Sequence[Stack], layers: Sequence[int]) -> dict[str, int]:
    """The entries of a Hugging Face model's configuration that give its stacks other numbers of layers.

    Raises:
        RaptrError: the configuration does not say a stack's number of layers.
    """
    found = {}
    for stack, count in zip(stacks, layers, strict=True):
        config = config_of(model, stack.name)
        names = [name for name, now in _counts(config, side_of(stack.name)).items() if now == len(stack.blocks)]
        if not names or (config is not model.config and not model.config.is_encoder_decoder):  # type: ignore[union-attr]
            raise RaptrError(
                f"the configuration of {type(model).__name__} does not say the number of layers of {stack.name!r} "
                "where it could be changed."
            )
        found[names[0]] = count
    return found


def path_of(model: nn.Module, module: nn.Module) -> str:
    """The name of a module inside a model."""
    return next(str(name) for name, inside in model.named_modules() if inside is module)


def config_of(model: nn.Module, name: str) -> Any:
    """The configuration that a part of a Hugging Face model was made from: that of the model it is in, or None."""
    config = None
    parts = name.split(".") if name else []
    for end in range(len(parts) + 1):
        module = model.get_submodule(".".join(parts[:end]))
        config = module.config if is_hugging_face(module) else config
    return config


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
            raise StacksNotFound(
                f"blocks={type(modules).__name__} is not a ModuleList with layers inside this {type(model).__name__}; "
                f"pass one of its lists. Seen: {lists_of(model)}."
            )
        stacks.append(Stack(name or names[id(modules)], tuple(modules)))
    everything = [id(block) for stack in stacks for block in stack.blocks]
    if not stacks or len(set(everything)) != len(everything):
        raise RaptrError(
            "blocks= names no layer, or names one layer more than once; every layer must be a module of its own."
        )
    return tuple(stacks)


def _by_configuration(model: nn.Module) -> list[Stack]:
    """The lists whose length is the number of layers in the configuration of the model that they are in."""
    whole: Any = model.config
    found = []
    for stack in _candidates(model):
        config = config_of(model, stack.name)
        if len(stack.blocks) == next(iter(_counts(config, side_of(stack.name)).values()), None):
            found.append((stack, config))
    if len(found) > 1 and not whole.is_encoder_decoder:
        # Text with images or sound: the layers that are trained by parts are those of the text.
        return [stack for stack, config in found if config is whole.get_text_config()]
    return [stack for stack, _ in found]


def side_of(name: str) -> str | None:
    """Whether a list belongs to an encoder or a decoder, by its outermost name that says so."""
    return next((part for part in name.split(".") if part in ("encoder", "decoder")), None)


def _counts(config: Any, side: str | None = None) -> dict[str, int]:
    """The numbers of layers that a configuration says, those of one side first."""
    sides = [side] if side else ["encoder", "decoder"]
    own = [name for one in sides for name in (f"{one}_layers", f"num_{one}_layers")]
    names = [*own, "num_hidden_layers"] if side else ["num_hidden_layers", *own]
    return {name: count for name in names if isinstance(count := getattr(config, name, None), int)}


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


def lists_of(model: nn.Module) -> str:
    """The lists of modules in a model, for messages."""
    lists = [
        f"{name} ({len(module)} x {', '.join(sorted({type(block).__name__ for block in module}))})"
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    return "; ".join(lists) or "no ModuleList at all"
