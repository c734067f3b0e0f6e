"""One process at a time in a run's folder."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError

_LOCK, _OWNER = ".lock", ".owner.json"

BEAT = 10.0
"""Seconds between two signs of life of an owner."""

SILENT = 60.0
"""After so many seconds without one, an owner on another machine has ended."""

_ours: set[int] = set()
"""The descriptors of the locks that this process holds."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own a folder, or be refused because another process does.

    The system gives a lock back when its process ends, however that ends, so on one machine a lock is never left
    behind; processes forked from it, such as data workers, do not hold it too. A file system may not share locks
    between machines; so an owner touches a file every `BEAT` seconds, and one on another machine that has been silent
    for `SILENT` seconds has ended.

    Args:
        folder: made if it is missing.

    Raises:
        RaptrError: another process works in it; its number and machine are named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     with locked(Path(folder)):  # doctest: +ELLIPSIS
        ...         pass
        Traceback (most recent call last):
        raptr.errors.RaptrError: ... is being worked in by process ...
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / _OWNER
    lock = _held(folder / _LOCK)
    if lock is None:
        raise _taken(folder, _read(owner))
    _ours.add(lock)
    try:
        found = _read(owner)
        if found.get("host") not in (None, socket.gethostname()) and _age(owner) < SILENT:
            raise _taken(folder, found)
        owner.write_text(json.dumps(_myself()), encoding="utf-8")
        ended = threading.Event()
        heart = threading.Thread(target=_beat, args=(owner, ended), daemon=True)
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()
            owner.unlink(missing_ok=True)
    finally:
        (folder / _LOCK).unlink(missing_ok=True)
        _ours.discard(lock)
        os.close(lock)
        if made and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _let_go() -> None:
    """In a process that was just forked: the lock ends with the one that took it, not with its data workers."""
    for number in _ours:
        os.close(number)
    _ours.clear()


os.register_at_fork(after_in_child=_let_go)


def _held(path: Path) -> int | None:
    """The descriptor of a lock file, once it is ours; None if it is another's."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            return None
        try:
            if os.path.samestat(os.fstat(number), path.stat()):
                return number
        except FileNotFoundError:
            pass
        os.close(number)  # the one before us has removed it meanwhile: what we hold is nobody's


def _myself() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _beat(owner: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        try:
            owner.touch()
        except OSError:  # a full or lost disk: whoever writes what matters will say so
            continue


def _read(owner: Path) -> dict[str, Any]:
    try:
        content = json.loads(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _age(owner: Path) -> float:
    """Seconds since the last sign of life, by the clock of the file system, which all machines share."""
    probe = owner.with_name(f".now.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - owner.stat().st_mtime
    except OSError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _taken(folder: Path, owner: dict[str, Any]) -> RaptrError:
    who = f"process {owner.get('process', '(unknown)')} on {owner.get('host', 'an unknown machine')}"
    since = f" since {owner['since']}" if "since" in owner else ""
    return RaptrError(
        f"{folder} is being worked in by {who}{since}; wait until it has ended, end it, or give another --output."
    )
