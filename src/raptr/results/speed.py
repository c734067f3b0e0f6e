"""How long each stage took, and how fast it went."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raptr.plan import Stage
from raptr.results.run_files import Run


@dataclass(frozen=True, kw_only=True)
class StageSpeed:
    """One stage of a method, means over the runs that have finished it.

    Attributes:
        stage: which.
        seconds: it took, validation left out.
        share: of the time of all stages that were finished.
        tokens_per_second: tokens it trained on, by its seconds.
        flops_share: its share of the total FLOPs of all stages that were finished.
    """

    stage: Stage
    seconds: float
    share: float
    tokens_per_second: float
    flops_share: float


def speeds(runs: Sequence[Run]) -> tuple[StageSpeed, ...]:
    """Returns the stages of a method that each of its runs has finished.

    Args:
        runs: the method's seeds; they have the same stages.
    """
    if not runs:
        return ()
    stages = [stage for stage in runs[0].stages if all(run.reached >= stage.stop for run in runs)]
    seconds, tokens, flops = (
        [float(np.mean([_spent(run, stage, counter) for run in runs])) for stage in stages]
        for counter in ("seconds", "tokens", "total_flops")
    )
    if not stages or not np.isfinite([*seconds, *tokens, *flops]).all() or min(seconds) <= 0 or min(flops) <= 0:
        return ()
    return tuple(
        StageSpeed(
            stage=stage,
            seconds=seconds[k],
            share=seconds[k] / sum(seconds),
            tokens_per_second=tokens[k] / seconds[k],
            flops_share=flops[k] / sum(flops),
        )
        for k, stage in enumerate(stages)
    )


def _spent(run: Run, stage: Stage, counter: str) -> float:
    totals = np.append(0.0, run.train.columns[counter])
    steps = np.append(0, run.train.step)
    start, stop = np.interp([stage.start, stage.stop], steps, totals)
    return float(stop - start)
