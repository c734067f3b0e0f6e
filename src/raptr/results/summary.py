"""The content of ``summary.json``: what a comparison found, from its runs' own files only."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError
from raptr.results.equal_loss import Saving
from raptr.results.folder import Comparison, Method, read_folder
from raptr.results.outcome import COSTS, Losses, verdict_text

_WHOLE = ("steps", "tokens")


def summarise(folder: Path) -> dict[str, Any]:
    """Returns the content of summary.json; it holds no NaN.

    Nothing of an older summary is used.

    Args:
        folder: the comparison's.

    Raises:
        RaptrError: A run of the comparison is missing or not finished, or a file is broken.
    """
    comparison = read_folder(folder)
    if comparison.single:
        raise RaptrError(f"{folder} holds a single run; a summary is made of a comparison.")
    missing = [f"{method.key}-seed{seed}" for method in comparison.methods for seed in method.missing]
    missing += [run.folder.name for run in comparison.runs if not run.finished]
    if missing:
        raise RaptrError(
            f"{', '.join(missing)} of {folder} {'is' if len(missing) == 1 else 'are'} not finished; "
            "give the same `raptr compare` command again."
        )
    return summary_of(comparison)


def summary_of(comparison: Comparison) -> dict[str, Any]:
    """Returns the summary of a finished comparison."""
    return {
        "format": 1,
        "name": comparison.name,
        "baseline": comparison.baseline,
        "budget": comparison.budget,
        "seeds": list(comparison.seeds),
        "methods": {method.key: _method(method) for method in comparison.methods},
        "tuned": None if comparison.sweep is None else {m: dict(v) for m, v in comparison.sweep.chosen.items()},
        "warnings": list(comparison.warnings),
        "notes": list(comparison.notes),
    }


def _method(method: Method) -> dict[str, Any]:
    outcome = method.outcome
    costs: dict[str, Any] = {name: outcome.costs[name] for name in COSTS}
    costs |= {name: None if costs[name] is None else math.floor(costs[name]) for name in _WHOLE}
    return {
        "label": method.name,
        "control": method.control or None,
        **costs,
        **_losses(outcome.loss),
        "verdict": verdict_text(outcome),
        "decision": outcome.decision.value,
        "savings": {measure: _saving(saving) for measure, saving in outcome.savings.items()},
        "sources": {name: _losses(losses) for name, losses in outcome.sources.items()},
    }


def _losses(losses: Losses) -> dict[str, Any]:
    return {
        "eval_loss": list(losses.values),
        "mean": losses.mean,
        "interval": _list(losses.interval),
        "difference": losses.difference,
        "difference_interval": _list(losses.difference_interval),
    }


def _saving(saving: Saving) -> dict[str, Any]:
    return {
        "loss": saving.loss,
        "reached": saving.reached,
        "method": saving.method,
        "baseline": saving.baseline,
        "saving": saving.saving,
        "at_least": saving.at_least,
        "interval": _list(saving.interval),
        "seeds": list(saving.seeds),
    }


def _list(interval: Sequence[float | None] | None) -> list[float | None] | None:
    return None if interval is None else list(interval)
