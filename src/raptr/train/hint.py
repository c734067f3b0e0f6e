"""What a wrong name might have meant."""

import difflib
from collections.abc import Iterable


def hint(given: str, known: Iterable[str], otherwise: str) -> str:
    """A question with the known names that are near, or ``otherwise`` if none is."""
    near = difflib.get_close_matches(given, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
