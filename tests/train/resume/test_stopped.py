"""Real runs that are asked to stop: they end a step, save, end with a code of their own, and go on."""

import signal
import time
from pathlib import Path

import pytest

from helpers import started
from helpers.runs import metrics, run, tiny
from helpers.stopping import same_end
from raptr.config import dump
from raptr.errors import STOPPED

pytestmark = pytest.mark.slow

CONFIG = tiny(training__max_steps=120, evaluation__every=40, checkpoints__every=100)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The same run, left in peace."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    run(CONFIG, folder, cache)
    return folder


def begin(folder: Path, cache: Path, *options: str) -> started.Started:
    config = folder.with_suffix(".yaml")
    config.write_text(dump(CONFIG), encoding="utf-8")
    return started.raptr(["train", str(config), "--output", str(folder), "--cache", str(cache), *options])


def wait_for(folder: Path, lines: int, process: started.Started) -> None:
    path, end = folder / "metrics.jsonl", time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.002)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: signal.Signals, reference: Path, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "run"
    process = begin(folder, cache)
    wait_for(folder, 20, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    done = metrics(folder, "train")[-1]["step"]
    assert process.returncode == STOPPED, said
    assert f"stopped on {number.name}, after step {done} of 120; the same command goes on" in " ".join(said.split())
    assert 19 <= done < 100, "long before the first checkpoint that was due"
    assert (folder / "checkpoints" / f"checkpoint-{done}" / "raptr.json").exists()
    if number == signal.SIGINT:  # what was saved does not depend on the signal
        return
    _, said = begin(folder, cache).communicate(timeout=300)
    assert f"goes on after step {done}" in said
    same_end(folder, reference)


def test_a_limit_of_time_does_the_same(reference: Path, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder, cache, "--max-minutes", "0.0001")  # over before the first step has ended
    _, said = process.communicate(timeout=300)
    assert process.returncode == STOPPED, said
    assert "stopped after 0.0001 minutes, after step 1 of 120" in " ".join(said.split())
    begin(folder, cache).communicate(timeout=300)
    same_end(folder, reference)


def test_a_second_process_in_a_runs_folder_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "run"
    first = begin(folder, cache)
    try:
        wait_for(folder, 5, first)
        first.send_signal(signal.SIGSTOP)  # it would have ended by the time the other looks
        second = begin(folder, cache)
        _, said = second.communicate(timeout=300)
        assert second.returncode == 2, said
        assert f"is being worked in by process {first.pid} on" in " ".join(said.split())
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
