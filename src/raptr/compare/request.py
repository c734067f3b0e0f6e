"""What is asked of a comparison, checked, and what it then trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raptr.compare import sweep
from raptr.compare.budget import Budget, steps_of
from raptr.compare.jobs import Comparison
from raptr.compare.step_timing import read_clock
from raptr.config import SETTINGS, RunConfig, parse
from raptr.errors import RaptrError
from raptr.train.setup.smaller_model import is_smaller
from raptr.train.task import Task, prepare_task, smaller_task

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
    if every:
        methods = tuple(_fitting(methods, task, console))
    comparison = Comparison(
        folder=asked.folder,
        task=task,
        smaller={label: smaller_task(task, label) for label in methods if is_smaller(config, label)},
        labels=methods,
        seeds=tuple(config.seed + k for k in range(asked.seeds)),
        budget=asked.budget,
        steps={},
        grid=asked.grid,
        tuning_seeds=tuple(sweep.tuning_seeds(config, asked.tuning_seeds)) if asked.grid else (),
    )
    trained = {label: (own.shape, own.costs) for label, own in comparison.smaller.items()}
    steps = {
        label: steps_of(config.build_method(label), task, asked.budget, task.costs, trained.get(label))
        for label in methods
    }
    return replace(comparison, steps=steps)


def on_the_clock(comparison: Comparison, console: Console) -> Comparison:
    """The same, with the steps that a budget in seconds gives; its folder keeps the measured clock."""
    if comparison.budget != "seconds":
        return comparison
    task = comparison.task
    clock = read_clock(task, comparison.folder, console)
    costs = clock.costs(task.costs)
    trained = {label: (own.shape, clock.costs(own.costs)) for label, own in comparison.smaller.items()}
    timed = {
        label: steps_of(task.config.build_method(label), task, "seconds", costs, trained.get(label))
        for label in comparison.labels
    }
    return replace(comparison, steps=timed)


def _fitting(methods: Sequence[str], task: Task, console: Console) -> list[str]:
    """Those of all methods that fit the model; the others are named with the reason."""
    found = []
    for label in methods:
        try:
            if is_smaller(task.config, label):
                smaller_task(task, label)
            task.plan(task.config.build_method(label))
        except RaptrError as error:
            console.print(f"left out: {label}: {error}", highlight=False, soft_wrap=True)
        else:
            found.append(label)
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
