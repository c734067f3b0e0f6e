"""Two processes, one folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raptr import lock
from raptr.errors import RaptrError
from raptr.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from raptr.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""

FORK = """
import os, sys, time
from pathlib import Path
from raptr.lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_process_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with pytest.raises(RaptrError, match=rf"by process {process.pid} on .* since 20.* --output"):
            locked(tmp_path / "run").__enter__()
        with locked(tmp_path / "other"):  # control
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_what_was_forked_from_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FORK, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(RaptrError, match=rf"by process {process.pid} on"):  # its child has not given it back
            locked(tmp_path / "run").__enter__()
        process.kill()
        process.wait()
        with locked(tmp_path / "run"):
            os.kill(child, 0)  # which is still there
    finally:
        os.kill(child, signal.SIGKILL)
        process.kill()


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((tmp_path / ".owner.json").read_text())["process"] == process.pid
    with locked(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["process"] == os.getpid()
    assert not (tmp_path / ".owner.json").exists()


def test_an_owner_on_another_machine_counts_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    owner = tmp_path / ".owner.json"
    owner.write_text(json.dumps({"process": 7, "host": "elsewhere", "since": "2024-01-01 00:00:00"}))
    with pytest.raises(RaptrError, match="by process 7 on elsewhere since 2024-01-01"):
        locked(tmp_path).__enter__()
    silent = time.time() - lock.SILENT - 5
    os.utime(owner, (silent, silent))
    with locked(tmp_path):
        assert json.loads(owner.read_text())["process"] == os.getpid()


def test_an_owner_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with locked(tmp_path):
        os.utime(tmp_path / ".owner.json", (1, 1))
        end = time.monotonic() + 20
        while (tmp_path / ".owner.json").stat().st_mtime == 1 and time.monotonic() < end:
            time.sleep(0.02)
        assert (tmp_path / ".owner.json").stat().st_mtime > 1


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": 3}'])
def test_a_damaged_owner_file_is_no_owner(content: str, tmp_path: Path) -> None:
    (tmp_path / ".owner.json").write_text(content)
    os.utime(tmp_path / ".owner.json", (1, 1))
    with locked(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["process"] == os.getpid()
