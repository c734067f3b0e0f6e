"""Rules that choose records by their columns: ``language == en``, ``score >= 0.5``. No code is run."""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raptr.config.yaml import read_value
from raptr.errors import RaptrError

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TRUTHS = {"yes": True, "on": True, "no": False, "off": False}
"""Words that are truth values to a column of truth values, and texts to a column of texts."""
_FORM = re.compile(r"\s*(?P<column>[^\s=!<>]+)\s*(?P<sign>[=!<>]=|[<>])\s*(?P<value>.*\S)\s*")


@dataclass(frozen=True)
class Rule:
    """One comparison of a column with a value.

    Args:
        column: its name; dots lead into nested ones.
        sign: one of == != >= <= > <.
        value: a number, a text, true or false, or None.
    """

    column: str
    sign: str
    value: Any

    def holds(self, value: Any) -> bool:
        """Whether a record whose column has this value is chosen.

        A missing value (null) only ever meets ``== null``. Dates compare as text, "2020-01-31".

        Raises:
            TypeError: the two cannot be compared: a text with a number, say.

        Example:
            >>> parse_rule("score >= 0.5").holds(0.7), parse_rule("score >= 0.5").holds(None)
            (True, False)
        """
        if self.value is None or value is None:
            return _OPERATORS[self.sign](value is None, True) if self.value is None else False
        if hasattr(value, "isoformat"):
            value = value.isoformat()
        wanted = self.value
        if isinstance(value, bool) and isinstance(wanted, str):
            wanted = _TRUTHS.get(wanted.lower(), wanted)
        if _kind(value) is None or _kind(value) != _kind(wanted):
            raise TypeError(f"a {type(value).__name__} cannot be compared with {wanted!r}")
        return _OPERATORS[self.sign](value, wanted)


def parse_rule(text: str) -> Rule:
    """Read "COLUMN SIGN VALUE"; the value is as in YAML, so quotes make a text of what looks like a number.

    Dates and words such as ``no`` are texts, and so is all of a value without quotes: ``notes #1``.

    Raises:
        RaptrError: the text is not such a comparison.

    Example:
        >>> parse_rule('meta.id == "7"')
        Rule(column='meta.id', sign='==', value='7')
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise RaptrError(
            f"rule {text!r} is not of the form COLUMN SIGN VALUE, with one of {' '.join(_OPERATORS)}, e.g. "
            "'language == en' or 'score >= 0.5'."
        )
    column, sign, written = match.group("column", "sign", "value")
    value = read_value(written, f"the value of rule {text!r}")
    if isinstance(value, list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise RaptrError(f"rule {text!r}: expected a number, a text, true, false or null after {sign}.")
    if not isinstance(value, str | int | float | None) or (isinstance(value, bool) and written.lower() in _TRUTHS):
        value = written
    if isinstance(value, bool | None) and sign not in ("==", "!="):
        raise RaptrError(f"rule {text!r}: {written} can only be compared with == or !=.")
    return Rule(column, sign, value)


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else None
