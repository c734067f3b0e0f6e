"""What a method saves at equal loss: how much it and the baseline spent when they reached the same validation loss.

Shapes: S seeds, E evaluations.

1. A method's curve is the mean over its seeds, at equal shares of the run, of the validation loss and of
   what was spent until then (`curve_of`). The curve of a method that grows begins at its first evaluation
   after its last boundary: until then there is a smaller trained model and layers as they were initialised,
   and whatever these reach together, the model that would be had at that cost is another one.
2. The loss is made monotone: the non-increasing sequence that is closest to it in least squares (isotonic
   regression). Unlike the lowest loss so far, it does not reward a curve for being noisy.
3. The loss at which both are compared is the higher of the two final ones, so that both reach it. If the
   method ends lower, this is the baseline's final loss; if it ends higher, it never reaches that, and the
   baseline is looked at where it passes the method's final loss instead.
4. The saving is 1 - (spent by the method) / (spent by the baseline) when they first reach it, linearly
   interpolated between evaluations: 0.2 is a fifth less, -0.25 a quarter more. What is reached at the first
   evaluation of a curve, or before, counts as reached there.
5. The interval is a percentile bootstrap over seeds: pairs (the same seed of both methods) are drawn with
   replacement, and all of this is done again with each draw. A draw in which the method was there at its first
   evaluation is a bound, from below: for the lower end it counts as it is, for the upper end as without limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from raptr.results.active_loss import full_loss, of_part
from raptr.results.metric_arrays import Floats
from raptr.results.run_files import Run

Measure = Literal["total_flops", "seconds"]
Ends = tuple[float, float | None]
"""The ends of an interval of savings; the upper one is None where it is open."""

MEASURES: tuple[Measure, ...] = ("total_flops", "seconds")

RESAMPLES = 4000
FEWEST = 3  # seeds: with fewer there is no interval
_SEED = 20240208  # of the resampling, so that a report can be made again


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The seeds of one method at the same shares of the run.

    Attributes:
        loss: [S, E] validation loss of the full model; the last is the final one.
        spent: measure -> [S, E], what was spent until then.
    """

    loss: Floats
    spent: Mapping[Measure, Floats]


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What a method saves of one measure at equal loss.

    Attributes:
        loss: at which both are compared.
        reached: whether the method reached the baseline's final loss; else ``loss`` is its own.
        method: spent by the method until it reached ``loss``.
        baseline: the same of the baseline.
        saving: 1 - method / baseline; None if the baseline reached it before its first step.
        at_least: whether the method was there at its curve's first evaluation already, so that it may have saved more.
        interval: 95 %, by bootstrap over seeds; None with fewer than three, where an end is not defined,
            or where ``at_least`` holds of every draw. Its upper end is None, open, where ``at_least`` holds of so many
            draws that they may reach beyond it.
        seeds: the saving of each pair of seeds by itself.
    """

    loss: float
    reached: bool
    method: float
    baseline: float
    saving: float | None
    at_least: bool
    interval: Ends | None
    seeds: tuple[float | None, ...]


def curve_of(runs: Sequence[Run]) -> Curve | None:
    """The curves of the seeds of a method, linearly interpolated where they were not evaluated at the same steps.

    Returns:
        The curve; None if a run is not finished, has diverged, or has not measured its final loss.
    """
    if not runs:
        return None
    known = [_known(run) for run in runs]
    if not all(run.finished and len(share) and share[-1] >= 1 for run, (share, _, _) in zip(runs, known, strict=True)):
        return None
    first = max(share[0] for share, _, _ in known)
    grid = np.unique(np.concatenate([share[share >= first] for share, _, _ in known]))
    return Curve(
        loss=np.array([np.interp(grid, share, loss) for share, loss, _ in known]),
        spent={
            measure: np.array([np.interp(grid, share, spent[measure]) for share, _, spent in known])
            for measure in MEASURES
        },
    )


def _known(run: Run) -> tuple[Floats, Floats, dict[Measure, Floats]]:
    """Share of the run, loss and what was spent, at the evaluations of the whole model that measured all of them.

    A run whose last loss is no number has diverged: nothing is left of it.
    """
    loss = full_loss(run)
    spent = {measure: run.evals.columns[measure] for measure in MEASURES}
    whole = np.isfinite(loss) & np.all([np.isfinite(values) for values in spent.values()], axis=0)
    if len(whole) and not whole[-1]:
        whole[:] = False
    whole &= ~of_part(run)
    return run.evals.step[whole] / run.steps, loss[whole], {name: values[whole] for name, values in spent.items()}


def monotone(loss: Floats) -> Floats:
    """The non-increasing sequence closest to ``loss`` in least squares.

    Example:
        >>> monotone(np.array([3.0, 1.0, 2.0, 0.5])).tolist()
        [3.0, 1.5, 1.5, 0.5]
    """
    found: Floats = isotonic_regression(loss, increasing=False).x
    return found


def reaching(loss: float, curve: Floats, spent: Floats) -> float:
    """What was spent when a non-increasing curve first reached ``loss``; infinity if it never did.

    Example:
        >>> reaching(1.5, np.array([3.0, 2.0, 1.0]), np.array([0.0, 10.0, 20.0]))
        15.0
    """
    below = np.flatnonzero(curve <= loss + 1e-12 * abs(loss))
    if not len(below):
        return math.inf
    at = int(below[0])
    if at == 0 or curve[at] >= loss:
        return float(spent[at])
    share = (curve[at - 1] - loss) / (curve[at - 1] - curve[at])
    return float(spent[at - 1] + share * (spent[at] - spent[at - 1]))


def savings(method: Curve, baseline: Curve) -> dict[Measure, Saving]:
    """What a method saves against the baseline at equal loss, for each measure.

    Args:
        method: its curves; seed s is paired with seed s of the baseline.
        baseline: the same of the baseline.
    """
    seeds = len(method.loss)
    every = _equal(method, baseline, np.full(seeds, 1 / seeds))
    single = [_equal(method, baseline, one) for one in np.eye(seeds)]
    drawn, times = _resamples(seeds) if seeds >= FEWEST else (np.empty((0, seeds)), np.empty(0, dtype=np.int64))
    resampled = [_equal(method, baseline, weights) for weights in drawn]
    bounds = np.repeat(np.array([one.at_once for one in resampled], dtype=np.bool_), times)
    found = {}
    for measure in MEASURES:
        point = every.spent[measure]
        values = np.repeat([_saving(*one.spent[measure]) for one in resampled], times)
        found[measure] = Saving(
            loss=every.loss,
            reached=every.reached,
            method=point[0],
            baseline=point[1],
            saving=_finite(_saving(*point)),
            at_least=every.at_once,
            interval=_percentiles(values, bounds),
            seeds=tuple(_finite(_saving(*one.spent[measure])) for one in single),
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Equal:
    """The two mean curves at equal loss: what method and baseline spent, by measure."""

    loss: float
    reached: bool
    at_once: bool
    spent: dict[Measure, tuple[float, float]]


def _equal(method: Curve, baseline: Curve, weights: Floats) -> _Equal:
    ours, theirs = weights @ method.loss, weights @ baseline.loss
    loss = float(max(ours[-1], theirs[-1]))
    flat_ours, flat_theirs = monotone(ours), monotone(theirs)
    return _Equal(
        loss=loss,
        reached=bool(ours[-1] <= theirs[-1]),
        at_once=bool(flat_ours[0] <= loss),
        spent={
            measure: (
                reaching(loss, flat_ours, weights @ method.spent[measure]),
                reaching(loss, flat_theirs, weights @ baseline.spent[measure]),
            )
            for measure in MEASURES
        },
    )


def _saving(method: float, baseline: float) -> float:
    return 1 - method / baseline if baseline > 0 else -math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _resamples(seeds: int) -> tuple[Floats, NDArray[np.int64]]:
    """The different resamples as weights [R, S], and how often each was drawn."""
    draws = np.random.Generator(np.random.PCG64(_SEED)).integers(0, seeds, size=(RESAMPLES, seeds))
    counts = np.stack([np.bincount(draw, minlength=seeds) for draw in draws])
    different, times = np.unique(counts, axis=0, return_counts=True)
    return different / seeds, times


def _percentiles(values: Floats, bounds: NDArray[np.bool_]) -> Ends | None:
    """The ends of the middle 95 % of draws; those that are bounds may be anything above their value."""
    if bounds.all():
        return None
    low = float(np.quantile(values, 0.025, method="inverted_cdf"))
    high = float(np.quantile(np.where(bounds, math.inf, values), 0.975, method="inverted_cdf"))
    if not math.isfinite(low) or high == -math.inf:
        return None
    return low, _finite(high)
