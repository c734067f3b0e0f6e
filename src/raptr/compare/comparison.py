"""Train several methods with several seeds under one budget."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raptr.compare import sweep
from raptr.compare.budget import NOTES, Budget
from raptr.compare.gpus import gpus_of, showing
from raptr.compare.jobs import Comparison, Job
from raptr.compare.request import ALL, Asked, on_the_clock, planned
from raptr.compare.workers import side_by_side, train_all, workers_of
from raptr.config import RunConfig
from raptr.config.yaml import write_yaml
from raptr.data.progress import say_preparing
from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.results import summarise
from raptr.rundir.paths import COMPARISON, COMPARISON_INFO, FORMAT, SUMMARY, SWEEP, claim_folder, read_json, write_json
from raptr.rundir.run_record import BROKEN, ComparisonInfo, read_result
from raptr.train.ranks import world_size
from raptr.train.stop_request import Stop

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
_SIDE_BY_SIDE = "Runs were trained side by side: their seconds are those of a machine that did other work too."


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
    workers: int = 1,
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
        workers: runs at a time, 0 for one on each GPU, or else on each core; see
            `raptr.compare.workers.side_by_side`.

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
    _check_named(config, methods)
    asked = Asked(
        config=config,
        methods=tuple(methods),
        seeds=seeds,
        budget=budget,
        folder=folder,
        cache=cache,
        grid=grid or {},
        tuning_seeds=tuning_seeds,
    )
    gpus = gpus_of(config)
    workers = workers_of(workers, gpus)
    if workers < len(gpus):
        console.print(f"{len(gpus)} GPUs are there; --workers 0 trains a run on each at a time", highlight=False)
    stop = Stop() if stop is None else stop
    with showing(gpus):
        return _compare(asked, workers, gpus, console, command=command, only=only, stop=stop)


def _compare(
    asked: Asked,
    workers: int,
    gpus: Sequence[str],
    console: Console,
    *,
    command: str,
    only: Sequence[str],
    stop: Stop,
) -> Any:
    """The same, of what is asked, in a process that sees one GPU at most."""
    config, folder, grid = asked.config, asked.folder, asked.grid
    say_preparing(console, config.data)
    comparison = planned(asked, console)
    asked = replace(asked, methods=comparison.labels)
    wanted = _wanted(comparison, only)
    record = {"budget": asked.budget, "config": config.model_dump(mode="json")}
    if grid:
        record["sweep"] = {"grid": grid, "seeds": list(comparison.tuning_seeds)}
    claim_folder(folder, write_yaml(record), COMPARISON)
    write_json(folder / COMPARISON_INFO, _description(comparison, workers))
    comparison = on_the_clock(comparison, console)

    def go(jobs: list[Job], before: int, chosen: dict[str, sweep.Values]) -> None:
        numbered = list(enumerate(jobs, start=before + 1))
        left = [(number, job.name) for number, job in numbered if read_result(folder / job.name) is None]
        apart = left if workers > 1 and len(left) > 1 else []
        here = [pair for pair in numbered if (pair[0], pair[1].name) not in apart]  # finished ones are checked here
        train_all(here, folder, total=len(wanted), command=command, console=console, stop=stop)
        if apart:
            side_by_side(asked, chosen, apart, workers, gpus=gpus, total=len(wanted), command=command, stop=stop)

    trials = [job for job in comparison.trials() if job.name in wanted]
    go(trials, 0, {})
    chosen = _tune(comparison) if grid else {}
    if chosen is None:
        if len(wanted) > len(trials):
            raise RaptrError("the sweep is not finished, so nothing is chosen yet; train its runs first: --only sweep.")
        return None
    runs = [job for job in comparison.runs(chosen) if job.name in wanted]
    go(runs, len(trials), chosen)
    if comparison.missing():
        return None
    summary = summarise(folder)
    write_json(folder / SUMMARY, summary)
    return summary


def _check_named(config: RunConfig, methods: Sequence[str]) -> None:
    """Refuse names that are not known, and one method alone."""
    if list(methods) == [ALL]:
        return
    for label in methods:
        config.settings(label)
    if len(methods) == 1:
        other = "another one, as in full,raptr" if methods[0] == "full" else f"full, as in full,{methods[0]}"
        raise RaptrError(f"methods {methods[0]}: one method alone has nothing to be compared with; add {other}.")


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
                f"--only {name!r} is not a run of this comparison; "
                + (did_you_mean(name, names, quoted=False) or f"there are: {known}.")
            )
    return wanted


def _tune(comparison: Comparison) -> dict[str, sweep.Values] | None:
    """Choose each method's values and record the trials; None while trials are missing."""
    trials = []
    for values in sweep.combinations(comparison.grid):
        for label in comparison.labels:
            names = [sweep.trial_name(label, values, seed) for seed in comparison.tuning_seeds]
            results = [read_result(comparison.folder / name) for name in names]
            losses = [result.eval_loss for result in results if result is not None]
            if len(losses) < len(names):
                return None
            mean = sum(losses) / len(losses)
            trials.append({"method": label, "values": values, "runs": names, "eval_loss": losses, "mean": mean})
    chosen = {
        label: sweep.choose([trial for trial in trials if trial["method"] == label]) for label in comparison.labels
    }
    record = {"format": FORMAT, "grid": comparison.grid, "seeds": comparison.tuning_seeds, "split": "tuning"}
    write_json(comparison.folder / SWEEP, {**record, "trials": trials, "chosen": chosen})
    return chosen


def _own_weights(comparison: Comparison) -> list[str]:
    """One sentence for each kind of model that is not the comparison's."""
    config = comparison.task.config
    kinds = dict.fromkeys(config.settings(label).own_model for label in comparison.labels)
    return [
        f"{kind[0].upper()}{kind[1:]} has initial weights of its own: its differences are paired by the data only."
        for kind in kinds
        if kind
    ]


def _description(comparison: Comparison, workers: int) -> ComparisonInfo:
    """The content of comparison.json: what belongs to the comparison, for the report."""
    notes = [NOTES[comparison.budget], *_ALWAYS, *_own_weights(comparison), _TUNED if comparison.grid else _UNTUNED]
    side_by_side = workers > 1 or _was_side_by_side(comparison.folder / COMPARISON_INFO)
    if side_by_side:
        notes.append(_SIDE_BY_SIDE)
    return ComparisonInfo(
        name=comparison.task.config.name,
        budget=comparison.budget,
        baseline="full" if "full" in comparison.labels else comparison.labels[0],
        methods=comparison.labels,
        seeds=comparison.seeds,
        tuned=tuple(comparison.grid),
        side_by_side=side_by_side,
        notes=tuple(notes),
    )


def _was_side_by_side(path: Path) -> bool:
    """Return whether runs of a comparison that is continued were trained side by side.

    Files of earlier versions have no field for that, only the note.
    """
    if not path.exists():
        return False
    try:
        before = ComparisonInfo.of(read_json(path), path.parent)
    except (RaptrError, *BROKEN):  # it is written again
        return False
    return before.side_by_side or _SIDE_BY_SIDE in before.notes
