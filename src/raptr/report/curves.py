"""Curves over steps, FLOPs, time and tokens: means over seeds with their bands, smoothing, thinning."""

import math
from dataclasses import dataclass

import numpy as np

from raptr.results.active_loss import trained_loss
from raptr.results.metric_arrays import Floats
from raptr.results.run_files import Run
from raptr.results.statistics import t_interval
from raptr.units import prefix_of, time_unit

POINTS = 200
SMOOTHING = 40  # the smoothing window is this fraction of the run


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a loss curve is drawn against: a counter of the metrics, in a unit that suits its largest value."""

    counter: str
    title: str
    factor: float


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds at E evaluations: position ``x``, ``mean`` and the ends of the 95% t band.

    ``low`` and ``high`` are NaN where there are not two seeds, everything is NaN where one seed has no number.
    """

    step: Floats
    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def axis_of(counter: str, runs: tuple[Run, ...]) -> Axis:
    """Returns the axis of ``total_flops``, ``seconds`` or ``tokens`` that suits the largest of ``runs``."""
    values = np.concatenate([records.columns[counter] for run in runs for records in (run.train, run.evals)])
    largest = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    if counter == "seconds":
        factor, unit = time_unit(largest)
        return Axis(counter=counter, title=f"Training time ({unit})", factor=factor)
    factor, prefix = prefix_of(largest)
    title = f"Total training compute ({prefix}FLOP)" if counter == "total_flops" else "Tokens seen"
    unit = f" ({prefix})" if counter == "tokens" and prefix else ""
    return Axis(counter=counter, title=title + unit, factor=factor)


def thin(length: int, points: int = POINTS) -> Floats:
    """Returns at most ``points`` evenly spaced indices below ``length``, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, points)).round()) if length else np.empty(0)


def drawn(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Returns the runs that a mean is made of: the finished ones; while none is, those that have measured a loss."""
    return tuple(run for run in runs if run.finished) or tuple(run for run in runs if len(run.evals.step))


def mean_curve(runs: tuple[Run, ...], axis: Axis, source: str | None = None) -> Mean:
    """Returns the mean validation loss of ``runs`` (the seeds of one method) where all of them have measured it.

    With ``source`` it is that of one validation source; without, that of all of them. Until a growing method's
    last boundary it is the loss of the part trained so far.

    The band is the 95 % t interval, for each evaluation by itself.
    """
    shared = [set(run.evals.step.tolist()) for run in runs]
    steps = np.array(sorted(set.intersection(*shared)) if shared else [], dtype=np.float64)
    steps = steps[thin(len(steps)).astype(int)]
    rows = [np.searchsorted(run.evals.step, steps) for run in runs]
    columns = [trained_loss(run, source) for run in runs]
    losses = np.array([column[row] for column, row in zip(columns, rows, strict=True)])
    places = np.array([run.evals.columns[axis.counter][row] for run, row in zip(runs, rows, strict=True)])
    losses[~np.isfinite(losses)] = np.nan
    mean = losses.mean(axis=0) if len(runs) else np.empty(0)
    bands = [t_interval(column) or (math.nan, math.nan) for column in losses.T.tolist()]
    low, high = np.array(bands, dtype=np.float64).reshape(-1, 2).T
    place = places.mean(axis=0) / axis.factor if len(runs) else np.empty(0)
    return Mean(step=steps, x=place, mean=mean, low=low, high=high)


def place_of(run: Run, axis: Axis, step: int) -> float | None:
    """Returns where ``step`` lies on ``axis`` in ``run``; None for a step that was not reached."""
    known, values = run.train.step, run.train.columns[axis.counter]
    if step == 0:
        return 0.0
    if not len(known) or step > known[-1]:
        return None
    found = float(np.interp(step, np.append(0, known), np.append(0.0, values))) / axis.factor
    return found if np.isfinite(found) else None


def smooth(values: Floats) -> Floats:
    """Returns a centred moving average over a fortieth of the run; values that are no numbers are left out."""
    width = max(len(values) // SMOOTHING, 1) | 1
    known = np.isfinite(values)
    weight = np.ones(width)
    total = np.convolve(np.where(known, values, 0.0), weight, mode="full")
    number = np.convolve(known.astype(np.float64), weight, mode="full")
    side = width // 2
    total, number = total[side : side + len(values)], number[side : side + len(values)]
    # A long stretch of no numbers stays a gap: a diverged run must not look healthy.
    return np.where(known & (number > 0), total / np.maximum(number, 1), np.nan)
