"""One run folder: its files as checked values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raptr.errors import RaptrError
from raptr.plan import Stage
from raptr.results.metric_arrays import Records, read_metrics
from raptr.rundir.metrics_lines import BoundaryLine
from raptr.rundir.paths import CONFIG, METRICS, RESULT, RUN_INFO, read_json, read_text
from raptr.rundir.run_record import BROKEN, Result, RunInfo


@dataclass(frozen=True, kw_only=True)
class Run:
    """Content of one run folder.

    Attributes:
        folder: of the run.
        info: the content of run.json.
        config: the text of config.yaml.
        train: the training steps that were recorded.
        evals: the evaluations.
        boundaries: step at which a stage begins -> what was recorded of that boundary.
        result: the content of result.json; None if the run is not finished.
    """

    folder: Path
    info: RunInfo
    config: str
    train: Records
    evals: Records
    boundaries: Mapping[int, BoundaryLine]
    result: Result | None

    @property
    def label(self) -> str:
        """What the run is called."""
        return self.info.label

    @property
    def method(self) -> str:
        """The name of its method in the config."""
        return self.info.method

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.info.seed

    @property
    def steps(self) -> int:
        """The planned number of steps."""
        return self.info.steps

    @property
    def stacks(self) -> tuple[tuple[str, int], ...]:
        """The name and the number of layers of each stack."""
        return tuple((stack.name, stack.layers) for stack in self.info.plan.stacks)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the plan."""
        return self.info.plan.stages

    @property
    def control(self) -> str:
        """The key of the control that the run is, which has a model of its own; empty for a method."""
        return self.info.control

    @property
    def finished(self) -> bool:
        """Whether the run wrote its result."""
        return self.result is not None

    @property
    def reached(self) -> int:
        """The number of steps that were recorded."""
        return int(self.train.step[-1]) if len(self.train.step) else 0


def read_run(folder: Path) -> Run:
    """Returns the run in ``folder``, finished or not.

    Raises:
        RaptrError: ``run.json`` or a line of ``metrics.jsonl`` is missing something or is broken.
    """
    path = folder / RUN_INFO
    content = read_json(path)
    try:
        info = RunInfo.of(content)
    except BROKEN as error:
        raise RaptrError(
            f"{path} lacks or garbles {error}. Expected are method, seed, steps and plan "
            "(stacks with name and layers, stages with start, stop and sizes)."
        ) from error
    train, evals, boundaries = read_metrics(folder / METRICS, tuple(stack.layers for stack in info.plan.stacks))
    return Run(
        folder=folder,
        info=info,
        config=read_text(folder / CONFIG),
        train=train,
        evals=evals,
        boundaries=boundaries,
        result=_result(folder / RESULT),
    )


def _result(path: Path) -> Result | None:
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        return Result.of(content)
    except BROKEN as error:
        raise RaptrError(
            f"{path} lacks or garbles {error}. Expected are steps, epochs, tokens, FLOPs, seconds and eval_loss; "
            "repeat the command that made it."
        ) from error
