"""The settings of every method, as a config has them: made from the fields of its spec.

A new method needs nothing here: its spec's fields, types and defaults are its settings. Three things are said
differently in a file. A schedule is text beside its ``lengths``, ``warmup`` and ``alpha``; the seed is the run's own;
and ``inactive``, what the optimizer does with skipped layers, is set beside the method.
"""

import dataclasses
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, Field, create_model

from raptr.config.base import SECTION, CountOrShare, Expected
from raptr.config.method_settings import Inactive, MethodSettings, as_text
from raptr.config.smaller import SMALLER, SmallerSettings
from raptr.plan import METHODS, TransitionLR, skips_of

Lengths = Annotated[
    Literal["equal", "proportional"] | list[int] | list[float],
    Expected("equal, proportional, or a list such as [0.1, 0.2, 0.7] or [100, 200, 700]"),
]
Layers = Annotated[
    list[int] | list[list[int]], Expected("layer numbers such as [0, -1], or such a list for each stack")
]


class TransitionSettings(BaseModel):
    """What the learning rate does at stage boundaries; see `raptr.plan.TransitionLR`."""

    model_config = SECTION

    rewarm: int | None = None
    scale: float | None = None


def _file_type(hint: Any) -> Any:
    """A spec's type as a file has it: lists for tuples, text for schedules."""
    if hint is TransitionLR:
        return TransitionSettings
    if hint == tuple[int, ...] | tuple[tuple[int, ...], ...]:
        return Layers
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        return list[_file_type(args[0])]  # type: ignore[misc]
    if origin in (Union, types.UnionType):
        return Union[tuple(_file_type(arg) for arg in args)]  # noqa: UP007
    return Annotated[str, BeforeValidator(as_text)] if hint is str else hint


_LENGTHS = (
    "Of the stages: equal, proportional (stage k is k**alpha times as long as the first), or a list of "
    "steps or shares. In Python part of `Schedule`."
)
_WARMUP = "Full-model steps that come first: a count, or a share of the run. In Python part of `Schedule`."
_ALPHA = "The exponent of proportional lengths. In Python part of `Schedule`."
_INACTIVE = (
    "What the optimizer does with skipped layers, freeze or zero (docs/optimizer.md). In Python an argument of "
    "`net.prepare` and `ProgressiveCallback`."
)


def _section(key: str, spec: Callable[..., Any]) -> type[MethodSettings]:
    """The settings of one method."""
    defaults, hints = spec(), get_type_hints(spec)
    fields: dict[str, Any] = {"method": (Literal[key], key)}
    if skips_of(spec) & {"layers", "width"}:  # of which parameters are left out
        fields["inactive"] = (Inactive, Field("freeze", description=_INACTIVE))
    for field in dataclasses.fields(defaults):
        if field.name == "seed":
            continue
        value = getattr(defaults, field.name)
        if field.name == "schedule":
            fields["schedule"] = (Annotated[str, BeforeValidator(as_text)], str(value))
            fields["lengths"] = (Lengths, Field(value.lengths, description=_LENGTHS))
            fields["warmup"] = (CountOrShare, Field(value.warmup, description=_WARMUP))
            fields["alpha"] = (float, Field(value.alpha, description=_ALPHA))
        elif field.name == "lengths":
            fields["lengths"] = (Lengths, value)
        else:
            fields[field.name] = (_file_type(hints[field.name]), list(value) if isinstance(value, tuple) else value)
    return create_model(f"{spec.__name__}Settings", __base__=MethodSettings, __doc__=spec.__doc__, **fields)


SETTINGS: dict[str, type[MethodSettings]] = {
    **{key: _section(key, spec) for key, spec in METHODS.items()},
    SMALLER: SmallerSettings,
}
"""Settings of every method by its key, and of the control."""


def own_model_of(control: str) -> str:
    """Return the model that a recorded control trains, in words; empty for a method and for an unknown control."""
    return SETTINGS[control].own_model if control in SETTINGS else ""


if TYPE_CHECKING:
    AnySettings = MethodSettings
else:
    AnySettings = Annotated[Union[tuple(SETTINGS.values())], Field(discriminator="method")]  # noqa: UP007
