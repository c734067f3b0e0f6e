"""Checks of a spec's fields, most of them derived from the fields' types."""

import dataclasses
import math
import operator
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from raptr.errors import RaptrError
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.schedule import Schedule


def check_fields(spec: Any) -> None:
    """Check the fields of a frozen spec by their types; to be called at the end of its ``__post_init__``.

    =========================  ==========================================================================
    ``Schedule | str``         a `Schedule`; text is parsed
    ``TransitionLR | None``    a `TransitionLR`, or None
    ``Literal[...]``           one of the choices
    ``tuple[int, ...]``        layer numbers; any iterable of them becomes a tuple
    ``int``, ``float``, ``str``  of this type; a float is finite, and ``seed`` is what the generator takes
    =========================  ==========================================================================

    Fields of other types are the spec's own to check.

    Args:
        spec: the spec. Fields that are written in a shorter form are replaced.

    Raises:
        RaptrError: a field has a value that its type does not allow.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Halves:
        ...     schedule: Schedule | str = "50%-100%"
        ...     scaling: Literal["none", "inverse"] = "none"
        ...
        ...     def __post_init__(self) -> None:
        ...         check_fields(self)
        >>> Halves("6-12").schedule.sizes
        (6, 12)
        >>> Halves(scaling="sqrt")
        Traceback (most recent call last):
        raptr.errors.RaptrError: scaling 'sqrt' is not known; expected 'none' or 'inverse'.
    """
    cls: Any = type(spec)
    hints = _hints(cls)
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        checked = _checked(field.name, hints[field.name], value)
        if checked is not value:
            object.__setattr__(spec, field.name, checked)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _checked(name: str, hint: Any, value: Any) -> Any:
    """Return a field's value as its spec keeps it."""
    if hint == Schedule | str:
        return as_schedule(value)
    if hint == tuple[int, ...]:
        return as_layers(value, name)
    if hint == TransitionLR | None:
        _check_transition(name, value)
    elif get_origin(hint) is Literal:
        check_choice(name, value, get_args(hint))
    elif name == "seed":
        _check_seed(value)
    elif hint is float and not (isinstance(value, int | float) and math.isfinite(value)):
        raise RaptrError(f"{name}={value!r} is not a finite number.")
    elif hint is int and not isinstance(value, int):
        raise RaptrError(f"{name}={value!r} is not a whole number.")
    elif hint is str and not isinstance(value, str):
        raise RaptrError(f"{name}={value!r} is not text.")
    return value


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse a value that is not one of a field's choices."""
    if value not in choices:
        raise RaptrError(f"{name} {value!r} is not known; expected {' or '.join(map(repr, choices))}.")


def check_count(name: str, value: Any, *, least: int) -> None:
    """Refuse a value that is not a whole number from ``least`` to 1000."""
    if not isinstance(value, int) or not least <= value <= 1000:
        raise RaptrError(f"{name}={value!r} is not a whole number from {least} to 1000.")


def check_share(name: str, value: Any, *, least: float = 0.0, one: bool = True) -> None:
    """Refuse a value that is not a number from ``least`` to 1; with ``one=False``, 1 is refused too."""
    if not isinstance(value, int | float) or not least <= value <= 1 or (value == 1 and not one):
        raise RaptrError(f"{name}={value!r} is not a number from {least:g} to {'' if one else 'below '}1.")


def as_schedule(schedule: Any) -> Schedule:
    """A schedule, or its sizes as text."""
    parsed = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    if not isinstance(parsed, Schedule):
        raise RaptrError(f'schedule {schedule!r} is neither a Schedule nor text such as "6-8-10-12".')
    return parsed


def as_layers(layers: Any, name: str = "fixed") -> tuple[int, ...]:
    """Layer numbers as a spec keeps them; whether there are such layers is asked when the model is known."""
    try:
        return tuple(map(operator.index, layers))
    except TypeError as error:
        raise RaptrError(f"{name}={layers!r} is not a tuple of layer numbers such as (0, -1).") from error


def _check_seed(seed: Any) -> None:
    """Refuse a seed that the counter-based generator cannot take."""
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise RaptrError(f"seed {seed!r} is not a whole number between 0 and 2**64 - 1.")


def _check_transition(name: str, transition_lr: Any) -> None:
    """Refuse what is no rule for the learning rate at boundaries."""
    if transition_lr is not None and not isinstance(transition_lr, TransitionLR):
        raise RaptrError(
            f"{name}={transition_lr!r} is not a rule; give raptr.plan.TransitionLR(rewarm=100) or (scale=0.5)."
        )
