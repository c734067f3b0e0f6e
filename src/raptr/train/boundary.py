"""How much the loss jumps where a stage begins."""

from collections.abc import Sequence
from typing import Any

from raptr.plan import Plan

WINDOW = 10
"""Steps on either side of a boundary; fewer after it where a stage is shorter."""


class Boundaries:
    """The last losses of a run, and what they say of a boundary.

    Of the w = `WINDOW` steps before a stage and the first ones of it, w or all, with losses a_i and b_i:

        jump = mean(b) - mean(a)        peak = max(b) - mean(a)

    Example:
        >>> from raptr import RaPTr
        >>> from raptr.plan import ModelShape
        >>> plan = RaPTr("1-2", fixed=()).plan(ModelShape.of(layers=2), 4)
        >>> seen = Boundaries(window=1)
        >>> [seen.add(plan, step, loss) for step, loss in enumerate([3.0, 2.0, 2.5, 1.0])][2]
        {'step': 2, 'stage': 1, 'window': 1, 'jump': 0.5, 'peak': 0.5}
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self.losses: list[float] = []

    def add(self, plan: Plan, step: int, loss: float) -> dict[str, Any] | None:
        """Take the loss of a step; where it is the last one that a boundary waits for, what the boundary did.

        Returns:
            ``step`` (how many were completed when the stage began), ``stage`` (from 0), ``window`` (steps of the
            stage), ``jump`` and ``peak``; None at other steps.
        """
        self.losses = [*self.losses, loss][-2 * self._window :]
        stage = plan.stage(step)
        if stage.start == 0 or step != min(stage.start + self._window, stage.stop) - 1:
            return None
        count = step - stage.start + 1
        before, after = self.losses[:-count][-self._window :], self.losses[-count:]
        level = _mean(before)
        return {
            "step": stage.start,
            "stage": plan.stages.index(stage),
            "window": count,
            "jump": _mean(after) - level,
            "peak": max(after) - level,
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
