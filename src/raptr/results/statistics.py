"""Means, paired differences and their intervals over seeds."""

import math
from collections.abc import Sequence

from scipy import stats

Interval = tuple[float, float]

ONE_SEED = "one seed: no interval"
UNDECIDED = "too short to decide"
DIVERGED = "diverged"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's confidence interval of the mean: mean +- t * s / sqrt(n), with n - 1 degrees of freedom.

    Args:
        values: one per seed, taken as independent and normal.
        confidence: of the interval.

    Returns:
        (low, high), or None for fewer than two values.

    Example:
        >>> low, high = t_interval([1.0, 2.0, 3.0])
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    n = len(values)
    if n < 2:
        return None
    centre = mean(values)
    variance = math.fsum((value - centre) ** 2 for value in values) / (n - 1)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * math.sqrt(variance / n)
    return centre - half, centre + half


def verdict(difference: float, interval: Interval | None) -> str:
    """What a paired difference in loss allows to say.

    Nothing is called better or worse while its interval includes 0 (or is not known).
    """
    if not math.isfinite(difference):
        return DIVERGED
    if interval is None:
        return ONE_SEED
    low, high = interval
    if low <= 0 <= high:
        return UNDECIDED
    return f"{'better' if difference < 0 else 'worse'} by {abs(difference):.3f}"
