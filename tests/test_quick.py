"""Quick tests train nothing and start no process: the guard of conftest.py sees to it."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import transformers

from helpers.started import Started


def forked() -> None:
    """Fork this process, which ends the child at once."""
    if not os.fork():
        os._exit(0)


STARTS: dict[str, Callable[[], Any]] = {
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "system": lambda: os.system("true"),
    "fork": forked,
    "spawn": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
    "forkserver": lambda: Started("this", []),
    "training": lambda: transformers.Trainer.train(None),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_quick_test_that_trains_or_starts_a_process_fails(what: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(BaseException, match="mark it with") as found:
        STARTS[what]()
    assert type(found.value).__name__ == "NotQuick"
    assert request.node.nodeid in str(found.value)


def test_a_quick_test_may_ask_for_the_name_of_the_processor() -> None:
    assert subprocess.run(["uname", "-s"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_a_slow_test_may_do_both() -> None:
    assert subprocess.run([sys.executable, "-c", "print(7)"], capture_output=True, check=True).stdout == b"7\n"
    with pytest.raises(AttributeError):  # of a Trainer that is none: it was entered
        transformers.Trainer.train(None)
