"""From the dataclasses of a run folder to JSON objects, and numbers back."""

import json
import math
from collections.abc import Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any

_OMITTED, _INLINE = "omitted", "inline"

INLINE = {_INLINE: True}
"""Metadata of a field whose own fields stand in the file in its place."""


def omitted(default: Any) -> Any:
    """Declare a field that is left out of the file while it has its default."""
    return field(default=default, metadata={_OMITTED: True})


def as_record(value: Any) -> Any:
    """Return plain data: a dataclass as a dict with its ``KIND``, if it has one, and its fields in their order.

    Example:
        >>> from raptr.rundir.metrics_lines import BoundaryLine
        >>> as_record(BoundaryLine(step=3, stage=1, window=2, jump=0.5, peak=0.75))
        {'kind': 'boundary', 'step': 3, 'stage': 1, 'window': 2, 'jump': 0.5, 'peak': 0.75}
    """
    if isinstance(value, list | tuple):
        return [as_record(part) for part in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    kind = getattr(value, "KIND", None)
    record: dict[str, Any] = {} if kind is None else {"kind": kind}
    for each in fields(value):
        part = getattr(value, each.name)
        if each.metadata.get(_OMITTED) and part == each.default:
            continue
        if each.metadata.get(_INLINE):
            record |= as_record(part)
        else:
            record[each.name] = as_record(part)
    return record


def to_json(content: Any, indent: int | None = None) -> str:
    """Return JSON of plain data or a dataclass; a number that is not finite becomes null.

    So the files of a run that diverged can still be read.
    """
    return json.dumps(_finite(as_record(content)), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: Any) -> float:
    """Return the number that stands in a file; null is NaN.

    Raises:
        TypeError: the value is not a number.
        OverflowError: the number is too large for a float.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    float(value)
    return value


def numbers(kind: Any) -> dict[str, float]:
    """Return the names of all fields of a kind of line that hold one number, with what a line without them means.

    Example:
        >>> from raptr.rundir.metrics_lines import BoundaryLine
        >>> list(numbers(BoundaryLine))
        ['step', 'stage', 'window', 'jump', 'peak']
    """
    found: dict[str, float] = {}
    for each in fields(kind):
        if each.metadata.get(_INLINE):
            found |= numbers(each.type)
        elif each.type in (int, float, float | None):
            found[each.name] = _absent(each)
    return found


def section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the object under a name of a record; empty if there is none."""
    value = content.get(name)
    return dict(value) if isinstance(value, Mapping) else {}


def _absent(each: Field[Any]) -> float:
    default: Any = each.default
    return float(default) if each.metadata.get(_OMITTED) and default is not None else math.nan
