"""Checkpoints of a run: when one is whole, and where a run that was stopped goes on.

The Trainer writes a checkpoint file by file. Ours is the last one, ``raptr.json``: it names the size of
every other file, and what the run had done and recorded. A checkpoint without it, or whose files are
not as it says, was not finished, and the one before it is used.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.train.folder import write_json
from raptr.train.metrics import MetricsCallback
from raptr.train.ranks import is_main, wait_for_all

KEPT = 2
"""How many checkpoints are kept: while the newest is written, the one before it must be there."""

_MARK = "raptr.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        path: its folder.
        step: how many steps were completed.
        metrics: what `MetricsCallback.restore` takes.
    """

    path: Path
    step: int
    metrics: dict[str, Any]


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Says of every checkpoint that the Trainer has written that it is whole."""

    def __init__(self, metrics: MetricsCallback) -> None:
        self._metrics = metrics

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the last file of a checkpoint, when every rank has written its own."""
        wait_for_all()
        if not is_main():
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        files.pop(_MARK, None)  # of an earlier one at the same step
        for path in files.values():
            _flush(path)
        record = {"format": 1, "step": state.global_step, "metrics": self._metrics.snapshot()}
        write_json(folder / _MARK, {**record, "files": {name: path.stat().st_size for name, path in files.items()}})


def newest_checkpoint(folder: Path, metrics: Path) -> Checkpoint | None:
    """The newest whole checkpoint in a folder of checkpoints; None if there is none.

    Args:
        folder: where the Trainer writes its checkpoints.
        metrics: the run's metrics.jsonl, which must hold what the checkpoint says was recorded.
    """
    found = [checkpoint for path in folder.glob("checkpoint-*") if (checkpoint := _read(path, metrics)) is not None]
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def remove_checkpoints(folder: Path, but: Path | None = None) -> None:
    """Remove a folder of checkpoints, or all that is in it but one.

    What a stopped run left beside the checkpoint that it goes on from must not stay: the Trainer keeps the
    newest by their number, so an older attempt's last ones would push out those that are to be written.
    """
    if but is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path != but:
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path, metrics: Path) -> Checkpoint | None:
    try:
        record = json.loads((path / _MARK).read_text(encoding="utf-8"))
        whole = all((path / name).stat().st_size == size for name, size in record["files"].items())
        recorded = metrics.stat().st_size >= record["metrics"]["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Checkpoint(path=path, step=record["step"], metrics=record["metrics"]) if whole and recorded else None


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
