"""The jump of the training loss at each stage boundary, while a run is trained."""

from raptr.plan import Plan
from raptr.rundir.boundary_jump import WINDOW, jump_of, windows
from raptr.rundir.metrics_lines import BoundaryLine


class Boundaries:
    """The last losses of a run, and the jump at each boundary; see `raptr.rundir.boundary_jump`.

    Example:
        >>> from raptr import RaPTr
        >>> from raptr.plan import ModelShape
        >>> plan = RaPTr("1-2", fixed=()).plan(ModelShape.of(layers=2), 4)
        >>> seen = Boundaries(window=1)
        >>> [seen.add(plan, step, loss) for step, loss in enumerate([3.0, 2.0, 2.5, 1.0])][2]
        BoundaryLine(step=2, stage=1, window=1, jump=0.5, peak=0.5)
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self.losses: list[float] = []

    def add(self, plan: Plan, step: int, loss: float) -> BoundaryLine | None:
        """Take the loss of a step; return the boundary's record at the last step that it needs, None at others."""
        self.losses = [*self.losses, loss][-2 * self._window :]
        stage = plan.stage(step)
        _, after = windows(stage, self._window)
        if stage.start == 0 or step != after[-1]:
            return None
        count = len(after)
        jump, peak = jump_of(self.losses[:-count][-self._window :], self.losses[-count:])
        return BoundaryLine(step=stage.start, stage=plan.stages.index(stage), window=count, jump=jump, peak=peak)
