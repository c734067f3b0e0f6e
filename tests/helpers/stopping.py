"""Runs that are stopped on the way, and whether they end as if nothing had happened."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.runs import metrics, run, timeless
from raptr.config import RunConfig
from raptr.rundir.metrics_lines import BoundaryLine, Line
from raptr.train.callbacks.metrics import MetricsCallback


class Stopped(BaseException):
    """What a run is stopped with: nothing catches it."""


def after_each_line(monkeypatch: pytest.MonkeyPatch, then: Callable[[Line], None]) -> None:
    """Call a function with each line that a run has written to metrics.jsonl."""
    write = MetricsCallback.write

    def watched(self: MetricsCallback, line: Line) -> None:
        write(self, line)
        then(line)

    monkeypatch.setattr(MetricsCallback, "write", watched)


def stop_after(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """Stop the next run when it has written so many lines of steps and validations to metrics.jsonl."""
    written = 0

    def counted(line: Line) -> None:
        nonlocal written
        written += line.KIND != BoundaryLine.KIND
        if written == lines:
            raise Stopped

    after_each_line(monkeypatch, counted)


def interrupted(config: RunConfig, folder: Path, cache: Path, lines: int) -> None:
    """Train until so many lines are written, then stop."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, lines)
        with pytest.raises(Stopped):
            run(config, folder, cache)


def same_end(folder: Path, reference: Path) -> None:
    """Weights, result and metrics are those of the run that was not stopped."""
    model = (folder / "model" / "model.safetensors").read_bytes()
    assert model == (reference / "model" / "model.safetensors").read_bytes()
    for kind in ("train", "eval", "boundary"):
        assert timeless(metrics(folder, kind)) == timeless(metrics(reference, kind))
    ends = [json.loads((each / "result.json").read_text()) for each in (folder, reference)]
    assert timeless(ends[:1]) == timeless(ends[1:])
    assert not (folder / "checkpoints").exists()
