"""What the loss does where one stage ends and the next begins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raptr.results.active_loss import trained_loss
from raptr.results.metrics import Floats, Records
from raptr.results.run import Run
from raptr.results.statistics import Interval, mean, t_interval

SHARE = 0.02  # of the run: the window on either side of a boundary


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """The loss around one stage boundary of a method.

    Attributes:
        step: the first step of the new stage, from 0.
        before: the sizes of the stage that ends, one a stack.
        after: those of the stage that begins.
        window: steps on either side over which the training loss is averaged.
        jump: training loss after minus before, mean over seeds; None where not every step of both windows was
            recorded.
        interval: its 95 % t-interval over seeds.
        validation: the validation loss of what is trained so far (`trained_loss`: the full model's, but of a
            method that grows) at the last evaluation up to the boundary and at the first one after it, means
            over seeds.
        evaluated: the steps of these two evaluations.
    """

    step: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    window: int
    jump: float | None
    interval: Interval | None
    validation: tuple[float, float] | None
    evaluated: tuple[int, int] | None


def boundaries(runs: Sequence[Run]) -> tuple[Boundary, ...]:
    """Returns the boundaries of a method that every one of its runs has passed.

    Args:
        runs: the method's seeds; they have the same stages.
    """
    if not runs:
        return ()
    found = []
    for old, new in zip(runs[0].stages, runs[0].stages[1:], strict=False):
        if any(run.reached <= new.start for run in runs):
            break
        window = window_of(runs[0], new.start)
        jumps = [_jump(run.train, new.start, window) for run in runs]
        known = [jump for jump in jumps if jump is not None]
        whole = bool(known) and len(known) == len(jumps)
        validation, evaluated = _validation(runs, new.start)
        found.append(
            Boundary(
                step=new.start,
                before=old.sizes,
                after=new.sizes,
                window=window,
                jump=mean(known) if whole else None,
                interval=t_interval(known) if whole else None,
                validation=validation,
                evaluated=evaluated,
            )
        )
    return tuple(found)


def window_of(run: Run, step: int) -> int:
    """Returns the steps on either side of a boundary that are averaged: a share of the run, within its two stages."""
    lengths = [stage.stop - stage.start for stage in run.stages if step in (stage.start, stage.stop)]
    return max(1, min(round(SHARE * run.steps), *(length // 2 for length in lengths)))


def _jump(train: Records, step: int, window: int) -> float | None:
    before = mean_loss(train, step - window, step)
    after = mean_loss(train, step, step + window)
    return None if before is None or after is None else after - before


def mean_loss(train: Records, start: int, stop: int) -> float | None:
    """Returns the mean training loss of the steps ``start`` to ``stop`` (exclusive), counted from 0.

    None if one of them has no number, or no record: every step writes one, but not everywhere are all of them kept.
    """
    values: Floats = train.columns["loss"][(train.step > start) & (train.step <= stop)]
    return float(values.mean()) if len(values) == stop - start > 0 and np.isfinite(values).all() else None


def _validation(runs: Sequence[Run], step: int) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    shared = sorted(set.intersection(*(set(run.evals.step.tolist()) for run in runs)))
    up_to, past = [one for one in shared if one <= step], [one for one in shared if one > step]
    if not up_to or not past:
        return None, None
    at = (up_to[-1], past[0])
    losses = [float(np.mean([trained_loss(run)[np.searchsorted(run.evals.step, each)] for run in runs])) for each in at]
    return ((losses[0], losses[1]), at) if np.isfinite(losses).all() else (None, None)
