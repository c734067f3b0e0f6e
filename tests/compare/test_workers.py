"""Runs side by side: the same losses, a stop that reaches all, and nothing left behind."""

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from helpers import started
from helpers.runs import metrics, timeless, tiny
from helpers.seen_gpus import note_gpu
from raptr.compare import compare
from raptr.compare.gpus import gpus_of
from raptr.compare.workers import side_by_side, workers_of
from raptr.config import dump
from raptr.data.tokens.encode_pool import cores
from raptr.errors import STOPPED, RaptrError
from raptr.train.stop_request import Stop

pytestmark = pytest.mark.slow

RUNS = ("full-seed0", "raptr-seed0", "full-seed1", "raptr-seed1")
STEPS = 100
LONG = tiny(training__max_steps=STEPS, evaluation__every=50, checkpoints__every=STEPS)


def run(config: Any, folder: Path, cache: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {"methods": ["full", "raptr"], "seeds": 2, "budget": "flops"}
    values["console"] = Console(quiet=True)
    return compare(config, folder=folder, cache=cache, **{**values, **changes})


def begin(folder: Path, cache: Path, config: Any = LONG) -> started.Started:
    path = folder.with_suffix(".yaml")
    path.write_text(dump(config), encoding="utf-8")
    options = ["--methods", "full,raptr", "--seeds", "1", "--workers", "2", "--output", str(folder)]
    return started.raptr(["compare", str(path), *options, "--cache", str(cache)])


def wait_for_both(folder: Path, process: started.Started) -> None:
    """Until both runs have recorded some steps."""
    files = [folder / name / "metrics.jsonl" for name in RUNS[:2]]
    end = time.monotonic() + 300
    while not all(file.exists() and file.read_bytes().count(b"\n") > 10 for file in files):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


def same_runs(one: Path, other: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for kind in ("train", "eval"):
            assert timeless(metrics(one / name, kind)) == timeless(metrics(other / name, kind)), name
        weights = [(each / name / "model" / "model.safetensors").read_bytes() for each in (one, other)]
        assert weights[0] == weights[1], name


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process are forked from one that has imported what they need: the others import it in seconds."""
    monkeypatch.setattr("raptr.compare.workers.multiprocessing.get_context", lambda _: started.forked())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The long runs one after the other, in this process."""
    folder = tmp_path_factory.mktemp("alone") / "long"
    run(LONG, folder, cache, seeds=1)
    return folder


@pytest.mark.usefixtures("forked")
def test_runs_side_by_side_are_those_that_follow_each_other(tmp_path: Path, cache: Path) -> None:
    tuned: dict[str, Any] = {"grid": {"training.learning_rate": [1e-3, 1e-2]}, "command": "raptr compare x"}
    one = run(tiny(), tmp_path / "one", cache, **tuned, seeds=1)
    two = run(tiny(), tmp_path / "two", cache, **tuned, seeds=1, workers=2)
    same_runs(tmp_path / "one", tmp_path / "two", RUNS[:2])
    for label, method in one["methods"].items():
        for key in ("eval_loss", "steps", "total_flops", "difference", "difference_interval"):
            assert two["methods"][label][key] == method[key]
    assert not any("side by side" in note for note in one["notes"])
    assert any("side by side" in note for note in two["notes"])
    again = run(tiny(), tmp_path / "two", cache, **tuned, seeds=1)
    assert again["notes"] == two["notes"], "of runs that were trained before"
    told = {name: json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("one", "two")}
    assert ("side_by_side" in told["one"], told["two"]["side_by_side"]) == (False, True)
    old = {key: value for key, value in told["two"].items() if key != "side_by_side"}
    for before, known in ((old, True), ({**old, "notes": []}, False), ({**told["two"], "notes": []}, True)):
        (tmp_path / "two" / "comparison.json").write_text(json.dumps(before))
        again = run(tiny(), tmp_path / "two", cache, **tuned, seeds=1)
        assert (again["notes"] == two["notes"]) == known, "the field, or the note of a folder of before"
    assert (tmp_path / "one" / "sweep.json").read_bytes() == (tmp_path / "two" / "sweep.json").read_bytes()


@pytest.mark.usefixtures("forked")
def test_a_stop_reaches_all_and_the_same_command_goes_on(alone: Path, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "long"
    process = begin(folder, cache)
    wait_for_both(folder, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == STOPPED, said
    assert "stopped on SIGTERM; the same command goes on where it was" in " ".join(said.split())
    done = {name: metrics(folder / name, "train")[-1]["step"] for name in RUNS[:2]}
    stopped = {name: step for name, step in done.items() if not (folder / name / "result.json").exists()}
    assert stopped, "at least one was in the midst of it"
    for name, step in stopped.items():
        assert step < STEPS
        assert (folder / name / "checkpoints" / f"checkpoint-{step}" / "raptr.json").exists()
    run(LONG, folder, cache, seeds=1, workers=2)
    assert (folder / "summary.json").exists()
    same_runs(folder, alone, RUNS[:2])


def test_they_end_with_a_process_that_was_killed(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "long"
    process = begin(folder, cache)
    wait_for_both(folder, process)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    end = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < end, "they train on"
        time.sleep(0.05)


def test_one_that_fails_does_not_end_the_others(tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tiny"
    run(tiny(), folder, cache, only=["full-seed0"])
    diary = folder / "raptr-seed0" / "diary.txt"
    diary.parent.mkdir()
    diary.write_text("not a run")
    with pytest.raises(RaptrError, match=r"1 of 2 processes .* \(exit codes 2\).*trains what is missing"):
        run(tiny(), folder, cache, workers=2)
    assert "raptr-seed0 exists and is not a run" in " ".join(capfd.readouterr().err.split())
    assert (folder / "full-seed1" / "result.json").exists()
    diary.unlink()
    record = folder / "full-seed0" / "run.json"
    whole = record.read_text()
    record.write_text(whole.replace(torch.__version__, "1.0"))
    with pytest.raises(RaptrError, match=r"torch.*1\.0"):  # a finished run is checked, also where others are trained
        run(tiny(), folder, cache, workers=2)
    assert not (folder / "raptr-seed1").exists()
    record.write_text(whole)
    assert run(tiny(), folder, cache) is not None, "what is missing is trained"


def test_one_worker_for_each_gpu_or_else_core_and_none_below(tmp_path: Path, cache: Path) -> None:
    assert workers_of(0, ()) == cores() >= 1
    assert workers_of(0, ("0", "1", "2", "3", "4")) == 5
    assert workers_of(3, ()) == workers_of(3, ("0",)) == 3
    with pytest.raises(RaptrError, match="--workers is -1; give 1 or more, or 0"):
        run(tiny(), tmp_path / "x", cache, workers=-1)
    assert not (tmp_path / "x").exists()


def test_gpus_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(training__use_cpu=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_of(config) == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, MIG-1")
    assert gpus_of(config) == ("4", "MIG-1")
    assert gpus_of(tiny(training__use_cpu=True)) == ()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpus_of(config) == ()


def test_each_process_sees_one_gpu_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raptr.compare.workers._work", note_gpu)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    asked: Any = tmp_path
    names = [(k, f"run{k}") for k in range(3)]
    side_by_side(asked, {}, names, 2, gpus=("4", "6", "7"), total=3, command="", stop=Stop())
    assert [(tmp_path / name).read_text() for _, name in names] == ["4", "6", "4"], "of two processes"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6,7"


def test_a_process_is_shown_one_gpu_also_alone_and_all_where_there_is_one(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(
        "raptr.compare.comparison.planned", lambda *_: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    )
    for count in (0, 1, 2):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        said = Console(record=True, width=140, file=io.StringIO())
        with pytest.raises(AttributeError):  # nothing was planned
            run(tiny(training__use_cpu=False), tmp_path / "x", cache, console=said)
        assert ("2 GPUs are there; --workers 0" in said.export_text()) == (count == 2)
    assert seen == [None, None, "0"]


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether it runs; one that waits for its parent to take note does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
