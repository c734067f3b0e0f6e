"""Numbers as people read them."""

import math
from collections.abc import Sequence

MISSING = "–"
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def prefix_of(largest: float) -> tuple[float, str]:
    """Returns the factor and the SI prefix in which ``largest`` reads as 1 to 999."""
    if not math.isfinite(largest) or abs(largest) < 1000:
        return 1.0, ""
    power = min(int(math.log10(abs(largest)) // 3), len(PREFIXES) - 1)
    return 1000.0**power, PREFIXES[power]


def time_unit(largest: float) -> tuple[float, str]:
    """Returns the seconds in the unit of time that suits ``largest`` seconds, and the unit's name."""
    if largest >= 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if largest >= 180 else (1.0, "seconds")


def quantity(value: object, unit: str = "") -> str:
    """Returns three significant digits with an SI prefix: ``1.23 PFLOP``, ``4.60 M``."""
    number = usable(value)
    if number is None:
        return MISSING
    factor, prefix = prefix_of(number)
    if factor == 1 and number == int(number):
        return f"{int(number)} {unit}".strip()
    scaled = number / factor
    digits = max(0, 2 - int(math.log10(abs(scaled)))) if abs(scaled) >= 1 else 3
    return f"{scaled:.{digits}f} {prefix}{unit}".strip()


def duration(value: object) -> str:
    """Returns seconds as ``74 s``, ``12.4 min`` or ``3.21 h``."""
    number = usable(value)
    if number is None:
        return MISSING
    if number < 180:
        return f"{number:.1f} s" if number < 10 else f"{number:.0f} s"
    return f"{number / 60:.1f} min" if number < 3 * 3600 else f"{number / 3600:.2f} h"


def layers(sizes: Sequence[float]) -> str:
    """Returns numbers of layers, one a stack: ``6``, ``6 + 3``; means of changing ones with a decimal, ``8.7``."""
    return " + ".join(f"{size:.1f}".removesuffix(".0") for size in sizes)


def size(sizes: Sequence[float], width: float = 1.0) -> str:
    """Returns the layers of a stage, with the share of their heads and neurons if not all run: ``12 × 50 %``."""
    return layers(sizes) + (f" × {share(width, 0)}" if width < 1 else "")


def stage(sizes: Sequence[float], width: float = 1.0) -> str:
    """Returns the size of a stage in words: ``12 layers``, ``12 layers × 50 %``."""
    return f"{layers(sizes)} layers" + (f" × {share(width, 0)}" if width < 1 else "")


def count(value: object) -> str:
    """Returns a whole number with thousands separated: ``12,345``."""
    number = usable(value)
    return MISSING if number is None else f"{round(number):,}"


def decimal(value: object, digits: int = 4, signed: bool = False) -> str:
    """Returns a loss or a difference with fixed digits and a real minus sign: ``−0.0312``."""
    number = usable(value)
    if number is None:
        return MISSING
    return f"{number:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def interval(bounds: tuple[float, float] | None, signed: bool = False) -> str:
    """Returns ``lo to hi``; a dash where there is no interval."""
    if bounds is None:
        return MISSING
    return f"{decimal(bounds[0], signed=signed)} to {decimal(bounds[1], signed=signed)}"


def share_interval(bounds: tuple[float, float | None]) -> str:
    """Returns the ends of an interval as percentages: ``30.9 to 40.4 %``; ``30.9 % or more`` if the upper is open."""
    low, high = bounds
    return f"{share(low)} or more" if high is None else f"{share(low).removesuffix(' %')} to {share(high)}"


def share(value: object, digits: int = 1, *, at_least: bool = False) -> str:
    """Returns a share as a percentage with a real minus sign: ``12.5 %``, ``−40.0 %``, ``≥ 38.3 %``."""
    number = usable(value)
    text = MISSING if number is None else f"{number:.{digits}%}".replace("%", " %").replace("-", "−")
    return f"≥ {text}" if at_least and number is not None else text


def usable(value: object) -> float | None:
    """Returns ``value`` as a finite float; None for anything else (null, NaN, text)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
