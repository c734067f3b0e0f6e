"""Synthetic run folders that look like real ones, for the tests of the report."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = 12
LAYER_FLOPS = 3.1e9
OTHER_FLOPS = 9.0e9


def stages_of(sizes: list[int], steps: int) -> list[dict[str, Any]]:
    """Returns ``sizes`` as equal stages of a plan."""
    ends = [round(steps * (index + 1) / len(sizes)) for index in range(len(sizes))]
    return [
        {"start": start, "stop": stop, "sizes": [size], "warmup": False}
        for size, start, stop in zip(sizes, [0, *ends], ends, strict=False)
    ]


def write_run(
    folder: Path,
    *,
    method: str = "raptr",
    label: str = "RaPTr 6-8-10-12",
    sizes: tuple[int, ...] = (6, 8, 10, 12),
    steps: int = 450,
    seed: int = 0,
    offset: float = 0.0,
    layers: int = LAYERS,
    done: int | None = None,
    eval_every: int = 15,
    nan_from: int | None = None,
    **info: Any,
) -> Path:
    """Writes one run folder; with ``done`` it was killed after that many steps, so it has no result."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, steps, len(sizes)])
    stages = stages_of(list(sizes), steps)
    luck, speed = rng.normal(0, 0.012), rng.uniform(0.97, 1.03)
    run = {
        "format": 1,
        "name": folder.name,
        "method": method,
        "label": label,
        "seed": seed,
        "steps": steps,
        "plan": {"stacks": [{"name": "model.layers", "layers": layers}], "stages": stages},
        "model": {"architecture": "llama", "parameters": 2_883_712, "layer_parameters": 2_359_296},
        "flops": {
            "convention": "2 per multiply-add, backward twice the forward",
            "layers": [[LAYER_FLOPS / 16] * layers],
            "other": OTHER_FLOPS / 16,
        },
        "data": {
            "source": "builtin:python",
            "content_hash": "9f2c51d07ab3e84c",
            "train_tokens": 9_812_334,
            "validation_tokens": 98_304,
        },
        "environment": {
            "python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "platform": "Linux-x86_64",
            "cpu": "an ordinary CPU",
            "threads": 2,
            "device": "cpu",
        },
        "command": "raptr compare demo --methods full,raptr --seeds 3",
        **info,
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.yaml").write_text(
        f"model:\n  preset: llama-tiny\n  layers: {layers}\nmethod: {method}\n"
        f"training:\n  max_steps: {steps}\n  learning_rate: 0.002\nseed: {seed}\n"
    )
    lines, counters = [], {"tokens": 0, "layer_flops": 0.0, "total_flops": 0.0, "seconds": 0.0}
    loss = 8.3

    def evaluate(step: int, stage: int) -> None:
        value = None if nan_from is not None and step >= nan_from else loss + 0.05 + luck + offset * step / steps
        lines.append({"kind": "eval", "step": step, "stage": stage, **counters, "eval_loss": value})

    evaluate(0, 0)
    for step in range(1, (steps if done is None else done) + 1):
        stage = next(index for index, one in enumerate(stages) if step - 1 < one["stop"])
        size = stages[stage]["sizes"][0]
        inner = rng.choice(np.arange(1, layers - 1), size - 2, replace=False) if size > 1 else []
        kept = sorted({0, layers - 1, *(int(layer) for layer in inner)})
        counters["tokens"] += 16 * 256
        counters["layer_flops"] += LAYER_FLOPS * size
        counters["total_flops"] += LAYER_FLOPS * size + OTHER_FLOPS
        counters["seconds"] += (0.014 * size + 0.05) * speed * rng.uniform(0.95, 1.1)
        loss = 2.9 + 5.4 * math.exp(-step / 25) + 1.5 / (1 + step / 90)
        shown = loss + 0.25 * (1 - size / layers) + rng.normal(0, 0.07)
        bad = nan_from is not None and step >= nan_from
        lines.append(
            {
                "kind": "train",
                "step": step,
                "stage": stage,
                "layers": [kept],
                "loss": float("nan") if bad else shown,
                "grad_norm": None if bad else 0.6 + 3 * math.exp(-step / 30) + abs(rng.normal(0, 0.15)),
                "learning_rate": 0.002 * min(step / 30, 1 - 0.95 * (step - 30) / (steps - 30 or 1)),
                **counters,
            }
        )
        if step % eval_every == 0 or step == steps:
            evaluate(step, stage)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if done is None:
        last = lines[-1]
        result = {key: last[key] for key in ("tokens", "layer_flops", "total_flops", "seconds", "eval_loss")}
        (folder / "result.json").write_text(json.dumps({"steps": steps, "epochs": 0.19, **result}))
    return folder


