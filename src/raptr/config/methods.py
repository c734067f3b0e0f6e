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
from raptr.plan import METHODS, Full, Method, Schedule, TransitionLR, skips_of

Inactive = Literal["freeze", "zero"]
Lengths = Annotated[
    Literal["equal", "proportional"] | list[int] | list[float],
    Expected("equal, proportional, or a list such as [0.1, 0.2, 0.7] or [100, 200, 700]"),
]
Layers = Annotated[
    list[int] | list[list[int]], Expected("layer numbers such as [0, -1], or such a list for each stack")
]

SMALLER = "smaller"
"""The control that is no method of training, but a smaller model: see `SmallerSettings`."""


class TransitionSettings(BaseModel):
    """What the learning rate does at stage boundaries; see `raptr.plan.TransitionLR`."""

    model_config = SECTION

    rewarm: int | None = None
    scale: float | None = None


class MethodSettings(BaseModel):
    """The settings of a method; its subclasses are made from the specs."""

    model_config = SECTION

    method: str

    @property
    def policy(self) -> Inactive:
        """What the optimizer does with skipped layers: ``inactive``, of a method that skips any."""
        found: Inactive = getattr(self, "inactive", "freeze")
        return found

    def told(self) -> str:
        """The method as text, with all of its settings that are not the defaults.

        Raises:
            RaptrError: as `build`.

        Example:
            >>> SETTINGS["raptr"](schedule="6-8-10-12", lengths="equal", inactive="zero").told()
            'RaPTr 6-8-10-12, inactive zero'
            >>> SETTINGS["raptr"](schedule="6-12", lengths="equal", transition_lr={"rewarm": 50}).told()
            'RaPTr 6-12, transition_lr rewarm 50'
        """
        others = self.model_dump(exclude_defaults=True, exclude={"method", "schedule"})
        return ", ".join([str(self.build(0)), *(f"{name} {_told(value)}" for name, value in others.items())])

    def build(self, seed: int) -> Method:
        """The method's spec, with the run's seed.

        Raises:
            RaptrError: the settings cannot be right for any model.
        """
        spec: Any = METHODS[self.method]
        fields = {field.name for field in dataclasses.fields(spec)}
        given = {name: _frozen(getattr(self, name)) for name in type(self).model_fields if name in fields}
        if "schedule" in fields:
            shape = {name: _frozen(getattr(self, name)) for name in ("lengths", "warmup", "alpha")}
            given["schedule"] = Schedule.parse(given["schedule"], **shape)
        if given.get("transition_lr") is not None:
            given["transition_lr"] = TransitionLR(**given["transition_lr"].model_dump())
        if "seed" in fields:
            given["seed"] = seed
        found: Method = spec(**given)
        return found


class SmallerSettings(MethodSettings):
    """A smaller dense model, trained by itself: what as many FLOPs buy without any method.

    ``layers`` is its depth: a count, a share of the model's ("75%"), or a count for each stack ("9+6"). If it is not
    given, it is the depth whose step costs nearest to the mean step of RaPTr as the config has it.
    """

    method: Literal["smaller"] = "smaller"
    layers: Annotated[str, BeforeValidator(lambda value: _as_text(value))] | None = Field(
        default=None,
        description="The number of layers: a count, or a share of the model's (75%). None: those whose step costs "
        "nearest to the mean step of RaPTr as the config has it.",
    )

    def told(self) -> str:
        """What it is, and how deep."""
        return "a smaller model" if self.layers is None else f"a smaller model of {self.layers} layers"

    def build(self, seed: int) -> Method:
        """Full training, of the smaller model."""
        return Full()


def _told(value: Any) -> str:
    """A setting's value as text: of settings within it, each with its name."""
    return " ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def _as_text(value: Any) -> Any:
    """YAML reads a schedule of one stage as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


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
    return Annotated[str, BeforeValidator(_as_text)] if hint is str else hint


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
            fields["schedule"] = (Annotated[str, BeforeValidator(_as_text)], str(value))
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
"""Of every method by its key, and of the control that is a smaller model."""

if TYPE_CHECKING:
    AnySettings = MethodSettings
else:
    AnySettings = Annotated[Union[tuple(SETTINGS.values())], Field(discriminator="method")]  # noqa: UP007
