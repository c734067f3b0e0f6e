"""What counts as a number in a file."""

import math


def usable(value: object) -> float | None:
    """Returns ``value`` as a finite float; None for anything else (null, NaN, text)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
