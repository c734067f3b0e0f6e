"""summary.json: what a comparison found, from the results of its finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raptr.compare.statistics import mean, t_interval, verdict
from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.train.folder import Result, read_result

_MEASURES = ("steps", "tokens", "epochs", "layer_flops", "total_flops", "seconds")

_NOTES = {
    "flops": "Budget: every method spends the total training FLOPs of full training, to within one step; "
    "the FLOPs of validation are not counted.",
    "steps": "Budget: every method takes the same number of steps, so methods that skip layers spend fewer FLOPs.",
    "tokens": "Budget: every method sees the same number of tokens, so methods that skip layers spend fewer FLOPs.",
}

_ALWAYS = (
    "The learning-rate schedule of each method is stretched to its own number of steps.",
    "The same seed gives every method the same initial weights and the same data in the same order; "
    "differences are paired by seed.",
    "Nothing was tuned: every method uses the same learning rate and batch size.",
)


def run_folder(folder: Path, label: str, seed: int) -> Path:
    """Where a run of a comparison is kept."""
    return folder / f"{label}-seed{seed}"


def summarise(folder: Path, config: RunConfig, labels: Sequence[str], seeds: Sequence[int], budget: str) -> Any:
    """The content of summary.json.

    Args:
        folder: the comparison's folder.
        config: the comparison's config.
        labels: the methods; differences are from "full" if it is among them, else from the first.
        seeds: the seeds; every run must be finished.
        budget: how steps were chosen.

    Raises:
        RaptrError: a run is not finished.
    """
    results = {label: [_result(run_folder(folder, label, seed)) for seed in seeds] for label in labels}
    baseline = "full" if "full" in labels else labels[0]
    losses = {label: [result["eval_loss"] for result in runs] for label, runs in results.items()}
    methods = {}
    for label, runs in results.items():
        entry: dict[str, Any] = {"label": str(config.build_method(label))}
        entry |= {measure: mean([run[measure] for run in runs]) for measure in _MEASURES}
        entry |= {measure: int(entry[measure]) for measure in ("steps", "tokens")}
        entry |= {
            "eval_loss": losses[label],
            "mean": mean(losses[label]),
            "interval": t_interval(losses[label]),
            "difference": None,
            "difference_interval": None,
            "verdict": "baseline",
        }
        if label != baseline:
            paired = [a - b for a, b in zip(losses[label], losses[baseline], strict=True)]
            entry["difference"] = mean(paired)
            entry["difference_interval"] = t_interval(paired)
            entry["verdict"] = verdict(entry["difference"], entry["difference_interval"])
        methods[label] = entry
    return {
        "format": 1,
        "name": config.name,
        "baseline": baseline,
        "budget": budget,
        "seeds": list(seeds),
        "methods": methods,
        "notes": [_NOTES[budget], *_ALWAYS],
    }


def _result(folder: Path) -> Result:
    result = read_result(folder)
    if result is None:
        raise RaptrError(f"run {folder.name} is not finished; give the same `raptr compare` command again.")
    return result
