"""Synthetic run folders that look like real ones, for the tests of the report."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = 12
LAYER_FLOPS = 3.1e9
OTHER_FLOPS = 9.0e9


def stages_of(sizes: list[float], steps: int) -> list[dict[str, Any]]:
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
    sizes: tuple[float, ...] = (6, 8, 10, 12),
    steps: int = 450,
    seed: int = 0,
    offset: float = 0.0,
    layers: int = LAYERS,
    done: int | None = None,
    eval_every: int = 15,
    nan_from: int | None = None,
    sources: tuple[str, ...] = (),
    jump: float = 0.0,
    grows: bool = False,
    **info: Any,
) -> Path:
    """Writes one run folder; with ``done`` it was killed after that many steps, so it has no result.

    ``offset`` is added to the loss by the end of the run, ``jump`` to the training loss just after each boundary.
    With ``grows`` the loss by ``offset`` is that of the part trained so far until the last stage begins, and the full
    model's is 70 higher.
    """
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
        untrained = 70.0 if grows and step <= stages[-1]["start"] else 0.0
        line = {"kind": "eval", "step": step, "stage": stage, **counters}
        for kind, more in (("", untrained), *((("_active", 0.0),) if untrained else ())):
            line[f"eval_loss{kind}"] = None if value is None else value + more
            if sources:  # around the mean, evenly
                spread = {name: 0.4 * (k - (len(sources) - 1) / 2) + more for k, name in enumerate(sources)}
                line[f"eval_losses{kind}"] = {
                    name: None if value is None else value + one for name, one in spread.items()
                }
        lines.append(line)

    evaluate(0, 0)
    for step in range(1, (steps if done is None else done) + 1):
        stage = next(index for index, one in enumerate(stages) if step - 1 < one["stop"])
        size = stages[stage]["sizes"][0]
        inner = rng.choice(np.arange(1, layers - 1), round(size) - 2, replace=False) if size > 1 else []
        kept = sorted({0, layers - 1, *(int(layer) for layer in inner)})
        counters["tokens"] += 16 * 256
        counters["layer_flops"] += LAYER_FLOPS * size
        counters["total_flops"] += LAYER_FLOPS * size + OTHER_FLOPS
        counters["seconds"] += (0.014 * size + 0.05) * speed * rng.uniform(0.95, 1.1)
        loss = 2.9 + 5.4 * math.exp(-step / 25) + 1.5 / (1 + step / 90)
        since = step - 1 - stages[stage]["start"]
        shown = loss + 0.25 * (1 - size / layers) + rng.normal(0, 0.07)
        shown += jump * math.exp(-since / 5) if stage else 0.0
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
        names = ("tokens", "layer_flops", "total_flops", "seconds", "eval_loss", "eval_losses")
        result = {key: last[key] for key in names if key in last}
        (folder / "result.json").write_text(json.dumps({"steps": steps, "epochs": 0.19, **result}))
    return folder


METHODS: dict[str, dict[str, Any]] = {
    "full": {"label": "Full", "sizes": (12,), "steps": 360, "offset": 0.0},
    "raptr": {"label": "RaPTr 6-8-10-12", "sizes": (6, 8, 10, 12), "steps": 447, "offset": -0.03},
}


def write_comparison(
    folder: Path,
    *,
    methods: dict[str, dict[str, Any]] | None = None,
    seeds: int = 3,
    missing: tuple[str, ...] = (),
    described: bool = True,
    sweep: dict[str, Any] | None = None,
    **info: Any,
) -> Path:
    """Writes a comparison folder with ``seeds`` runs for each method but the ``missing`` ones.

    Args:
        folder: it is made.
        methods: options of `write_run` by method.
        seeds: of each method.
        missing: names of runs that are not there.
        described: whether there is a comparison.json.
        sweep: the content of sweep.json.
        info: more options of `write_run`, for all methods.
    """
    methods = METHODS if methods is None else methods
    folder.mkdir(parents=True)
    for key, options in methods.items():
        for seed in range(seeds):
            name = f"{key}-seed{seed}"
            if name not in missing:
                write_run(folder / name, method=key, seed=seed, name=folder.name, **{**info, **options})
    (folder / "comparison.yaml").write_text("methods: [full, raptr]\nseeds: 3\nbudget: flops\n")
    if described:
        content = {
            "format": 1,
            "name": folder.name,
            "budget": "flops",
            "baseline": "full",
            "methods": list(methods),
            "seeds": list(range(seeds)),
            "tuned": list(sweep["grid"]) if sweep else [],
            "notes": ["The learning-rate schedule of each method is stretched to its own number of steps."],
        }
        (folder / "comparison.json").write_text(json.dumps(content))
    if sweep:
        (folder / "sweep.json").write_text(json.dumps(sweep))
    return folder


def sweep_of(losses: dict[str, dict[float, float | None]]) -> dict[str, Any]:
    """Returns a sweep.json of learning rates: method -> value -> loss."""
    key = "training.learning_rate"
    trials = [
        {
            "method": method,
            "values": {key: value},
            "runs": [f"sweep/{method}-learning_rate-{value}-seed1000"],
            "eval_loss": [loss],
            "mean": loss,
        }
        for method, found in losses.items()
        for value, loss in found.items()
    ]
    chosen = {
        method: {key: min((loss, value) for value, loss in found.items() if loss is not None)[1]}
        for method, found in losses.items()
    }
    grid = {key: list(next(iter(losses.values())))}
    return {"format": 1, "grid": grid, "seeds": [1000], "split": "tuning", "trials": trials, "chosen": chosen}
