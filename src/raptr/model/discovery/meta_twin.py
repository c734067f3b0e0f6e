"""A twin of a model on the meta device: the same code without memory or arithmetic.

What can be learned from a run without running it (FLOPs by layer, what every block is given and
returns) is learned there, before the model is touched. The meta device knows shapes and no values, so
some code cannot run there as it stands: attention that looks at the mask's values, expert kernels. So a
run is tried in several ways that compute the same: with the mask given whole, without one, given by token, and
then again with plain ("eager") attention. Inputs that the user gives cannot be given otherwise: the last resort
for those is a real copy of the model.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from raptr.errors import RaptrError
from raptr.messages import first_line
from raptr.model.stacks import is_hugging_face

Inputs = Mapping[str, Any] | tuple[Any, ...]
"""A model's inputs: keyword arguments, or a tuple of positional ones."""

RECORDS = ("output_hidden_states", "output_attentions", "output_router_logits")
"""What a transformers model can be asked to return of every layer; a twin is not."""

T = TypeVar("T")


class CannotRun(RaptrError):
    """A twin does not run, or what is asked cannot be seen there."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One way to run a twin.

    Attributes:
        args: positional arguments, on the device of the twin.
        kwargs: keyword arguments, on the device of the twin.
        eager: with transformers' plain attention instead of the model's own kernel.
        real: with a copy of the model where the model is, instead of one on the meta device.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    eager: bool = False
    real: bool = False


@dataclass(frozen=True)
class Ran(Generic[T]):
    """A twin after its run: the way in which it ran, what the watcher of that run saw, and the model's output."""

    twin: nn.Module
    way: Attempt
    seen: T
    output: Any


def meta_twin(model: nn.Module) -> nn.Module:
    """A copy of the model whose parameters and buffers are on the meta device; in eval mode.

    All its parameters require gradients, it records no outputs, and its experts are computed as one product per
    token and chosen expert, which the meta device can do.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        meta = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(meta, meta.is_floating_point() or meta.is_complex())
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return _by_itself(copy.deepcopy(model, memo))


def real_twin(model: nn.Module) -> nn.Module:
    """A copy of the model with its values, where the model is; otherwise as `meta_twin`."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        values = parameter.detach().clone()
        memo[id(parameter)] = nn.Parameter(values, values.is_floating_point() or values.is_complex())
    return _by_itself(copy.deepcopy(model, memo))


def _by_itself(twin: nn.Module) -> nn.Module:
    twin.eval()
    for module in twin.modules():  # what hangs on the model is not to notice that its twin runs
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
        if is_hugging_face(module):
            _quieten(module.config)
    return twin


def attempts(
    model: nn.Module, *, length: int, target_length: int | None = None, inputs: Inputs | None = None
) -> tuple[Attempt, ...]:
    """The ways to run a twin of this model, the most faithful first.

    Args:
        model: the model.
        length: tokens of the sequence that is made up; not used for images, nor with ``inputs``.
        target_length: tokens of the decoder's sequence, where there is one; as many if not given.
        inputs: what to run it with, on any device, instead of making it up.

    Raises:
        RaptrError: no inputs are given and none can be made up.
    """
    if inputs is None:
        ways = [Attempt(kwargs=kwargs) for kwargs in _made_up(model, length, target_length or length)]
    else:
        if not isinstance(inputs, Mapping | tuple):
            raise RaptrError(
                f"inputs is a {type(inputs).__name__}; "
                "expected a dict of keyword arguments, or a tuple of positional ones."
            )
        if isinstance(inputs, Mapping):
            inputs = {name: value for name, value in inputs.items() if name not in RECORDS}
        ways = [_given(tree_map(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, inputs))]
    if is_hugging_face(model):
        ways += [replace(way, eager=True) for way in ways]
    if inputs is not None:
        ways.append(replace(_given(inputs), real=True))
    return tuple(ways)


def _given(inputs: Inputs) -> Attempt:
    return Attempt(args=inputs) if isinstance(inputs, tuple) else Attempt(kwargs=dict(inputs))


