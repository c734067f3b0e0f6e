"""How a command ends: its exit code, and the one message that goes with it."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console

from raptr.errors import STOPPED, RaptrError, Stopped

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_USAGE: type[Any] = typer.BadParameter.__base__  # type: ignore[assignment]  # of all that is wrong with arguments

_WORD, _LINE, _LINES = 300, 2000, 60  # characters of a word and of a line, and lines: more than a message needs


def shortened(message: str) -> str:
    """A message that repeats what it was given, however long that was, at a length that is read.

    What is cut out is named by its length. Paths and lists of choices are shorter than that, and stay whole.

    Example:
        >>> shortened(f"{'9' * 400} steps are too many.")
        '99999999999999999999...(400 characters)...99999999999999999999 steps are too many.'
    """
    lines = message.split("\n")
    if len(lines) > _LINES:
        lines = [*lines[: _LINES // 2], f"... ({len(lines) - _LINES} lines)", *lines[-_LINES // 2 :]]
    words = (re.sub(rf"\S{{{_WORD + 1},}}", lambda found: _middle_out(found[0], 20), line) for line in lines)
    return "\n".join(line if len(line) <= _LINE else _middle_out(line, 300) for line in words)


@contextmanager
def shortly() -> Iterator[None]:
    """Shorten what typer says about arguments that it cannot read."""
    try:
        yield
    except _USAGE as error:
        error.message = shortened(error.message.removeprefix("Value error, "))  # pydantic's words
        raise


def _middle_out(text: str, ends: int) -> str:
    return f"{text[:ends]}...({len(text)} characters)...{text[-ends:]}"


@contextmanager
def ended() -> Iterator[None]:
    """Exit code 2 and one message for what a user can mend, no traceback; with RAPTR_TRACEBACK set, that too."""
    try:
        yield
    except RaptrError as error:
        _fail(str(error), 2)
    except OSError as error:
        if error.errno in _FULL:
            _fail(f"{error.strerror}: nothing could be written; free some space, and give the same command again.", 2)
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; give another path, or make this one usable.", 2)


@contextmanager
def interruptible(what_happens: str) -> Iterator[None]:
    """Say what an interruption means, and end with the exit code that shells use for it, or with that of a stop."""
    try:
        yield
    except Stopped as stopped:
        _fail(f"{stopped}; {what_happens}.", STOPPED)
    except KeyboardInterrupt:
        _fail(f"interrupted; {what_happens}.", 130)


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("RAPTR_TRACEBACK"):
        traceback.print_exc()
    said = f"raptr: {shortened(message)}"
    Console(stderr=True).print(said, style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
