"""Refuse to skip layers, or to run them in part, while the outputs of every layer were asked for.

``output_hidden_states=True`` promises one state per layer. transformers keeps them in two ways. Most
models record what the executed layers return, by hooks: a skipped layer then leaves a gap. The others
collect by hand, in the loop over the layers: a skipped layer's input then stands twice. Neither is what
was asked for, so both are refused. The first is told by the recorder that is active, the second by what
the outermost model was called with: that is read from the call itself, so nothing hangs on the model
that a copy, a wrapper (DDP, FSDP) or a checkpoint would have to know of.

A cache of keys and values goes on by what its first layer holds, so it is refused where that layer is skipped.
"""

import sys
from collections.abc import Collection, Iterable
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FrameType
from typing import Any

from raptr.errors import RaptrError

ASKED = ("output_hidden_states", "output_attentions")


def refuse_recording(stack: str) -> None:
    """Refuse to skip a layer whose output was asked for; call it from the first layer of a stack that is not run whole.

    Covered: calls of a transformers model with the keyword or position, directly or through wrappers, and its
    configuration. Not covered: a model compiled as a whole, whose calls leave no frames.

    Raises:
        RaptrError: with the name of what was asked for.
    """
    name = _recorded() or _asked(sys._getframe(1))
    if name is not None:
        raise RaptrError(
            f"{name}=True was asked for while layers of {stack!r} are skipped or run in part: skipped layers "
            "have none, so the list would not match the layers. Ask for it in evaluation, where the full model runs."
        )


def refuse_cache(stack: str, arguments: Iterable[Any]) -> None:
    """Refuse to go on from a cache of keys and values where the first layer, which counts its tokens, is skipped.

    Args:
        stack: the name of the stack.
        arguments: of the call of its first layer.

    Raises:
        RaptrError: positions and masks would be those of a text that begins here.
    """
    for argument in arguments:
        cache = getattr(argument, "self_attention_cache", argument)  # of an encoder-decoder
        layers = getattr(cache, "layers", None)
        if isinstance(layers, list) and any(getattr(one, "keys", None) is not None for one in layers):
            raise RaptrError(
                f"layer 0 of {stack!r} is skipped, but transformers counts the tokens of a cache by it, so that "
                "positions and masks would be wrong. Pass use_cache=False, or keep layer 0."
            )


def refuse_routing(stack: str, *, masked: bool) -> None:
    """Refuse to run a layer on some sequences while a loss of its router is computed for masked ones.

    That loss matches the mask of the batch with what the layers' routers said, layer by layer.
    """
    if masked and "router_logits" in _collected():
        raise RaptrError(
            f"output_router_logits=True was asked for while layers of {stack!r} run on some sequences of the batch: "
            "the attention mask would not match what their routers say. "
            "Train without a mask, or without the router's loss."
        )


def _recorded() -> str | None:
    """What transformers' recorder collects now, of what cannot be had."""
    return next((f"output_{key}" for key in _collected() if key.endswith(("hidden_states", "attentions"))), None)


def _collected() -> Collection[str]:
    capturing = sys.modules.get("transformers.utils.output_capturing")
    collector = getattr(capturing, "_active_collector", None)
    return (collector.get() if collector is not None else None) or {}


def _asked(frame: FrameType | None) -> str | None:
    """What the outermost transformers model was asked for, by its call or its configuration."""
    transformers = sys.modules.get("transformers")
    outermost: dict[str, Any] | None = None
    while transformers is not None and frame is not None:
        if frame.f_code.co_name == "forward":
            call = _call(frame)
            if isinstance(call.get("self"), transformers.PreTrainedModel):
                outermost = call
        frame = frame.f_back
    if outermost is None:
        return None
    config = outermost["self"].config
    for name in ASKED:
        value = outermost.get(name)
        if value is None:
            value = getattr(config, name, None)
        if value is not None and value is not False:
            return name
    return None


def _call(frame: FrameType) -> dict[str, Any]:
    """What a function was called with, by name; its ``**kwargs`` among them."""
    code, local = frame.f_code, frame.f_locals
    names = code.co_argcount + code.co_kwonlyargcount
    call = {name: local.get(name) for name in code.co_varnames[:names]}
    if code.co_flags & CO_VARKEYWORDS:
        call |= local.get(code.co_varnames[names + bool(code.co_flags & CO_VARARGS)]) or {}
    return call