def first_that_runs(
    model: nn.Module, ways: tuple[Attempt, ...], watch: Callable[[nn.Module], AbstractContextManager[T]]
) -> Ran[T]:
    """Run a new twin in one way after the other until one runs.

    Args:
        model: the model; it is neither run nor changed.
        ways: of `attempts`.
        watch: makes a context around a run of the twin; leaving it may raise `CannotRun` too.

    Raises:
        RaptrError: none runs; with the reason of the first, or of the real copy. What else the watcher raises
            goes through.
    """
    twin, problems = meta_twin(model), list[CannotRun]()
    for way in ways:
        try:
            if way.real:
                twin = real_twin(model)
            elif way.eager:
                _plain_attention(twin)
            with watch(twin) as seen, torch.random.fork_rng(enabled=way.real):
                output = run(twin, way)
            return Ran(twin, way, seen, output)
        except CannotRun as problem:
            problems.append(problem)
    reason = problems[-1 if ways[-1].real else 0]
    raise RaptrError(
        f"{reason} Pass inputs= that {type(model).__name__} can be run with; or, to attach without this check, "
        "blocks=, the ModuleList of its layers, alone."
    ) from reason


def run(twin: nn.Module, way: Attempt) -> Any:
    """Run a twin forward; what goes wrong there is said as such."""
    try:
        return twin(*way.args, **way.kwargs)
    except RaptrError:
        raise
    except Exception as error:
        reason = first_line(error).rstrip(".")
        where = "with these inputs" if way.real else "on the meta device"
        raise CannotRun(
            f"{type(twin).__name__} could not be run {where} ({type(error).__name__}: {reason})."
        ) from error


def takes_images(model: nn.Module) -> bool:
    """Whether the model's main input is an image, whose size its configuration says."""
    return is_hugging_face(model) and model.main_input_name == "pixel_values"


def longest_sequence(model: nn.Module) -> int | None:
    """How many positions the model's configuration says it has; None if it does not say."""
    longest = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else None


def has_decoder_inputs(model: nn.Module) -> bool:
    """Whether the model takes a second sequence, for its decoder."""
    return "decoder_input_ids" in inspect.signature(model.forward).parameters


def _plain_attention(twin: Any) -> None:
    try:
        twin.set_attn_implementation("eager")
    except Exception as error:  # whatever transformers says of a model that has but one attention
        raise CannotRun(f"{type(twin).__name__} has no plain attention ({error}).") from error


def _made_up(model: Any, length: int, target_length: int) -> Iterator[dict[str, Any]]:
    if takes_images(model):
        yield {"pixel_values": _image(model)}
        return
    if not is_hugging_face(model) or model.main_input_name != "input_ids":
        raise RaptrError(
            f"inputs for a {type(model).__name__} cannot be made up; pass inputs=, a dict of the keyword arguments of "
            "its forward (only Hugging Face models that take input_ids or pixel_values can do without)."
        )
    accepted = inspect.signature(model.forward).parameters
    common: dict[str, Any] = {"input_ids": _tokens(length)}
    if has_decoder_inputs(model):
        common["decoder_input_ids"] = _tokens(target_length)
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    if hasattr(model.config, "use_cache") and (anything or "use_cache" in accepted):
        common["use_cache"] = False

    def masked(encoder: torch.Tensor, decoder: torch.Tensor) -> dict[str, Any]:
        of_decoder = {"decoder_attention_mask": decoder} if "decoder_attention_mask" in accepted else {}
        return {**common, "attention_mask": encoder, **of_decoder}

    def whole(queries: int, keys: int) -> torch.Tensor:
        return torch.zeros((1, 1, queries, keys), dtype=model.dtype, device="meta")

    # A decoder's cross-attention uses the encoder's mask too: one row of it fits both.
    rows = 1 if has_decoder_inputs(model) else length
    yield masked(whole(rows, length), whole(target_length, target_length))
    yield common
    yield masked(_tokens(length), _tokens(target_length))


def _tokens(length: int) -> torch.Tensor:
    return torch.zeros((1, length), dtype=torch.long, device="meta")


def _image(model: Any) -> torch.Tensor:
    size, channels = (getattr(model.config, name, None) for name in ("image_size", "num_channels"))
    if size is None or channels is None:
        raise RaptrError(
            f"the configuration of {type(model).__name__} does not say the size of its images "
            "(image_size, num_channels); pass inputs=, a dict of the keyword arguments of its forward."
        )
    height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros((1, channels, height, width), dtype=model.dtype, device="meta")


def _quieten(config: Any) -> None:
    for name in RECORDS:
        if getattr(config, name, False):
            setattr(config, name, False)
    if getattr(config, "_experts_implementation", None) is not None:
        config._experts_implementation = "batched_mm"
