"""Small pieces of messages: names that an unknown one might have meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A question with the known names that are near, also in another spelling; empty where none is.

    Example:
        >>> did_you_mean("raptor", ["full", "raptr"])
        "did you mean 'raptr'?"
        >>> did_you_mean("late-expansion", ["full", "late_expansion"])
        "did you mean 'late_expansion'?"
        >>> did_you_mean("xyz", ["full", "raptr"])
        ''
    """
    names, plain = list(known), given.lower().replace("-", "_").replace(" ", "_")
    near = difflib.get_close_matches(given, names, n=3) or difflib.get_close_matches(plain, names, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def hint(given: str, known: Iterable[str], otherwise: str) -> str:
    """A question with the known names that are near, or ``otherwise`` if none is."""
    near = difflib.get_close_matches(given, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
