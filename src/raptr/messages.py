"""Small pieces of messages: suggestions for an unknown name, the first line of an error, and warnings."""

import difflib
import inspect
import warnings
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str], *, most: int = 3, quoted: bool = True) -> str:
    """Ask for the known names that are close to a given one, also in another spelling; empty if none is close.

    Args:
        given: the unknown name.
        known: the names that are known.
        most: how many names to suggest at most.
        quoted: whether to put the names in quotes.

    Example:
        >>> did_you_mean("raptor", ["full", "raptr"])
        "did you mean 'raptr'?"
        >>> did_you_mean("late-expansion", ["full", "late_expansion"], quoted=False)
        'did you mean late_expansion?'
        >>> did_you_mean("xyz", ["full", "raptr"])
        ''
    """
    names, plain = list(known), given.lower().replace("-", "_").replace(" ", "_")
    near = difflib.get_close_matches(given, names, n=most) or difflib.get_close_matches(plain, names, n=most)
    return f"did you mean {' or '.join(map(repr, near) if quoted else near)}?" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty.

    Example:
        >>> first_line(ValueError(" a\\nb"))
        'a'
        >>> first_line(ValueError())
        'ValueError'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def warn(message: str, *, inside: tuple[str, ...]) -> None:
    """Warn at the newest line outside some packages, whatever lies between.

    Args:
        message: of the warning.
        inside: the packages, each with a dot at its end.
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and f"{frame.f_globals.get('__name__', '')}.".startswith((f"{__name__}.", *inside)):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
