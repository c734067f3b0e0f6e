"""What the loss does where one stage ends and the next begins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raptr.plan import Stage
from raptr.results.active_loss import trained_loss
from raptr.results.metric_arrays import Floats, Records
from raptr.results.run_files import Run
from raptr.results.statistics import Interval, mean, t_interval
from raptr.rundir.boundary_jump import jump_of, windows


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """The loss around one stage boundary of a method.

    Attributes:
        step: the first step of the new stage, from 0.
        before: the stage that ends.
        after: the stage that begins.
        window: steps of the new stage over which the training loss is averaged.
        jump: mean over seeds of the jump that each run recorded (see `raptr.rundir.boundary_jump`), or that its steps
            give if it did not; None if a seed has neither.
        interval: its 95 % t-interval over seeds.
        validation: the validation loss of what is trained so far (`trained_loss`: the full model's, but of a
            method that grows) at the last evaluation up to the boundary and at the first one after it, means
            over seeds.
        evaluated: the steps of these two evaluations.
    """

    step: int
    before: Stage
    after: Stage
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
        jumps = [_jump(run, new) for run in runs]
        known = [jump for jump in jumps if jump is not None]
        whole = bool(known) and len(known) == len(jumps)
        validation, evaluated = _validation(runs, new.start)
        found.append(
            Boundary(
                step=new.start,
                before=old,
                after=new,
                window=len(windows(new)[1]),
                jump=mean(known) if whole else None,
                interval=t_interval(known) if whole else None,
                validation=validation,
                evaluated=evaluated,
            )
        )
    return tuple(found)


def _jump(run: Run, stage: Stage) -> float | None:
    """The jump of one run where a stage begins: as recorded, or else of the recorded steps around the boundary."""
    recorded = run.boundaries.get(stage.start)
    if recorded is not None:
        return recorded.jump if math.isfinite(recorded.jump) else None
    before, after = (losses_of(run.train, steps) for steps in windows(stage))
    return None if before is None or after is None else jump_of(before, after)[0]


def mean_loss(train: Records, steps: range) -> float | None:
    """Returns the mean training loss of steps, counted from 0; None if one of them has no number, or no record."""
    losses = losses_of(train, steps)
    return None if losses is None else mean(losses)


def losses_of(train: Records, steps: range) -> list[float] | None:
    """Returns the training losses of steps, counted from 0.

    None if one of them has no number, or no record: every step writes one, but not everywhere are all of them kept.
    """
    values: Floats = train.columns["loss"][(train.step > steps.start) & (train.step <= steps.stop)]
    return values.tolist() if len(values) == len(steps) > 0 and np.isfinite(values).all() else None


def _validation(runs: Sequence[Run], step: int) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    shared = sorted(set.intersection(*(set(run.evals.step.tolist()) for run in runs)))
    up_to, past = [one for one in shared if one <= step], [one for one in shared if one > step]
    if not up_to or not past:
        return None, None
    at = (up_to[-1], past[0])
    losses = [float(np.mean([trained_loss(run)[np.searchsorted(run.evals.step, each)] for run in runs])) for each in at]
    return ((losses[0], losses[1]), at) if np.isfinite(losses).all() else (None, None)
