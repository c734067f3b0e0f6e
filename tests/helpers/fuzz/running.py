"""A command in this process, and what may be wrong with how it ended."""

import contextlib
import io
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import FrameType

from raptr.cli import app as cli

LIMIT = 20.0
"""Seconds after which a command is taken to hang."""

LONGEST = 6_000
"""Characters of a message that a user still reads: twenty problems of a config, a line each."""

_MESSAGE = re.compile(r"^raptr: |^╭─ Error ─", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a command ended.

    Attributes:
        arguments: after ``raptr``.
        code: its exit code; None where it raised.
        out: what it wrote to stdout.
        err: what it wrote to stderr.
        raised: the traceback of what escaped; empty where nothing did.
    """

    arguments: tuple[str, ...]
    code: int | None
    out: str
    err: str
    raised: str = ""


class Hangs(BaseException):
    """A command took longer than `LIMIT`: no ``except Exception`` takes it for something else."""


def run(arguments: Sequence[str]) -> Ending:
    """Run ``raptr`` with these arguments, with the streams that a shell gives it."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    code: int | None = 0
    raised = ""
    given, sys.argv = sys.argv, ["raptr", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _watched(), warnings.catch_warnings():
            warnings.simplefilter("default")
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (Exception, Hangs):
        code, raised = None, traceback.format_exc()
    finally:
        sys.argv = given
    return Ending(arguments=tuple(arguments), code=code, out=_written(out), err=_written(err), raised=raised)


def wrong(ending: Ending) -> str:
    """What is wrong with how a command ended; empty where it succeeded, or was refused in one clear message."""
    if ending.raised:
        return ending.raised
    if "Traceback" in ending.err:
        return f"a traceback: {ending.err}"
    if ending.code not in (0, 2):
        return f"exit code {ending.code}: {ending.err}"
    if ending.code == 0 or not ending.arguments:  # `raptr` alone shows its help, and ends with 2
        return ""
    if (count := len(_MESSAGE.findall(ending.err))) != 1:
        return f"{count} messages: {ending.out}{ending.err}"
    said = ending.err[_MESSAGE.search(ending.err).start() :]  # type: ignore[union-attr]
    return f"a message of {len(said)} characters: {said}" if len(said) > LONGEST else ""


def fingerprint(folder: Path) -> str:
    """A hash of the names and contents of all files below a folder."""
    found = blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)}\0".encode("utf-8", "surrogateescape"))
        if path.is_file():
            found.update(blake2b(path.read_bytes(), digest_size=16).digest())
    return found.hexdigest()


def check(arguments: Sequence[str], inputs: Path, *, works: bool = False) -> Ending:
    """Run a command whose inputs are below a folder; with ``works``, it works in there if it succeeds.

    Raises:
        AssertionError: it ended in another way than promised, or changed an input.
    """
    before, command = fingerprint(inputs), f"raptr {' '.join(map(ascii, arguments))[:2000]}"
    ending = run(arguments)
    problem = wrong(ending)
    assert not problem, f"{command}\n{problem[-6000:]}"
    assert (works and ending.code == 0) or fingerprint(inputs) == before, f"{command} changed an input"
    return ending


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Interrupt what takes too long."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"nothing came after {LIMIT:g} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    raw = stream.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode("utf-8")
