"""Shared fixtures, and the line between quick and slow tests.

A test is *slow* if it trains with the Trainer, starts a process, or takes seconds by itself (drawing a report does). It
carries the marker `slow`: its module by `pytestmark = pytest.mark.slow` if nearly all of its tests are slow, otherwise
the test itself. `make check` runs the others, `-m "not slow"`; `make test` runs all.

The split is enforced. A test without the marker fails with `NotQuick` if it, or a fixture of it, enters
`transformers.Trainer.train` or starts a process. Mark such a test, or make it quick.
"""

import functools
import gc
import multiprocessing.process
import multiprocessing.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.measured import keep_measures

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the network; read when transformers is imported
torch.set_num_threads(1)


class NotQuick(BaseException):
    """A test without the marker `slow` trains or starts a process. No `except Exception` of the code hides it."""


class Guard:
    """Reject training and new processes while a quick test, its setup or its teardown runs."""

    STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})
    ALLOWED = frozenset({"uname"})
    """Programs that the standard library asks once for the name of the processor."""

    def __init__(self) -> None:
        self.test: str | None = None

    def check(self, what: str) -> None:
        """Raise if a quick test runs.

        Raises:
            NotQuick: Names the test and what it does.
        """
        if self.test is not None:
            raise NotQuick(f"{self.test} {what}: mark it with pytest.mark.slow, or do without")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Check each event of `sys.addaudithook` that starts a process."""
        if event in self.STARTS and not (event == "subprocess.Popen" and arguments[0] in self.ALLOWED):
            self.check(f"starts a process ({event} {arguments[:1]})")

    def before(self, owner: Any, name: str, what: str) -> None:
        """Check at each call of a function."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.check(what)
            return function(*args, **kwargs)

        setattr(owner, name, checked)


guard = Guard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tell the guard which test runs, its fixtures included."""
    guard.test = None if item.get_closest_marker("slow") else item.nodeid
    try:
        return (yield)
    finally:
        guard.test = None


def pytest_collection_finish() -> None:
    """Freeze what was imported, and put the guard in place.

    Every run of the Trainer collects garbage, which need not look at all of the imported objects again: what is
    imported later is looked at only by the collections that Python begins by itself.
    """
    sys.addaudithook(guard.audit)
    guard.before(multiprocessing.process.BaseProcess, "start", "starts a process")
    guard.before(multiprocessing.util, "spawnv_passfds", "starts a server of processes")
    if "transformers" in sys.modules:  # else no collected test can train
        guard.before(sys.modules["transformers"].Trainer, "train", "trains")
        sys.modules["accelerate"].utils.memory.gc = SimpleNamespace(collect=lambda: gc.collect(1))
    if "raptr.train.task" in sys.modules:
        keep_measures(sys.modules["raptr.train.task"])
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens are made once, for all workers: the store is written whole or not at all."""
    return tmp_path_factory.getbasetemp().parent / "raptr-token-cache"