METHODS: dict[str, dict[str, Any]] = {
    "full": {"label": "Full", "sizes": (12,), "steps": 360, "offset": 0.0},
    "raptr": {"label": "RaPTr 6-8-10-12", "sizes": (6, 8, 10, 12), "steps": 447, "offset": -0.03},
}


def write_comparison(
    folder: Path, *, methods: dict[str, dict[str, Any]] | None = None, seeds: int = 3, summary: bool = True
) -> Path:
    """Writes a comparison folder with ``seeds`` runs for each method, and its summary."""
    methods = METHODS if methods is None else methods
    numbers: dict[str, Any] = {}
    for key, options in methods.items():
        results = []
        for seed in range(seeds):
            run = write_run(folder / f"{key}-seed{seed}", method=key, seed=seed, name=folder.name, **options)
            if (run / "result.json").is_file():
                results.append(json.loads((run / "result.json").read_text()))
        numbers[key] = {"label": options["label"], **_numbers(results)} if results else None
    (folder / "comparison.yaml").write_text("methods: [full, raptr]\nseeds: 3\nbudget: flops\n")
    if summary:
        baseline = numbers["full"]["eval_loss"]
        for key, one in numbers.items():
            one.update(_difference(key, one["eval_loss"], baseline))
        content = {
            "format": 1,
            "name": folder.name,
            "baseline": "full",
            "budget": "flops",
            "seeds": list(range(seeds)),
            "methods": numbers,
            "notes": ["The learning-rate schedule of each method is stretched to its own number of steps."],
        }
        (folder / "summary.json").write_text(json.dumps(content))
    return folder


def _numbers(results: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("steps", "tokens", "epochs", "layer_flops", "total_flops", "seconds")
    losses = [result["eval_loss"] for result in results]
    usable = all(loss is not None for loss in losses)
    mean = float(np.mean(losses)) if usable else None
    half = 2.0 * float(np.std(losses, ddof=1)) if usable and len(losses) > 1 else None
    return {
        **{name: float(np.mean([result[name] for result in results])) for name in names},
        "eval_loss": losses,
        "mean": mean,
        "interval": None if half is None or mean is None else [mean - half, mean + half],
    }


def _difference(key: str, losses: list[float | None], baseline: list[float | None]) -> dict[str, Any]:
    none = {"difference": None, "difference_interval": None}
    if key == "full":
        return {**none, "verdict": "baseline"}
    if None in losses or None in baseline:
        return {**none, "verdict": "diverged"}
    gaps = np.array(losses, dtype=float) - np.array(baseline, dtype=float)
    if len(gaps) == 1:
        return {"difference": float(gaps[0]), "difference_interval": None, "verdict": "one seed: no interval"}
    mean, half = float(gaps.mean()), 2.5 * float(gaps.std(ddof=1))
    verdict = f"{'better' if mean < 0 else 'worse'} by {abs(mean):.3f}"
    return {
        "difference": mean,
        "difference_interval": [mean - half, mean + half],
        "verdict": verdict if abs(mean) > half else "too short to decide",
    }
