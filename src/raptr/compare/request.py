"""What is asked of a comparison, checked, and what it then trains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raptr.compare import sweep
from raptr.compare.budget import Budget, spent_by_full, steps_of
from raptr.compare.jobs import Comparison
from raptr.compare.step_timing import read_clock
from raptr.config import SETTINGS, RunConfig, parse
from raptr.errors import RaptrError
from raptr.plan import LayerCosts
from raptr.train.task import Task, prepare_task, task_of

ALL = "all"
"""Stands for every method of raptr and every entry of a config."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of `compare`: all that decides its runs, so that another process can plan the same.

    Attributes:
        config: the comparison's config; its number of steps is that of full training.
        methods: names of methods, or of entries in the config's ``methods``; or `ALL` alone.
        seeds: how many; they count up from the config's own.
        budget: what is held equal.
        folder: where the comparison is kept.
        cache: where tokenized data is kept.
        grid: hyper-parameters to choose for every method.
        tuning_seeds: runs of each trial.
    """

    config: RunConfig
    methods: tuple[str, ...]
    seeds: int
    budget: Budget
    folder: Path
    cache: Path
    grid: dict[str, list[Any]] = field(default_factory=dict)
    tuning_seeds: int = 1

    def __getstate__(self) -> dict[str, Any]:
        """For another process: pickle cannot find the classes of a config's methods, which are made at run time."""
        return {**vars(self), "config": self.config.model_dump(mode="json")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, config=parse(state["config"], "the config"))


def planned(asked: Asked, console: Console) -> Comparison:
    """The comparison: data, model, and the steps of each method, but for a budget in seconds, see `on_the_clock`.

    Raises:
        RaptrError: if any of the runs could not be trained.
    """
    config, methods = asked.config, asked.methods
    every = methods == (ALL,)
    if every:
        methods = tuple(dict.fromkeys([*SETTINGS, *config.methods]))
    _check(config, methods, asked.seeds, asked.tuning_seeds)
    task = prepare_task(config, asked.cache)
    tasks = _fitting(methods, task, console) if every else {label: task_of(task, label) for label in methods}
    return Comparison(
        folder=asked.folder,
        task=task,
        tasks=tasks,
        seeds=tuple(config.seed + k for k in range(asked.seeds)),
        budget=asked.budget,
        steps=_steps(task, tasks, asked.budget),
        grid=asked.grid,
        tuning_seeds=tuple(sweep.tuning_seeds(config, asked.tuning_seeds)) if asked.grid else (),
    )


def on_the_clock(comparison: Comparison, console: Console) -> Comparison:
    """The same, with the steps that a budget in seconds gives; its folder keeps the measured clock."""
    if comparison.budget != "seconds":
        return comparison
    clock = read_clock(comparison.task, comparison.folder, console)
    return replace(comparison, steps=_steps(comparison.task, comparison.tasks, "seconds", clock.costs))


def _steps(
    task: Task, tasks: Mapping[str, Task], budget: Budget, seconds: Callable[[LayerCosts], LayerCosts] | None = None
) -> dict[str, int]:
    """The steps of each method, which all spend what full training of the comparison's model does.

    Args:
        task: the comparison's.
        tasks: of each method.
        budget: what is held equal.
        seconds: turns the FLOPs of a step into its seconds, for a budget in these.
    """
    costs = {label: seconds(own.costs) if seconds else own.costs for label, own in tasks.items()}
    spent = spent_by_full(task, seconds(task.costs) if seconds else task.costs)
    return {
        label: steps_of(task.config.build_method(label), own, budget, costs[label], spent)
        for label, own in tasks.items()
    }


def _fitting(methods: Sequence[str], task: Task, console: Console) -> dict[str, Task]:
    """The tasks of those of all methods that fit the model; the others are named with the reason."""
    found = {}
    for label in methods:
        try:
            own = task_of(task, label)
            own.plan(task.config.build_method(label))
        except RaptrError as error:
            console.print(f"left out: {label}: {error}", highlight=False, soft_wrap=True)
        else:
            found[label] = own
    return found


def _check(config: RunConfig, methods: Sequence[str], seeds: int, tuning_seeds: int) -> None:
    if not methods or len(set(methods)) != len(methods):
        raise RaptrError(f"methods {', '.join(methods) or '(none)'}: give each method once, e.g. full,raptr.")
    if seeds < 1:
        raise RaptrError(f"seeds is {seeds}; give at least 1, and 3 or more for an interval that says something.")
    if tuning_seeds < 1 or seeds > sweep.SEEDS_FROM:
        raise RaptrError(f"{seeds} seeds and {tuning_seeds} for tuning: give 1 to {sweep.SEEDS_FROM} and at least 1.")
    if config.seed + sweep.SEEDS_FROM + tuning_seeds > 2**32:
        raise RaptrError(f"seeds from {config.seed} on pass 2**32 - 1; begin with a smaller seed.")
    if config.evaluation.part != "all":
        raise RaptrError(
            f"evaluation.part is {config.evaluation.part!r}; leave it out of a comparison: --sweep tunes on one part "
            "of the validation text and reports the other by itself."
        )
