"""Train several methods with several seeds under one budget."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raptr.compare import sweep
from raptr.compare.budget import NOTES, Budget, steps_of
from raptr.compare.clock import read_clock
from raptr.compare.jobs import Comparison, Job
from raptr.compare.smaller import is_smaller, smaller_task
from raptr.config import SETTINGS, RunConfig
from raptr.config.yaml import write_yaml
from raptr.errors import RaptrError
from raptr.results import summarise
from raptr.train.engine import train
from raptr.train.folder import claim_folder, read_result, write_json
from raptr.train.hint import hint
from raptr.train.ranks import world_size
from raptr.train.stop import Stop
from raptr.train.task import Task, prepare_task

ALL = "all"
"""Stands for every method of raptr and every entry of a config."""

_ALWAYS = (
    "The learning-rate schedule of each method is stretched to its own number of steps.",
    "The same seed gives every method the same initial weights and the same data in the same order; "
    "differences are paired by seed.",
)
_UNTUNED = "Nothing was tuned: every method uses the same learning rate and batch size."
_TUNED = (
    "Tuned for every method alike, with as many trials each, on the first half of the validation text and with other "
    "seeds; what is reported is measured on the second half."
)


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
    only: Sequence[str] = (),
    grid: dict[str, list[Any]] | None = None,
    tuning_seeds: int = 1,
    stop: Stop | None = None,
) -> Any:
    """Train every method with every seed, on the same data in the same order, and summarise.

    Runs are kept in ``folder/<method>-seed<k>``. Finished ones are not trained again and a stopped one
    goes on from its checkpoint, so the same command goes on where it was; more seeds, or methods that
    the config names, can be added.

    Args:
        config: the comparison's config; its number of steps is that of full training.
        methods: names of methods, or of entries in the config's ``methods``; or `ALL` alone: every one of
            these that fits the model.
        seeds: how many; they count up from the config's own.
        budget: what is held equal, see `steps_of`.
        folder: where the comparison is kept.
        cache: where tokenized data is kept.
        console: where progress is shown.
        command: the command that was given, for the record.
        only: names of runs, "raptr-seed2", or "sweep" for all trials: only these are trained, so that
            several machines can share a comparison.
        grid: hyper-parameters to choose for every method, see `raptr.compare.sweep.parse_sweep`.
        tuning_seeds: runs of each trial.
        stop: when to stop early, see `raptr.train.engine.train`.

    Returns:
        The content of summary.json, which is written too; None while runs are missing.

    Raises:
        RaptrError: before anything is trained, if any of the runs could not be.
    """
    if world_size() > 1:
        raise RaptrError(
            f"raptr compare trains its runs one after the other in one process, but {world_size()} were started; start "
            "it once on each machine (--only says which runs), or train each run with torchrun -m raptr train."
        )
    grid, stop = grid or {}, stop or Stop()
    every = list(methods) == [ALL]
    methods = list(dict.fromkeys([*SETTINGS, *config.methods])) if every else methods
    _check(config, methods, seeds, tuning_seeds)
    task = prepare_task(config, cache)
    if every:
        methods = _fitting(methods, task, console)
    specs = {label: config.build_method(label) for label in methods}
    smaller = {label: smaller_task(task, label) for label in methods if is_smaller(config, label)}
    trained = {label: (own.shape, own.costs) for label, own in smaller.items()}
    steps = {label: steps_of(spec, task, budget, task.costs, trained.get(label)) for label, spec in specs.items()}
    comparison = Comparison(
        folder=folder,
        task=task,
        smaller=smaller,
        labels=tuple(methods),
        seeds=tuple(config.seed + k for k in range(seeds)),
        budget=budget,
        steps=steps,
        grid=grid,
        tuning_seeds=tuple(sweep.tuning_seeds(config, tuning_seeds)) if grid else (),
    )
    wanted = _wanted(comparison, only)
    record = {"budget": budget, "config": config.model_dump(mode="json")}
    if grid:
        record["sweep"] = {"grid": grid, "seeds": list(comparison.tuning_seeds)}
    claim_folder(folder, write_yaml(record), "comparison.yaml")
    write_json(folder / "comparison.json", _description(comparison))
    if budget == "seconds":
        clock = read_clock(task, folder, console)
        costs = clock.costs(task.costs)
        trained = {label: (own.shape, clock.costs(own.costs)) for label, own in smaller.items()}
        timed = {label: steps_of(spec, task, budget, costs, trained.get(label)) for label, spec in specs.items()}
        comparison = replace(comparison, steps=timed)

    trials = [job for job in comparison.trials() if job.name in wanted]
    _train(trials, folder, 0, len(wanted), console, command, stop)
    chosen = _tune(comparison) if grid else {}
    if chosen is None:
        if len(wanted) > len(trials):
            raise RaptrError("the sweep is not finished, so nothing is chosen yet; train its runs first: --only sweep.")
        return None
    runs = [job for job in comparison.runs(chosen) if job.name in wanted]
    _train(runs, folder, len(trials), len(wanted), console, command, stop)
    if comparison.missing():
        return None
    summary = summarise(folder)
    write_json(folder / "summary.json", summary)
    return summary


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


def _train(
    jobs: Sequence[Job], folder: Path, before: int, total: int, console: Console, command: str, stop: Stop
) -> None:
    for number, job in enumerate(jobs, start=before + 1):
        title = f"run {number}/{total} {job.name}"
        train(
            job.task,
            folder / job.name,
            console=console,
            command=command,
            title=title,
            stop=stop,
            keep_diverged=True,
        )


def _wanted(comparison: Comparison, only: Sequence[str]) -> set[str]:
    """The names of the runs to train."""
    trials = {job.name for job in comparison.trials()}
    names = trials | {job.name for job in comparison.runs({})}
    if not only:
        return names
    wanted: set[str] = set()
    for name in only:
        if name == "sweep" and trials:
            wanted |= trials
        elif name in names:
            wanted.add(name)
        else:
            known = ", ".join([*(["sweep"] if trials else []), *sorted(names - trials)])
            raise RaptrError(
                f"--only {name!r} is not a run of this comparison; " + hint(name, names, f"there are: {known}.")
            )
    return wanted


def _tune(comparison: Comparison) -> dict[str, sweep.Values] | None:
    """Choose each method's values and record the trials; None while trials are missing."""
    trials = []
    for values in sweep.combinations(comparison.grid):
        for label in comparison.labels:
            names = [sweep.trial_name(label, values, seed) for seed in comparison.tuning_seeds]
            results = [read_result(comparison.folder / name) for name in names]
            losses = [result["eval_loss"] for result in results if result is not None]
            if len(losses) < len(names):
                return None
            mean = sum(losses) / len(losses)
            trials.append({"method": label, "values": values, "runs": names, "eval_loss": losses, "mean": mean})
    chosen = {
        label: sweep.choose([trial for trial in trials if trial["method"] == label]) for label in comparison.labels
    }
    record = {"format": 1, "grid": comparison.grid, "seeds": comparison.tuning_seeds, "split": "tuning"}
    write_json(comparison.folder / sweep.FILE, {**record, "trials": trials, "chosen": chosen})
    return chosen


def _description(comparison: Comparison) -> dict[str, Any]:
    """The content of comparison.json: what belongs to the comparison, for the report."""
    return {
        "format": 1,
        "name": comparison.task.config.name,
        "budget": comparison.budget,
        "baseline": "full" if "full" in comparison.labels else comparison.labels[0],
        "methods": comparison.labels,
        "seeds": comparison.seeds,
        "tuned": list(comparison.grid),
        "notes": [NOTES[comparison.budget], *_ALWAYS, _TUNED if comparison.grid else _UNTUNED],
    }


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
