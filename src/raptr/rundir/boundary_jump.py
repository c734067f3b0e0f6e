"""The jump of the training loss at a stage boundary: one definition for the run that records it and for the report."""

from collections.abc import Sequence

from raptr.plan import Stage

WINDOW = 10
"""Steps on either side of a boundary; fewer if the new stage, or the run before it, is shorter."""


def windows(stage: Stage, window: int = WINDOW) -> tuple[range, range]:
    """Return the steps whose losses are compared: the last ones before a stage, and the first ones of it.

    Example:
        >>> windows(Stage(start=100, stop=104, sizes=(8,)))
        (range(90, 100), range(100, 104))
    """
    return range(max(0, stage.start - window), stage.start), range(stage.start, min(stage.start + window, stage.stop))


def jump_of(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the jump and the peak of the losses of both windows of a boundary.

    With losses a_i before and b_i after it:

        jump = mean(b) - mean(a)        peak = max(b) - mean(a)

    Example:
        >>> jump_of([3.0, 2.0], [2.5, 3.5])
        (0.5, 1.0)
    """
    level = _mean(before)
    return _mean(after) - level, max(after) - level


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
