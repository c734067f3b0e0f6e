"""Train several methods with several seeds under one budget."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raptr.compare.budget import Budget, steps_of
from raptr.compare.summary import run_folder, summarise
from raptr.config import RunConfig
from raptr.config.yaml import write_yaml
from raptr.errors import RaptrError
from raptr.train.engine import train
from raptr.train.folder import claim_folder, write_json
from raptr.train.task import Task, prepare_task


def compare(
    config: RunConfig,
    *,
    methods: Sequence[str],
    seeds: int,
    budget: Budget,
    folder: Path,
    cache: Path,
    console: Console,
    command: str = "",
) -> Any:
    """Train every method with every seed, on the same data in the same order, and summarise.

    Runs are kept in ``folder/<method>-seed<k>``; finished ones are not trained again, so the same
    command goes on where it was, and more seeds, or methods that the config names, can be added.

    Args:
        config: the comparison's config; its number of steps is that of full training.
        methods: names of methods, or of entries in the config's ``methods``.
        seeds: how many; they count up from the config's own.
        budget: what is held equal, see `steps_of`.
        folder: where the comparison is kept.
        cache: where tokenized data is kept.
        console: where progress is shown.
        command: the command that was given, for the record.

    Returns:
        The content of summary.json, which is written too.

    Raises:
        RaptrError: before anything is trained, if any of the runs could not be.
    """
    _check(config, methods, seeds)
    labels = list(methods)
    numbers = [config.seed + k for k in range(seeds)]
    task = prepare_task(config, cache)
    steps = {label: steps_of(config.build_method(label), task, budget) for label in labels}
    record = {"budget": budget, "config": config.model_dump(mode="json")}
    claim_folder(folder, write_yaml(record), "comparison.yaml")

    runs = [(label, seed) for seed in numbers for label in labels]
    for number, (label, seed) in enumerate(runs, start=1):
        title = f"run {number}/{len(runs)} {label}-seed{seed}"
        run = _run_task(task, label, seed, steps[label])
        train(run, run_folder(folder, label, seed), console=console, command=command, title=title)
    summary = summarise(folder, config, labels, numbers, budget)
    write_json(folder / "summary.json", summary)
    return summary


def _check(config: RunConfig, methods: Sequence[str], seeds: int) -> None:
    if not methods or len(set(methods)) != len(methods):
        raise RaptrError(f"methods {', '.join(methods) or '(none)'}: give each method once, e.g. full,raptr.")
    if seeds < 1:
        raise RaptrError(f"seeds is {seeds}; give at least 1, and 3 or more for an interval that says something.")
    if config.seed + seeds > 2**32:
        raise RaptrError(f"{seeds} seeds from {config.seed} on pass 2**32 - 1; begin with a smaller seed.")


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
