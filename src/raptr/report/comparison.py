"""A folder of runs as methods with their seeds, and the numbers of ``summary.json``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raptr.errors import RaptrError
from raptr.report.read import COUNTERS, Run, read_json, read_run, read_text
from raptr.report.units import usable

Bounds = tuple[float, float]

UNFINISHED = "unfinished"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One method's numbers: from ``summary.json``, or from the runs where there is no summary yet."""

    costs: Mapping[str, float | None]
    losses: tuple[float | None, ...]
    mean: float | None
    interval: Bounds | None
    difference: float | None
    difference_interval: Bounds | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method: ``name`` is shown and is unique in the report; ``runs`` are sorted by seed."""

    key: str
    name: str
    runs: tuple[Run, ...]
    outcome: Outcome

    @property
    def unfinished(self) -> int:
        """The number of runs that have not written their result."""
        return sum(not run.finished for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a report is made of. A single run is a comparison of one method with ``single`` set."""

    folder: Path
    name: str
    methods: tuple[Method, ...]
    baseline: str | None
    budget: str
    notes: tuple[str, ...]
    config: str
    single: bool

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, by method and seed."""
        return tuple(run for method in self.methods for run in method.runs)


def read_folder(folder: Path) -> Comparison:
    """Returns what is in a comparison folder or in the folder of a single run.

    Raises:
        RaptrError: There is no such folder, it holds no run, or one of its files is broken.
    """
    if not folder.is_dir():
        raise RaptrError(
            f"{folder} is not a folder. Give the folder of a run or of a comparison, such as runs/demo, "
            "as `raptr train` and `raptr compare` make them."
        )
    if (folder / "run.json").is_file():
        return _single(read_run(folder))
    runs = [read_run(path.parent) for path in sorted(folder.glob("*/run.json"))]
    if not runs:
        raise RaptrError(
            f"{folder} holds no runs: neither {folder.name}/run.json nor {folder.name}/<method>-seed<k>/run.json. "
            "Give a folder that `raptr train` or `raptr compare` has made."
        )
    path = folder / "summary.json"
    return _several(folder, runs, read_json(path) if path.is_file() else {})


def _single(run: Run) -> Comparison:
    method = Method(key=run.method, name=run.label, runs=(run,), outcome=_from_runs((run,)))
    return Comparison(
        folder=run.folder,
        name=str(run.info.get("name") or run.folder.name),
        methods=(method,),
        baseline=None,
        budget="",
        notes=(),
        config=run.config,
        single=True,
    )


def _several(folder: Path, runs: list[Run], summary: dict[str, Any]) -> Comparison:
    found: dict[str, list[Run]] = {}
    for run in runs:
        key = re.sub(r"-seed\d+$", "", run.folder.name)
        found.setdefault(key, []).append(run)
    told = summary.get("methods", {})
    if not isinstance(told, dict) or not all(isinstance(value, dict) for value in told.values()):
        raise RaptrError(f"{folder / 'summary.json'}: 'methods' must map each method's name to its numbers.")
    baseline = str(summary["baseline"]) if summary.get("baseline") is not None else _guess(list(found))
    keys = sorted([*told, *(key for key in found if key not in told)], key=lambda key: key != baseline)
    labels = {key: _label(key, told, found) for key in keys}
    methods = []
    for key in keys:
        of_key = tuple(sorted(found.get(key, []), key=lambda run: run.seed))
        label = labels[key]
        twice = sum(other == label for other in labels.values()) > 1
        methods.append(
            Method(
                key=key,
                name=f"{label} ({key})" if twice else label,
                runs=of_key,
                outcome=_from_summary(told[key]) if key in told else _from_runs(of_key),
            )
        )
    notes = summary.get("notes", [])
    return Comparison(
        folder=folder,
        name=str(summary.get("name") or folder.name),
        methods=tuple(methods),
        baseline=baseline,
        budget=str(summary.get("budget") or ""),
        notes=tuple(str(note) for note in notes) if isinstance(notes, list) else (str(notes),),
        config=read_text(folder / "comparison.yaml"),
        single=False,
    )


def _guess(keys: list[str]) -> str:
    return "full" if "full" in keys else keys[0]


def _label(key: str, told: Mapping[str, Any], found: Mapping[str, list[Run]]) -> str:
    label = told.get(key, {}).get("label")
    return str(label) if label else found[key][0].label if found.get(key) else key


def _from_summary(told: Mapping[str, Any]) -> Outcome:
    losses = told.get("eval_loss") or []
    return Outcome(
        costs={name: usable(told.get(name)) for name in ("steps", "epochs", *COUNTERS)},
        losses=tuple(usable(loss) for loss in (losses if isinstance(losses, list) else [losses])),
        mean=usable(told.get("mean")),
        interval=_bounds(told.get("interval")),
        difference=usable(told.get("difference")),
        difference_interval=_bounds(told.get("difference_interval")),
        verdict=str(told.get("verdict") or ""),
    )


def _from_runs(runs: tuple[Run, ...]) -> Outcome:
    """The numbers of finished runs without a summary; of the first run so far, if none has finished."""
    results = [run.result for run in runs if run.result is not None]
    costs: dict[str, float | None] = {}
    for name in ("steps", "epochs", *COUNTERS):
        values = [value for result in results if (value := usable(result.get(name))) is not None]
        costs[name] = float(np.mean(values)) if values else _so_far(runs[0], name)
    losses = tuple(usable(result.get("eval_loss")) for result in results)
    known = [loss for loss in losses if loss is not None]
    return Outcome(
        costs=costs,
        losses=losses,
        mean=float(np.mean(known)) if known and len(known) == len(losses) else None,
        interval=None,
        difference=None,
        difference_interval=None,
        verdict="" if len(results) == len(runs) else UNFINISHED,
    )


def _so_far(run: Run, name: str) -> float | None:
    if not len(run.train.step) or name == "epochs":
        return None
    return usable(float(run.train.step[-1] if name == "steps" else run.train.columns[name][-1]))


def _bounds(value: object) -> Bounds | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = usable(value[0]), usable(value[1])
    return None if low is None or high is None else (low, high)
