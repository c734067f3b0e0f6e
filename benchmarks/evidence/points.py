"""Measured gains that `raptr plan` knows: all methods of finished comparisons, for src/raptr/cli/measured.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from questions import Comparison, comparisons
from store import missing

from raptr.cli.outlook import settings_of
from raptr.config.load import load, parse
from raptr.config.yaml import read_yaml
from raptr.results import read_folder
from raptr.train.task import plan_run

FILE = Path(__file__).parents[2] / "src" / "raptr" / "cli" / "measured.json"


def points(stored: Path) -> str:
    """The file's text: each finished comparison's methods against its baseline, in the order of the questions."""
    found = [point for one in comparisons([]) if is_finished(one, stored / one.name) for point in of(stored / one.name)]
    return json.dumps(found, indent=1) + "\n"


def is_finished(comparison: Comparison, folder: Path) -> bool:
    """Whether all its runs are kept."""
    return not missing(folder, [*comparison.trials(), *comparison.runs()])


def of(folder: Path) -> Iterator[dict[str, Any]]:
    """The points of a comparison; of one seed, or of a method that diverged, there is none."""
    found = read_folder(folder)
    file = folder / "comparison.yaml"
    asked = parse(read_yaml(file.read_text(encoding="utf-8"), str(file))["config"], str(file))
    (baseline,) = (method for method in found.methods if method.key == found.baseline)
    pre_norm = plan_run(load(baseline.runs[0].folder / "config.yaml")).pre_norm
    for method in found.methods:
        loss = method.outcome.loss
        if method is baseline or loss.difference is None or loss.difference_interval is None:
            continue
        run, settings = method.runs[0], asked.settings(method.key)
        low, high = loss.difference_interval
        yield {
            "comparison": found.name,
            "method": settings.method,
            "settings": settings_of(settings),
            "name": settings.told(),
            "objective": asked.objective.name,
            "pre_norm": pre_norm,
            "architecture": run.info.model["architecture"],
            "layers": sum(len(stack) for stack in baseline.runs[0].info.flops["layers"]),
            "parameters": baseline.runs[0].info.model["layer_parameters"],
            "tokens": baseline.outcome.costs["tokens"],
            "difference": round(loss.difference, 6),
            "low": round(low, 6),
            "high": round(high, 6),
            "seeds": method.outcome.pairs,
        }
