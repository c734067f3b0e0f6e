"""A comparison's folder, or that of a single run, as methods with their seeds and numbers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError
from raptr.results.comparability import disagreements, trouble
from raptr.results.outcome import Outcome, outcome_of
from raptr.results.run_files import Run, read_run
from raptr.results.sweep_record import Sweep, read_sweep
from raptr.rundir.paths import COMPARISON, COMPARISON_INFO, RUN_INFO, read_json, read_text
from raptr.rundir.run_record import BROKEN, ComparisonInfo

_RUN = re.compile(r"(?P<method>.+)-seed(?P<seed>\d+)")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of a comparison.

    Attributes:
        key: its name in the config, and in the names of its runs' folders.
        name: what is shown; no other method of the comparison has it.
        runs: sorted by seed.
        missing: the seeds of which there is no run yet.
        outcome: its numbers.
    """

    key: str
    name: str
    runs: tuple[Run, ...]
    missing: tuple[int, ...]
    outcome: Outcome

    @property
    def control(self) -> str:
        """What it is a control for; empty for a method."""
        return self.runs[0].control if self.runs else ""

    @property
    def unfinished(self) -> int:
        """The number of runs that have not written their result, or are not there."""
        return len(self.missing) + sum(not run.finished for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is in a folder. A single run is a comparison of one method with ``single`` set.

    Attributes:
        methods: the baseline comes first.
        baseline: the key of the method that the others are compared with; None for a single run.
        budget: what is held equal; empty if nothing says.
        seeds: of the reported runs.
        notes: how it was made.
        config: the text of ``comparison.yaml``.
        tuned: the config keys that are tuned, also while the sweep is not finished.
        sweep: what was tried and chosen; None where nothing is tuned, and while it is not finished.
        others: names of runs in the folder that do not belong to the comparison.
        warnings: what makes its runs not comparable, and what went wrong in them.
    """

    folder: Path
    name: str
    methods: tuple[Method, ...]
    baseline: str | None
    budget: str
    seeds: tuple[int, ...]
    notes: tuple[str, ...]
    config: str
    tuned: tuple[str, ...]
    sweep: Sweep | None
    others: tuple[str, ...]
    warnings: tuple[str, ...]
    single: bool

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs that are there, by method and seed."""
        return tuple(run for method in self.methods for run in method.runs)

    @property
    def unfinished(self) -> int:
        """The number of runs that are missing or have not written their result."""
        return sum(method.unfinished for method in self.methods)


def read_folder(folder: Path) -> Comparison:
    """Returns what is in a comparison's folder or in the folder of a single run.

    Raises:
        RaptrError: There is no such folder, it holds no run, or one of its files is broken.
    """
    if not folder.is_dir():
        raise RaptrError(
            f"{folder} is not a folder. Give the folder of a run or of a comparison, such as runs/demo, "
            "as `raptr train` and `raptr compare` make them."
        )
    if (folder / RUN_INFO).is_file():
        return _single(read_run(folder))
    runs = {path.parent.name: read_run(path.parent) for path in sorted(folder.glob(f"*/{RUN_INFO}"))}
    if not runs:
        raise RaptrError(
            f"{folder} holds no runs: neither {folder.name}/run.json nor {folder.name}/<method>-seed<k>/run.json. "
            "Give a folder that `raptr train` or `raptr compare` has made."
        )
    return _several(folder, runs, _description(folder, runs))


def _description(folder: Path, runs: Mapping[str, Run]) -> ComparisonInfo:
    """What belongs to a comparison: comparison.json, or what can be seen if there is none."""
    path = folder / COMPARISON_INFO
    content = read_json(path) if path.is_file() else _seen(runs)
    try:
        return ComparisonInfo.of(content, folder)
    except BROKEN as error:
        raise RaptrError(
            f"{path} lacks or garbles {error}. Expected are name, budget, baseline, methods and seeds; "
            "repeat `raptr compare`, which writes it."
        ) from error


def _seen(runs: Mapping[str, Run]) -> dict[str, Any]:
    """What a folder from before ``comparison.json`` holds."""
    return {
        "methods": list(dict.fromkeys(_method_of(name) for name in runs)),
        "seeds": sorted({run.seed for run in runs.values()}),
        "name": next((run.info.name for run in runs.values()), None),
    }


def _method_of(name: str) -> str:
    found = _RUN.fullmatch(name)
    return found["method"] if found else name


def _several(folder: Path, runs: Mapping[str, Run], told: ComparisonInfo) -> Comparison:
    keys = sorted(told.methods, key=lambda key: key != told.baseline)
    own = {key: _runs_of(key, told.seeds, runs) for key in keys}
    belonging = {run.folder.name for found in own.values() for run in found}
    labels = {key: own[key][0].label if own[key] else key for key in keys}
    whole = {key: len(own[key]) == len(told.seeds) and all(run.finished for run in own[key]) for key in keys}
    methods = tuple(
        Method(
            key=key,
            name=f"{labels[key]} ({key})" if list(labels.values()).count(labels[key]) > 1 else labels[key],
            runs=own[key],
            missing=tuple(seed for seed in told.seeds if seed not in {run.seed for run in own[key]}),
            outcome=outcome_of(
                own[key],
                None if key == told.baseline else own[told.baseline],
                complete=whole[key] and whole[told.baseline],
            ),
        )
        for key in keys
    )
    return Comparison(
        folder=folder,
        name=told.name,
        methods=methods,
        baseline=told.baseline,
        budget=told.budget,
        seeds=told.seeds,
        notes=told.notes,
        config=read_text(folder / COMPARISON),
        tuned=told.tuned,
        sweep=read_sweep(folder),
        others=tuple(name for name in runs if name not in belonging),
        warnings=(
            *disagreements([run for found in own.values() for run in found]),
            *(said for method in methods for said in trouble(method.name, method.runs)),
        ),
        single=False,
    )


def _runs_of(key: str, seeds: Sequence[int], runs: Mapping[str, Run]) -> tuple[Run, ...]:
    found = [run for name, run in runs.items() if _method_of(name) == key and run.seed in seeds]
    return tuple(sorted(found, key=lambda run: run.seed))


def _single(run: Run) -> Comparison:
    method = Method(
        key=run.method,
        name=run.label,
        runs=(run,),
        missing=(),
        outcome=outcome_of((run,), None, complete=run.finished),
    )
    return Comparison(
        folder=run.folder,
        name=run.info.name or run.folder.name,
        methods=(method,),
        baseline=None,
        budget="",
        seeds=(run.seed,),
        notes=(),
        config=run.config,
        tuned=(),
        sweep=None,
        others=(),
        warnings=trouble(run.label, (run,)),
        single=True,
    )
