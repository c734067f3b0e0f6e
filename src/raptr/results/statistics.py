"""Means, paired differences and their intervals over seeds."""

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import cache

from scipy import stats

Interval = tuple[float, float]


class Decision(StrEnum):
    """Result of comparing a method with the baseline; the values are those of ``decision`` in ``summary.json``."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    ONE_SEED = "one_seed"
    DIVERGED = "diverged"
    UNFINISHED = "unfinished"
    BASELINE = "baseline"


DECIDED = (Decision.BETTER, Decision.WORSE)
"""Decisions that a difference from zero supports."""


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
    half = _quantile((1 + confidence) / 2, n - 1) * math.sqrt(variance / n)
    return centre - half, centre + half


@cache
def _quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t distribution."""
    return float(stats.t.ppf(probability, degrees))


def decide(difference: float | None, interval: Interval | None) -> Decision:
    """Return the decision that a paired difference in loss supports.

    Nothing is better or worse while the interval includes 0, or without an interval.

    Args:
        difference: method minus baseline; None if one of them has no finite loss.
        interval: of the difference; None for one seed.

    Example:
        >>> decide(-0.05, (-0.07, -0.03)).value, decide(-0.05, (-0.11, 0.01)).value
        ('better', 'undecided')
    """
    if difference is None or not math.isfinite(difference):
        return Decision.DIVERGED
    if interval is None:
        return Decision.ONE_SEED
    low, high = interval
    if low <= 0 <= high:
        return Decision.UNDECIDED
    return Decision.BETTER if difference < 0 else Decision.WORSE
