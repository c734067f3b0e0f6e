"""Settings that are text are taken literally, whatever YAML reads their values as.

The types of the config's fields say which settings are text. There, ``2026``, ``no``, ``007`` and ``2026-01-31`` are
texts in a file; and on a command line all that is typed, ``notes #1`` too. Null stays null, and quotes are YAML's.
"""

import re
import types
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from raptr.config.base import Name
from raptr.config.schema import RunConfig
from raptr.config.yaml import NULL, TEXT, is_plain, read_value, read_yaml
from raptr.errors import RaptrError

Kinds = tuple[Any, ...]
"""Types that the value of a setting can have, except null."""

_ROOT: Kinds = (RunConfig,)
_QUOTED = re.compile(r"""\s*('([^']|'')*'|"([^"\\]|\\.)*")\s*""", re.DOTALL)
_COMMENT = re.compile(r" #\S.*")
"""What may be the rest of a text: a comment begins with a space after its number sign."""


def read_settings(text: str, source: str) -> Any:
    """Read a config file.

    Raises:
        RaptrError: as `read_yaml`.

    Example:
        >>> read_settings("name: 2026-01-31", "x")
        {'name': '2026-01-31'}
    """

    def amend(node: yaml.Node) -> yaml.Node:
        for cut in _take_literally(node, _ROOT):
            comment = _COMMENT.match(text, cut.end_mark.index)
            if comment:
                warnings.warn(
                    f"{source}, line {cut.end_mark.line + 1}: {comment[0][1:]!r} is read as a comment; put "
                    f"{cut.value + comment[0]!r} in quotes if it is one text.",
                    stacklevel=2,
                )
        return node

    return read_yaml(text, source, amend)


def read_setting(keys: Sequence[str], text: str, source: str) -> Any:
    """Read the value of one setting as it is typed on a command line.

    Args:
        keys: path to the setting in the config.
        text: its value.
        source: names it in messages.

    Raises:
        RaptrError: as `read_value`; or a setting that is text has no value.

    Example:
        >>> read_setting(["data", "source"], "notes #1", "x"), read_setting(["seed"], "1", "x")
        ('notes #1', 1)
    """
    kinds = _ROOT
    for key in keys:
        kinds = _inner(kinds, key)
    several = any(_origin(kind) is list for kind in kinds) and text.startswith("[") and text.endswith("]")
    if not _is_text(kinds) or several or text == "null" or _QUOTED.fullmatch(text):
        return read_value(text, source, lambda node: [node, *_take_literally(node, kinds)][0])
    if not text:
        raise RaptrError(f"{source} is empty; give a text, or null for none.")
    return text


def _take_literally(node: yaml.Node, kinds: Kinds) -> list[yaml.ScalarNode]:
    """Make texts of all plain values in a node where a text is expected, and return their nodes."""
    if isinstance(node, yaml.MappingNode):
        names = any(_origin(kind) is dict and get_args(kind)[0] == Name for kind in kinds)
        found = []
        for key, value in node.value:
            if names and is_plain(key):
                key.tag = TEXT
            found += _take_literally(value, _inner(kinds, key.value if isinstance(key, yaml.ScalarNode) else ""))
        return found
    if isinstance(node, yaml.SequenceNode):
        return [scalar for value in node.value for scalar in _take_literally(value, _inner(kinds, ""))]
    if isinstance(node, yaml.ScalarNode) and is_plain(node) and node.tag != NULL and _is_text(kinds):
        node.tag = TEXT
        return [node]
    return []


def _is_text(kinds: Kinds) -> bool:
    """Return whether a single value can be nothing but a text. One text may stand for a list of texts."""
    items = [get_args(kind)[0] if _origin(kind) is list else kind for kind in kinds]
    return bool(items) and all(part is str for item in items for part in _opened(item))


def _inner(kinds: Kinds, key: str) -> Kinds:
    """Return the types of what a setting of one of some types holds under a key."""
    found: list[Any] = []
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _opened(kind.model_fields[key].annotation) if key in kind.model_fields else ()
        elif _origin(kind) in (dict, list):
            found += _opened(get_args(kind)[-1])
    return tuple(found)


def _opened(hint: Any) -> Kinds:
    """Return the types that a type hint stands for, except null."""
    if _origin(hint) is Annotated:
        return _opened(get_args(hint)[0])
    if _origin(hint) in (Union, types.UnionType):
        return tuple(kind for part in get_args(hint) for kind in _opened(part) if kind is not types.NoneType)
    return (str,) if _origin(hint) is Literal else (hint,)


def _origin(hint: Any) -> Any:
    return get_origin(hint)
