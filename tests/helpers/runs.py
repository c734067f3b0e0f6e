"""A run that takes a second: its configuration, with changes, and how its files are read."""

import copy
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from raptr.config import RunConfig, parse
from raptr.rundir.json_record import as_record
from raptr.train.engine import train
from raptr.train.run import Run, attach_to_task, try_task
from raptr.train.setup.arguments import own_settings
from raptr.train.setup.model import build_model
from raptr.train.stop_request import Stop
from raptr.train.task import Task, prepare_task

TINY: dict[str, Any] = {
    "name": "tiny",
    "method": "raptr",
    "methods": {"raptr": {"schedule": "2-3-4"}},
    "model": {
        "architecture": "llama",
        "config": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
    },
    "data": {"source": "builtin:python", "max_bytes": 200_000, "tokenizer": 320, "sequence_length": 16},
    "training": {"max_steps": 9, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 2},
    "evaluation": {"every": 3, "sequences": 8},
    "checkpoints": {"every": 1.0},  # most of a tiny run would be checkpoints; tests of them say how many
}


def tiny(**changes: Any) -> RunConfig:
    """The tiny configuration; ``training__max_steps=4`` changes a nested value."""
    data = copy.deepcopy(TINY)
    for path, value in changes.items():
        *sections, key = path.split("__")
        section = data
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return parse(data, "tiny")


def run(config: RunConfig, folder: Path, cache: Path) -> tuple[Task, dict[str, Any]]:
    """Train a configuration, silently; what it did as its result.json names it."""
    task = prepare_task(config, cache)
    return task, as_record(train(task, folder, console=Console(quiet=True)))


def run_of(task: Task, folder: Path, title: str = "run") -> Run:
    """The context of a run, for tests of what gets one."""
    model = build_model(task.config, task.model_config)
    return Run(
        task=task,
        plan=task.plan(task.config.build_method()),
        folder=folder,
        title=title,
        console=Console(quiet=True),
        rule=try_task(model, task),
        net=attach_to_task(model, task, compile=False),
        own=own_settings(task.config),
        stop=Stop(),
    )


def metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind in a run's metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


TIMES = ("seconds", "tokens_per_second", "mfu")


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what no two runs share: the clock."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see whether anything was changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
