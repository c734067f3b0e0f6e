"""Savings at equal loss: against curves that are known, and against the same thing done slowly."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.synthetic_runs import write_run
from raptr.results.equal_loss import FEWEST, Curve, curve_of, monotone, reaching, savings
from raptr.results.run_files import read_run

Pairs = list[tuple[float, float]]


def curve(*seeds: Sequence[float], spent: Sequence[float], clock: float = 1.0) -> Curve:
    """Seeds that were evaluated at the same places."""
    flops = np.tile(np.asarray(spent, dtype=float), (len(seeds), 1))
    return Curve(loss=np.array(seeds, dtype=float), spent={"total_flops": flops, "seconds": flops * clock})


# The same once more, with plain loops: isotonic regression by its min-max formula, the crossing by search.


def slow_monotone(loss: Sequence[float]) -> list[float]:
    """The non-increasing fit: the smallest, over starts, of the largest mean, over ends."""
    n = len(loss)

    def mean(i: int, j: int) -> float:
        return sum(loss[i : j + 1]) / (j + 1 - i)

    return [min(max(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]


def slow_reaching(level: float, points: Pairs) -> float:
    """Where a polyline of (spent, loss) first comes down to a level."""
    if points[0][1] <= level:
        return points[0][0]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y1 <= level + 1e-12:
            low, high = 0.0, 1.0
            for _ in range(80):
                middle = (low + high) / 2
                low, high = (low, middle) if y0 + middle * (y1 - y0) <= level else (middle, high)
            return x0 + high * (x1 - x0)
    return math.inf


def slow_saving(method: list[Pairs], baseline: list[Pairs], seeds: Sequence[int]) -> float:
    """The saving of the mean over some seeds, which may be there more than once."""

    def averaged(curves: list[Pairs]) -> tuple[list[float], list[float]]:
        chosen = [curves[seed] for seed in seeds]
        spent = [sum(one[k][0] for one in chosen) / len(chosen) for k in range(len(chosen[0]))]
        return spent, [sum(one[k][1] for one in chosen) / len(chosen) for k in range(len(chosen[0]))]

    (ours, our_loss), (theirs, their_loss) = averaged(method), averaged(baseline)
    level = max(our_loss[-1], their_loss[-1])
    spent = slow_reaching(level, list(zip(ours, slow_monotone(our_loss), strict=True)))
    other = slow_reaching(level, list(zip(theirs, slow_monotone(their_loss), strict=True)))
    return 1 - spent / other


def noisy(rng: np.random.Generator, seeds: int, points: int, level: float) -> list[Pairs]:
    """Falling curves with noise, at places that differ from seed to seed."""
    ends = 100 * rng.uniform(0.9, 1.1, seeds)
    return [
        [(end * k / (points - 1), level + 4 * math.exp(-4 * k / points) + rng.normal(0, 0.05)) for k in range(points)]
        for end in ends
    ]


def as_curve(pairs: list[Pairs]) -> Curve:
    values = np.array(pairs)
    return Curve(loss=values[:, :, 1], spent={"total_flops": values[:, :, 0], "seconds": 2 * values[:, :, 0]})


@pytest.mark.parametrize("case", range(12))
def test_it_is_what_the_slow_way_gives(case: int) -> None:
    rng = np.random.default_rng(case)
    seeds = 1 + case % 5
    method = noisy(rng, seeds, 15, 3 + rng.normal(0, 0.2))
    baseline = noisy(rng, seeds, 11, 3.0)
    found = savings(as_curve(method), as_curve(baseline))["total_flops"]
    assert found.saving == pytest.approx(slow_saving(method, baseline, range(seeds)), abs=1e-9)
    assert found.seeds == pytest.approx([slow_saving(method, baseline, [seed]) for seed in range(seeds)], abs=1e-9)
    assert (found.interval is None) == (seeds < FEWEST)
    if found.interval is not None and seeds < 5:
        # every resample there is, each once; the 4,000 that are drawn may miss a percentile by a little
        every = sorted(slow_saving(method, baseline, draw) for draw in itertools.product(range(seeds), repeat=seeds))
        low, high = found.interval
        assert every[round(0.015 * len(every))] - 1e-9 <= low <= every[round(0.035 * len(every))] + 1e-9
        assert every[-1 - round(0.035 * len(every))] - 1e-9 <= high <= every[-1 - round(0.015 * len(every))] + 1e-9


def test_the_slow_monotone_fit_is_isotonic_regression() -> None:
    loss = np.random.default_rng(3).normal(size=40) - np.linspace(0, 2, 40)
    np.testing.assert_allclose(monotone(loss), slow_monotone(loss.tolist()))
    assert not np.allclose(monotone(loss), np.minimum.accumulate(loss))  # the lowest so far is another thing


def test_a_method_that_is_twice_as_fast_saves_half() -> None:
    x = np.linspace(0, 100, 1001)
    baseline = curve(*[5 / (1 + x / 10)] * 3, spent=x)
    method = curve(*[5 / (1 + x / 5)] * 3, spent=x, clock=1.5)
    found = savings(method, baseline)
    assert found["total_flops"].reached
    assert found["total_flops"].loss == pytest.approx(5 / 11)
    assert found["total_flops"].method == pytest.approx(50, rel=1e-4)
    assert found["total_flops"].baseline == pytest.approx(100)
    assert found["total_flops"].saving == pytest.approx(0.5, abs=1e-4)
    assert found["total_flops"].interval == pytest.approx((0.5, 0.5), abs=1e-4)
    assert found["seconds"].saving == pytest.approx(0.25, abs=1e-4)


def test_a_method_that_is_half_as_fast_never_reaches_it_and_costs_double() -> None:
    x = np.linspace(0, 100, 1001)
    found = savings(curve(5 / (1 + x / 20), spent=x), curve(5 / (1 + x / 10), spent=x))["total_flops"]
    assert not found.reached
    assert found.loss == pytest.approx(5 / 6)  # its own final loss
    assert (found.method, found.baseline) == pytest.approx((100, 50), rel=1e-4)
    assert found.saving == pytest.approx(-1, abs=1e-3)
    assert found.interval is None


def test_the_baseline_saves_nothing_against_itself_however_noisy() -> None:
    own = as_curve(noisy(np.random.default_rng(5), 4, 20, 3.0))
    assert savings(own, own)["total_flops"].saving == 0
    assert savings(own, own)["seconds"].interval == (0, 0)


def test_noise_alone_does_not_save() -> None:
    # The same curve, evaluated with noise of 0.02: the mean saving over 200 trials is near none.
    rng = np.random.default_rng(11)
    x = np.linspace(0, 100, 51)
    truth = 3 + 2 * np.exp(-x / 40)
    found = [
        savings(curve(truth + rng.normal(0, 0.02, 51), spent=x), curve(truth + rng.normal(0, 0.02, 51), spent=x))
        for _ in range(200)
    ]
    values = np.array([one["total_flops"].saving for one in found])
    assert abs(values.mean()) < 4.5 * values.std(ddof=1) / math.sqrt(200) + 0.005


def test_a_method_that_ends_above_the_first_loss_of_the_baseline_has_no_saving() -> None:
    found = savings(curve([9.0, 8.5], spent=[0, 10]), curve([8.0, 3.0], spent=[0, 10]))["total_flops"]
    assert (found.baseline, found.saving) == (0, None)
    assert not found.reached


def test_one_hopeless_seed_leaves_no_interval_rather_than_a_wrong_one() -> None:
    x = [0.0, 10.0, 20.0]
    method = curve([8, 4, 3], [8, 4, 3], [8, 9, 10], spent=x)
    found = savings(method, curve([8, 4, 3], [8, 4, 3], [8, 4, 3], spent=x))["total_flops"]
    assert found.seeds == (0, 0, None)
    assert found.interval is None


def test_resampling_is_paired_and_can_be_repeated() -> None:
    # Seeds differ much, method and baseline of a seed hardly: unpaired resampling would give a wide interval.
    rng = np.random.default_rng(2)
    x = np.linspace(0, 100, 101)
    luck = rng.normal(0, 0.3, 6)
    baseline = curve(*[3 + one + 2 * np.exp(-x / 30) for one in luck], spent=x)
    method = curve(*[3 + one + 2 * np.exp(-x / 25) for one in luck], spent=x)
    found = savings(method, baseline)["total_flops"]
    assert found == savings(method, baseline)["total_flops"]
    assert found.saving == pytest.approx(1 - 25 / 30, abs=1e-3)
    assert found.interval == pytest.approx((1 - 25 / 30, 1 - 25 / 30), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "said", "trials"), [(3, 0.75, 300), (5, 0.83, 100)])
def test_intervals_of_few_seeds_cover_as_rarely_as_the_report_says(seeds: int, said: float, trials: int) -> None:
    # The method takes 0.8 of the baseline's FLOPs, times e^noise by seed; loss falls linearly.
    rng = np.random.default_rng(seeds)
    hits = 0
    for _ in range(trials):
        x = np.array([0.0, 50.0, 100.0])
        slopes = 0.02 * (1 + rng.normal(0, 0.02, seeds))
        baseline = curve(*[5 - 0.02 * x] * seeds, spent=x)
        method = curve(*[5 - slope * x / 0.8 for slope in slopes], spent=x)
        interval = savings(method, baseline)["total_flops"].interval
        assert interval is not None
        hits += interval[0] <= 0.2 <= interval[1]
    assert abs(hits / trials - said) < 4.5 * math.sqrt(said * (1 - said) / trials)


def test_reaching_typed_by_hand() -> None:
    down, spent = np.array([4.0, 3.0, 3.0, 1.0]), np.array([0.0, 1.0, 2.0, 4.0])
    assert reaching(3.5, down, spent) == 0.5
    assert reaching(3.0, down, spent) == 1.0
    assert reaching(2.0, down, spent) == 3.0
    assert reaching(0.5, down, spent) == math.inf
    assert reaching(5.0, down, spent) == 0.0


def test_runs_evaluated_at_other_steps_are_interpolated(tmp_path: Path) -> None:
    dense = read_run(write_run(tmp_path / "a", steps=60, eval_every=1))
    sparse = read_run(write_run(tmp_path / "b", steps=60, eval_every=7))
    found = curve_of([dense, sparse])
    assert found is not None
    assert found.loss.shape == (2, 61)
    np.testing.assert_allclose(found.loss[0], dense.evals.columns["eval_loss"])
    at = sparse.evals.step
    np.testing.assert_allclose(found.loss[1][at], sparse.evals.columns["eval_loss"])
    assert found.loss[1][1] == pytest.approx((found.loss[1][0] * 6 + found.loss[1][7]) / 7)
    np.testing.assert_allclose(
        found.spent["seconds"][:, -1], [run.evals.columns["seconds"][-1] for run in (dense, sparse)]
    )


def test_unfinished_and_diverged_runs_have_no_curve(tmp_path: Path) -> None:
    fine = read_run(write_run(tmp_path / "a", steps=60))
    assert curve_of([fine]) is not None
    assert curve_of([fine, read_run(write_run(tmp_path / "b", steps=60, done=30))]) is None
    assert curve_of([fine, read_run(write_run(tmp_path / "c", steps=60, nan_from=40))]) is None
    assert curve_of([]) is None


def test_a_growing_method_counts_from_its_first_evaluation_as_a_whole(tmp_path: Path) -> None:
    """It became whole at step 40 of 60; what the smaller model reached before, with the others untrained, is not it."""
    run = read_run(write_run(tmp_path / "a", sizes=(4, 8, 12), steps=60, eval_every=7, grows=True))
    found = curve_of([run])
    assert found is not None
    late = run.evals.step > 40
    assert run.evals.step[late][0] == 42
    np.testing.assert_array_equal(found.loss[0], run.evals.columns["eval_loss"][late])
    np.testing.assert_array_equal(found.spent["total_flops"][0], run.evals.columns["total_flops"][late])
    # a baseline that ends far above: reached at once, which is at that evaluation and not before it
    high = read_run(write_run(tmp_path / "b", method="full", sizes=(12,), steps=60, offset=3.0))
    theirs = curve_of([high])
    assert theirs is not None
    saving = savings(found, theirs)["total_flops"]
    assert saving.method == run.evals.columns["total_flops"][late][0]
    assert saving.at_least


def test_a_saving_that_is_a_bound_has_no_interval_where_every_seed_is_one() -> None:
    x = [10.0, 20.0]
    falls = curve([5, 3], [5, 3], [5, 3], spent=[0.0, 20.0])
    found = savings(curve([2.5, 2], [2.6, 2], [2.7, 2], spent=x), falls)["total_flops"]
    assert (found.saving, found.at_least, found.interval) == (0.5, True, None)
    found = savings(curve([3.5, 2], [2.6, 2], [3.7, 2], spent=x), falls)["total_flops"]
    assert not found.at_least
    assert found.interval is not None
    assert found.interval[1] is None, "every fourth draw is a bound"


@pytest.mark.parametrize(("seeds", "is_open"), [(3, True), (5, False)])
def test_the_upper_end_is_open_where_too_many_draws_are_bounds(seeds: int, is_open: bool) -> None:
    """By hand: a draw is a bound, 0.5, where it holds nothing but the last seed; of 3 that is 3.7 %, of 5 0.03 %."""
    falls = curve(*[[5, 3]] * seeds, spent=[0.0, 20.0])
    late = [[900, 3.0, 3.0]] * (seeds - 1)  # at 12 of 20, which is 0.4 less
    found = savings(curve(*late, [3.0, 3.0, 3.0], spent=[10.0, 12.0, 20.0]), falls)["total_flops"]
    assert (found.saving, found.at_least) == (pytest.approx(0.4), False)
    assert found.seeds[-1] == 0.5
    assert found.interval is not None
    assert found.interval == (pytest.approx(0.4), None if is_open else pytest.approx(0.4))
