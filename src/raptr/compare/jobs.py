"""The runs of a comparison: which there are, and what each trains."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raptr.compare import sweep
from raptr.compare.budget import Budget
from raptr.rundir.run_record import read_result
from raptr.train.task import Task


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a comparison: its folder's name, and what is trained there."""

    name: str
    task: Task


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison that has been checked: what it trains, and where.

    Attributes:
        folder: where it is kept.
        task: data, model and costs, with the config's number of steps for full training.
        tasks: of each label; the comparison's own, except of a method that trains a model of its own.
        seeds: the reported seeds.
        budget: what is held equal.
        steps: of each method.
        grid: what is tuned; empty for nothing.
        tuning_seeds: the seeds of the trials.
    """

    folder: Path
    task: Task
    tasks: dict[str, Task]
    seeds: tuple[int, ...]
    budget: Budget
    steps: dict[str, int]
    grid: dict[str, list[Any]]
    tuning_seeds: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(self.tasks)

    def trials(self) -> list[Job]:
        """The runs that tune; none without a grid."""
        chosen = sweep.combinations(self.grid) if self.grid else []
        return [
            self._job(sweep.trial_name(label, values, seed), label, seed, values, "tuning")
            for seed in self.tuning_seeds
            for values in chosen
            for label in self.labels
        ]

    def runs(self, chosen: dict[str, sweep.Values]) -> list[Job]:
        """The reported runs, with the values chosen for each method; methods alternate."""
        part = "report" if self.grid else None
        return [
            self._job(run_name(label, seed), label, seed, chosen.get(label, {}), part)
            for seed in self.seeds
            for label in self.labels
        ]

    def missing(self) -> list[str]:
        """The names of the reported runs that are not finished."""
        return [job.name for job in self.runs({}) if read_result(self.folder / job.name) is None]

    def _job(self, name: str, label: str, seed: int, values: sweep.Values, part: str | None) -> Job:
        task = self.tasks[label]
        config = sweep.with_values(task.config, values)
        config = sweep.on_part(config, part) if part else config
        return Job(name=name, task=_run_task(replace(task, config=config), label, seed, self.steps[label]))


def run_name(label: str, seed: int) -> str:
    """The folder of a reported run within its comparison."""
    return f"{label}-seed{seed}"


def _run_task(task: Task, label: str, seed: int, steps: int) -> Task:
    """The task of one run: its own method, seed and number of steps, and nothing of the other methods."""
    config = task.config
    training = {key: value for key, value in config.training.items() if key != "num_train_epochs"}
    own = config.model_copy(
        update={
            "seed": seed,
            "method": label,
            "methods": {label: config.methods[label]} if label in config.methods else {},
            "training": {**_stretched(training, steps / task.steps), "max_steps": steps},
        }
    )
    return replace(task, config=own, steps=steps)


def _stretched(training: dict[str, Any], ratio: float) -> dict[str, Any]:
    """Step counts of the learning-rate schedule, for a run that is ``ratio`` times as long; shares stay."""

    def longer(count: Any) -> Any:
        return round(count * ratio) if isinstance(count, int | float) and count >= 1 else count

    result = dict(training)
    if "warmup_steps" in training:
        result["warmup_steps"] = longer(training["warmup_steps"])
    if isinstance(training.get("lr_scheduler_kwargs"), dict):
        result["lr_scheduler_kwargs"] = {
            key: longer(value) if re.fullmatch(r"num_\w+_steps", key) else value
            for key, value in training["lr_scheduler_kwargs"].items()
        }
    return result
