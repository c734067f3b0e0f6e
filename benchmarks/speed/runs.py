"""Whole runs, data loading included: a plain PyTorch loop, raptr's engine, and RaPTr in that engine.

All on the same model, text and seed, for the same number of steps, by the wall clock whatever other questions use: on a
machine that others use too, these ratios say little. The engine's seconds are those that it writes into a run's files:
training with everything around it, without validation and saving.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.data import DataLoader, SequentialSampler
from transformers import get_linear_schedule_with_warmup

from raptr.config import RunConfig, parse
from raptr.model import attach_head
from raptr.train.engine import train
from raptr.train.setup.model import build_model
from raptr.train.task import Task, prepare_task, with_config
from speed.cases import RATE, Case
from speed.clock import ratios, spread
from speed.step import mixed

PLAIN, ENGINE, RAPTR = "plain loop, full", "raptr, full", "raptr, RaPTr"


def runs(case: Case, device: str, rounds: int, steps: int, *, bf16: bool) -> dict[str, Any]:
    """Seconds, tokens a second and ratios of the three, which take turns; a first round warms up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = tasks_of(case, folder / "cache", steps, bf16=bf16)
        variants: dict[str, Callable[[Path], dict[str, float]]] = {
            PLAIN: lambda at: plain(tasks["full"], device, bf16=bf16),
            ENGINE: lambda at: engine(tasks["full"], at),
            RAPTR: lambda at: engine(tasks["raptr"], at),
        }
        found: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
        for turn in range(rounds + 1):
            for variant, run in variants.items():
                with tempfile.TemporaryDirectory(dir=folder) as at:
                    result = run(Path(at) / "run")
                if turn:
                    found[variant].append(result)
    seconds = {variant: [result["seconds"] for result in results] for variant, results in found.items()}
    flops = {variant: found[variant][0]["total_flops"] for variant in (ENGINE, RAPTR)}
    return {
        **case.facts(),
        "steps": steps,
        "text_bytes": text_bytes(case, steps),
        "seconds": {variant: spread(values) for variant, values in seconds.items()},
        "tokens_per_second": {
            variant: spread([steps * case.tokens / value for value in values]) for variant, values in seconds.items()
        },
        "engine_over_plain": ratios(seconds[ENGINE], seconds[PLAIN]),
        "saving_on_the_clock": ratios(seconds[ENGINE], seconds[RAPTR]),
        "saving_in_flops": flops[ENGINE] / flops[RAPTR],
        "full_teraflops": flops[ENGINE] / 1e12,
    }


def tasks_of(case: Case, cache: Path, steps: int, *, bf16: bool) -> dict[str, Task]:
    """What `raptr train` makes of a config with this model, by method."""
    task = prepare_task(config_of(case, "full", steps, bf16=bf16), cache)
    return {"full": task, "raptr": with_config(task, config_of(case, "raptr", steps, bf16=bf16))}


def config_of(case: Case, method: str, steps: int, *, bf16: bool) -> RunConfig:
    """A run that is validated at its begin and end only, and keeps no checkpoint."""
    return parse(
        {
            "name": "speed",
            "method": method,
            "methods": {"raptr": {"schedule": case.schedule}},
            "model": {"architecture": case.config.model_type, "config": case.settings},
            "data": {
                "source": "builtin:python",
                "max_bytes": text_bytes(case, steps),
                "tokenizer": min(4096, case.config.vocab_size),
                "sequence_length": case.length,
            },
            "objective": {"name": "masked", "rate": RATE} if case.masked else {"name": "causal"},
            "training": {
                "max_steps": steps,
                "per_device_train_batch_size": case.batch,
                "learning_rate": 1e-4,
                "warmup_steps": 1,
                "bf16": bf16,
            },
            "evaluation": {"every": steps, "sequences": case.batch},
            "checkpoints": {"every": steps + 1},
        },
        "speed",
    )


def text_bytes(case: Case, steps: int) -> int:
    """Of Python's sources, about as much as a run reads; tokenized before anything is timed."""
    return max(500_000, 4 * steps * case.tokens)


def engine(task: Task, folder: Path) -> dict[str, float]:
    """`raptr train`: its own totals."""
    train(task, folder, console=Console(quiet=True))
    result: dict[str, float] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def plain(task: Task, device: str, *, bf16: bool) -> dict[str, float]:
    """The same as an ordinary loop: the same weights and batches, AdamW fused, clipping, linear schedule."""
    model = build_model(task.config, task.model_config).to(device).train()
    if task.predictions is not None:
        attach_head(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 1, task.steps)
    data: Any = task.training_data(task.steps)
    batches = DataLoader(
        data,
        batch_size=task.batch,
        sampler=SequentialSampler(data),
        collate_fn=task.collator(),
        pin_memory=device == "cuda",
    )
    start, total = time.perf_counter(), 0.0
    for _, batch in zip(range(task.steps), batches, strict=False):
        inputs = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with mixed(device, bf16=bf16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.detach()
    if not torch.isfinite(torch.as_tensor(total)):  # waits for a GPU, too
        raise RuntimeError("the plain loop's loss is not finite")
    return {"seconds": time.perf_counter() - start, "loss": float(total) / task.steps}
