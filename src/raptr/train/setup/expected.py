"""Types of settings, as a user reads them."""

import types
import typing
from enum import Enum
from typing import Any

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a section of keys and values",
    types.NoneType: "null",
}


def words_of(hint: Any) -> str:
    """A type in plain words.

    Example:
        >>> words_of(float)
        'a number'
        >>> words_of(bool | str | None)
        'true or false, a text or null'
    """
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    origins = [kind if typing.get_origin(kind) is typing.Literal else typing.get_origin(kind) or kind for kind in kinds]
    origins.sort(key=lambda origin: origin is types.NoneType)  # null comes last
    words = dict.fromkeys(_word(origin) for origin in origins if not (origin is int and float in origins))
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _word(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(each.value) for each in kind)
    return _WORDS.get(kind, str(getattr(kind, "__name__", kind)))
