"""A comparison that is killed again and again ends as one that was not. Real processes, real SIGKILL."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import started
from helpers.runs import metrics, timeless, tiny
from raptr.config import dump

pytestmark = pytest.mark.slow

# Dropout, so that the state of the generators matters; a checkpoint every second step.
CONFIG = tiny(
    model={
        "architecture": "gpt2",
        "config": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 16, "resid_pdrop": 0.2, "attn_pdrop": 0.2},
    },
    training__max_steps=24,
    evaluation__every=5,
    checkpoints__every=2,
)
KILLS = 2
RUNS = ("full-seed0", "raptr-seed0")


def command(config: Path, folder: Path, cache: Path) -> list[str]:
    options = ["--methods", "full,raptr", "--seeds", "1", "--output", str(folder), "--cache", str(cache)]
    return ["compare", str(config), *options]


def ended(arguments: list[str]) -> None:
    """Run a command to its end."""
    process = started.raptr(arguments)
    _, said = process.communicate()
    assert process.returncode == 0, said


def written(folder: Path) -> int:
    """How much all runs have recorded so far."""
    return sum(path.stat().st_size for path in folder.glob("*/metrics.jsonl"))


def without_clock(value: Any) -> Any:
    """A summary without what is measured in seconds."""
    if isinstance(value, dict):
        return {key: without_clock(part) for key, part in value.items() if "seconds" not in key}
    return [without_clock(part) for part in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(dump(CONFIG), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "comparison"
    ended(command(config, folder, cache))
    return folder


def test_killed_twice_at_random_it_ends_the_same(
    uninterrupted: Path, config: Path, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "comparison"
    rng = random.Random(0)
    goal = written(uninterrupted)
    killed_at = []
    for kill in range(1, KILLS + 1):
        # Anywhere between the last kill and its share of the way, at any moment of a step or of a checkpoint.
        target = goal * (kill - rng.random()) / (KILLS + 1)
        process = started.raptr(command(config, folder, cache))
        while process.poll() is None and written(folder) < target:
            time.sleep(0.003)
        time.sleep(rng.random() * 0.03)
        assert process.poll() is None, f"ended before it was killed: {process.communicate()}"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed_at.append(written(folder))
        assert not (folder / "summary.json").exists()
    assert len(set(killed_at)) > 1
    assert 0 < killed_at[-1] < goal
    ended(command(config, folder, cache))

    summaries = [json.loads((each / "summary.json").read_text()) for each in (uninterrupted, folder)]
    assert without_clock(summaries[0]) == without_clock(summaries[1])
    for run in RUNS:
        for kind in ("train", "eval"):
            assert timeless(metrics(folder / run, kind)) == timeless(metrics(uninterrupted / run, kind)), run
        weights = [(each / run / "model" / "model.safetensors").read_bytes() for each in (uninterrupted, folder)]
        assert weights[0] == weights[1], run
        assert not (folder / run / "checkpoints").exists()
    assert (folder / "report.html").exists()
