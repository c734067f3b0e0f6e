"""Real processes that start at once: forked from one that has imported what they all need.

Starting Python, torch and transformers takes seconds, longer than most of what tests then ask of a process.
"""

import contextlib
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]

IMPORTED = (
    "raptr.cli.app",
    "raptr.compare",
    "raptr.train.engine",
    "torch.distributed.fsdp",
    "torch._dynamo",
    "helpers.frozen",
)

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Read when torch is imported, so by the process from which the others are forked."""

STREAMS = ("stdout", "stderr")

_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload(list(IMPORTED))


def forked() -> Any:
    """The context of multiprocessing whose processes are forked from one that has imported what they need."""
    with _one_thread():
        forkserver.ensure_running()
    return _forked


class Started:
    """``python -m MODULE ARGUMENTS`` with one thread, and of `subprocess.Popen` what tests ask of it.

    Args:
        module: that is run as a program; or a script, by its path.
        arguments: of it.
        environment: what is other than in this process.
        folder: in which it runs, if not in that of this process.
    """

    def __init__(
        self,
        module: str | Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._said = tempfile.TemporaryDirectory()
        everything = {**os.environ, **ONE_THREAD, **(environment or {})}
        given = (module, tuple(arguments), everything, self._said.name, folder or Path.cwd())
        self._process = forked().Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it ends; what it has printed, and what it has said on its error stream.

        Raises:
            TimeoutExpired: it runs on.
        """
        self._process.join(timeout)
        if self.poll() is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        printed, said = (Path(self._said.name, stream).read_text(encoding="utf-8") for stream in STREAMS)
        return printed, said


def raptr(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Started:
    """The `raptr` command."""
    return Started("raptr", arguments, environment)


def ranks_of(size: int) -> list[dict[str, str]]:
    """The environment of each of several processes that know of each other, as torchrun sets it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def succeeded(processes: Sequence[Started], timeout: float = 600) -> list[str]:
    """Wait for processes, and return what each has printed.

    Raises:
        AssertionError: One of them failed; the message is what all have printed.
    """
    try:
        said = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(map("".join, said))
    return [printed for printed, _ in said]


def launch(mode: str, out: Path, worker: Path, *more: str, size: int = 2) -> dict[str, Any]:
    """Run a worker script of the tests, alone if the mode is single or else as several ranks.

    Args:
        mode: the script's first argument.
        out: the script's last argument: the file that rank 0 writes.
        worker: the script.
        more: arguments in between.
        size: the number of ranks.

    Returns:
        What rank 0 wrote.
    """
    module = ".".join(worker.relative_to(TESTS).with_suffix("").parts)
    environments = ranks_of(1 if mode == "single" else size)
    succeeded([Started(module, [mode, *more, str(out)], one) for one in environments])
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def _run(module: str | Path, arguments: Sequence[str], environment: Mapping[str, str], said: str, folder: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(STREAMS, start=1):
        os.dup2(os.open(Path(said, stream), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    multiprocessing.set_start_method(None, force=True)  # its own children start as any process's do
    os.chdir(folder)
    sys.argv = [str(module), *arguments]
    if isinstance(module, Path):
        sys.path.insert(0, str(module.parent))
        runpy.run_path(str(module), run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
