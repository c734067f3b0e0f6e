"""Intervals and decisions."""

import math

import numpy as np
import pytest
from scipy import stats

from raptr.results.statistics import DECIDED, Decision, decide, mean, t_interval


def test_interval_equals_the_textbook_and_scipy() -> None:
    # Three values 3.1, 3.2, 3.4: mean 3.2333, s = 0.15275, t(0.975, 2) = 4.302653
    low, high = t_interval([3.1, 3.2, 3.4]) or (0, 0)
    assert low == pytest.approx(3.23333 - 4.302653 * 0.152753 / math.sqrt(3), abs=1e-4)
    assert high == pytest.approx(3.23333 + 4.302653 * 0.152753 / math.sqrt(3), abs=1e-4)
    values = np.random.default_rng(0).normal(size=7).tolist()
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high))


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    # 4,000 experiments of 3 seeds: 95 % within 4.5 standard errors (false-alarm rate below 1e-5).
    draws = np.random.default_rng(1).normal(loc=2.0, size=(4000, 3))
    hits = [low <= 2.0 <= high for low, high in map(t_interval, draws.tolist())]  # type: ignore[misc]
    assert abs(mean(hits) - 0.95) < 4.5 * math.sqrt(0.95 * 0.05 / 4000)


def test_one_value_has_no_interval() -> None:
    assert t_interval([3.0]) is None


@pytest.mark.parametrize(
    ("difference", "interval", "decision"),
    [
        (-0.05, (-0.07, -0.03), Decision.BETTER),
        (0.05, (0.03, 0.07), Decision.WORSE),
        (-0.05, (-0.11, 0.01), Decision.UNDECIDED),
        (0.05, (0.0, 0.1), Decision.UNDECIDED),
        (0.05, None, Decision.ONE_SEED),
        (None, None, Decision.DIVERGED),
        (math.nan, (math.nan, math.nan), Decision.DIVERGED),
    ],
)
def test_a_difference_decides_only_when_its_interval_excludes_zero(
    difference: float | None, interval: tuple[float, float] | None, decision: Decision
) -> None:
    assert decide(difference, interval) is decision


def test_the_values_of_decisions_are_those_of_stored_summaries() -> None:
    values = ["better", "worse", "undecided", "one_seed", "diverged", "unfinished", "baseline"]
    assert [decision.value for decision in Decision] == values
    assert [decision.value for decision in Decision if decision.value in DECIDED] == ["better", "worse"]
