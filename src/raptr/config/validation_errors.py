"""What pydantic found wrong, in the words of the file that the user wrote."""

import re
import reprlib
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raptr.config.base import Expected
from raptr.config.schema import RunConfig
from raptr.messages import did_you_mean


def explained(problems: Sequence[Any]) -> list[str]:
    """A ValidationError's problems, a line for each: the key, what is wrong, what is expected.

    Where a key takes values of several types, pydantic has a problem for each of them: they are one line.
    """
    by_key: dict[tuple[str | int, ...], list[Any]] = {}
    lines = []
    for problem in problems:
        key = _place(problem["loc"]).several
        if key is None:
            lines.append(_explain(problem))
        elif key in by_key:
            by_key[key].append(problem)
        else:
            by_key[key] = [problem]
            lines.append("")  # its place, until all of its problems are there
    merged = (_explain_types(key, found) for key, found in by_key.items())
    return [line or next(merged) for line in lines]


def _explain(problem: Any) -> str:
    """One problem as one line."""
    place = _place(problem["loc"])
    name = ".".join(place.keys)
    if problem["type"] == "extra_forbidden":
        expected = sorted(place.section.model_fields)
        if expected == ["method"]:
            return f"{name}: full training has no settings; remove it."
        hint = did_you_mean(place.keys[-1], expected, most=1) or f"expected one of {', '.join(expected)}."
        return f"{name}: this key is not known; {hint}"
    if problem["type"] == "missing":
        return f"{name} is missing."
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        key = place.discriminator
        tags = ", ".join(repr(_tag(kind, key)) for kind in place.kinds)
        given = problem["input"].get(key) if isinstance(problem["input"], dict) else problem["input"]
        return f"{name}.{key}: expected one of {tags}; given: {_SHORT.repr(given)}"
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # of a whole section: too long to show
        return f"{name or 'config'}: {said}"
    return f"{name or 'config'}: {said}; given: {_SHORT.repr(problem['input'])}"


def _explain_types(key: Sequence[str | int], problems: Sequence[Any]) -> str:
    """The problems of one key, each of another type, as one line."""
    place = _place(key)
    name = ".".join(place.keys)
    for problem in problems:
        if problem["type"] not in _WORDS:  # of this type it is, but cannot be right
            return f"{name}: {problem['msg'].removeprefix('Value error, ')}; given: {_SHORT.repr(problem['input'])}"
    whole = [problem for problem in problems if len(problem["loc"]) == len(key) + 1]
    given = (whole or problems)[0]["input"]
    expected = place.expected or " or ".join(dict.fromkeys(_WORDS[each["type"]] for each in problems))
    choices = [word for each in whole for word in re.findall(r"'(\w+)'", each.get("ctx", {}).get("expected", ""))]
    near = did_you_mean(given, choices) if isinstance(given, str) else ""
    line = f"{name} {'is' if whole else 'holds'} {_SHORT.repr(given)}; expected {expected}"
    return f"{line}; {near}" if near else f"{line}."


_WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "list_type": "a list",
    "literal_error": "one of some words",
}
"""Of the problems that say that a value is of another type."""


class _Short(reprlib.Repr):
    """Values as they are shown in messages: never long."""

    maxstring = maxother = 80

    def repr_int(self, value: int, level: int) -> str:
        """Python refuses to print integers of more than 4300 digits."""
        return repr(value) if abs(value) < 10**40 else "an integer of more than 40 digits"


_SHORT = _Short()


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Place of a problem, as the types of the config's fields describe it.

    Attributes:
        keys: path to it in the user's file, without the kinds of sections and values that pydantic names, too.
        section: innermost section on this path.
        kinds: types that the last key's value can have, except null.
        extras: metadata of the last key's type.
        several: location of the last key, if the problem is that of one of its several types.
    """

    keys: list[str]
    section: type[BaseModel]
    kinds: tuple[Any, ...]
    extras: tuple[Any, ...]
    several: tuple[str | int, ...] | None = None

    @property
    def discriminator(self) -> str | None:
        """Key that says of which kind a section is."""
        found = (extra.discriminator for extra in self.extras if isinstance(extra, FieldInfo))
        return next((name for name in found if isinstance(name, str)), None)

    @property
    def expected(self) -> str | None:
        """Values that the last key takes, in words."""
        return next((extra.values for extra in self.extras if isinstance(extra, Expected)), None)


def _place(where: Sequence[str | int]) -> _Place:
    """Follow a problem's location through the types of the config's fields."""
    place = _Place(keys=[], section=RunConfig, kinds=(RunConfig,), extras=())
    for number, part in enumerate(where):
        keys, section = [*place.keys, str(part)], place.section
        hint: Any = None
        extras: tuple[Any, ...] = ()
        if place.discriminator is not None:  # pydantic names the kind of section that was chosen
            keys = place.keys
            hint = next((kind for kind in place.kinds if _tag(kind, place.discriminator) == part), None)
        elif len(place.kinds) > 1:
            return _Place(**{**vars(place), "several": tuple(where[:number])})
        elif isinstance(place.kinds[0], type) and issubclass(place.kinds[0], BaseModel):
            section = place.kinds[0]
            field = section.model_fields.get(str(part))
            if field is not None:
                hint, extras = field.annotation, (*field.metadata, field)
        elif get_origin(place.kinds[0]) in (dict, list):
            hint = get_args(place.kinds[0])[-1]
        kinds, extras = _opened(hint, extras)
        place = _Place(keys=keys, section=section, kinds=kinds, extras=extras)
    return place


def _opened(hint: Any, extras: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the types that a type hint stands for, except null, and the hint's metadata."""
    if get_origin(hint) is Annotated:
        inner, *more = get_args(hint)
        return _opened(inner, (*extras, *more))
    if get_origin(hint) in (Union, types.UnionType):
        kinds = tuple(kind for kind in get_args(hint) if kind is not types.NoneType)
        return (kinds, extras) if len(kinds) > 1 else _opened(kinds[0], extras)
    return (hint,), extras


def _tag(kind: Any, discriminator: str | None) -> Any:
    """Return the value of the discriminator that chooses a kind of section."""
    return kind.model_fields[discriminator].default
