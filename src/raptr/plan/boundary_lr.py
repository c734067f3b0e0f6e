"""What the learning rate does at stage boundaries, on top of its schedule.

No paper says what to do there, so doing nothing is the default. The rules are functions of the stages and the step
only: nothing is counted, and a run that goes on elsewhere has the same learning rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from raptr.errors import RaptrError
from raptr.plan.schedule import Stage, stage_at


@dataclass(frozen=True, kw_only=True)
class TransitionLR:
    """What the learning rate is multiplied with after stage boundaries: one of two rules.

    - ``rewarm=N``: after each boundary it rises linearly, in N steps, to what its schedule says. The factor at step
      i of a stage, from 0, is min(1, (i + 1) / N); in a stage of fewer steps it does not reach 1.
    - ``scale=f``: at each boundary it is multiplied with f, which stays: f**b after b boundaries.

    The first stage of a run follows no boundary; that after a full-model warm-up does.

    Args:
        rewarm: N, from 2 to 10**9.
        scale: f, from 1e-06 to 100.

    Raises:
        RaptrError: neither or both, or a value that is out of range.

    Example:
        >>> stages = (Stage(start=0, stop=10, sizes=(2,)), Stage(start=10, stop=20, sizes=(4,)))
        >>> [TransitionLR(rewarm=4).factor(stages, step) for step in (0, 9, 10, 11, 13, 14)]
        [1.0, 1.0, 0.25, 0.5, 1.0, 1.0]
        >>> [TransitionLR(scale=0.5).factor(stages, step) for step in (9, 10, 19)]
        [1.0, 0.5, 0.5]
    """

    rewarm: int | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if (self.rewarm is None) == (self.scale is None):
            raise RaptrError(
                f"transition_lr has rewarm={self.rewarm} and scale={self.scale}; give one of them, "
                "a number of steps to re-warm over or a factor."
            )
        if self.rewarm is not None and (not isinstance(self.rewarm, int) or not 2 <= self.rewarm <= 10**9):
            raise RaptrError(f"transition_lr rewarm={self.rewarm!r}: give a whole number of steps from 2 to 10**9.")
        if self.scale is not None and (not isinstance(self.scale, int | float) or not 1e-6 <= self.scale <= 100):
            raise RaptrError(f"transition_lr scale={self.scale!r}: give a factor from 1e-06 to 100.")

    def factor(self, stages: Sequence[Stage], step: int) -> float:
        """What the learning rate of a step is multiplied with."""
        stage = stage_at(stages, step)
        if self.rewarm is not None:
            return 1.0 if stage.start == 0 else min(1.0, (step - stage.start + 1) / self.rewarm)
        assert self.scale is not None
        return float(self.scale ** stages.index(stage))
