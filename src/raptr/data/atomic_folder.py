"""Folders that are there whole or not at all, and paths as users write them."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raptr.errors import RaptrError

_LOCK = ".lock"


def at_home(path: str | Path) -> Path:
    """Return a path with ``~`` and ``~user`` replaced; the name of an unknown user is a file's."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises for an unknown user


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under another name, and give it its own when it is complete.

    Args:
        folder: its name says all about its content: where another process was faster, its folder stays.
        write: is given the folder to write into.

    Raises:
        RaptrError: the folder above cannot be written to.
    """

    def named(partial: Path) -> str:
        write(partial)
        return folder.name

    write_named(folder.parent, named)


def write_resumable(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under another name, which it keeps when it is interrupted: ``write`` finds it as it left it.

    Where another process is writing the same folder, or the file system knows no locks, it is written apart, and
    an interruption leaves nothing.

    Args:
        folder: its name says all about its content: where another process was faster, its folder stays.
        write: is given the folder to write into, empty or as far as it came.

    Raises:
        RaptrError: the folder above cannot be written to.
    """
    partial = folder.parent / f".partial-{folder.name}"
    with _locked(partial) as ours:
        if not ours:
            write_folder(folder, write)
        elif folder.exists():  # it was finished in the meantime
            shutil.rmtree(partial, ignore_errors=True)
        else:
            write(partial)
            try:
                partial.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                shutil.rmtree(partial, ignore_errors=True)
            (folder / _LOCK).unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Make a folder and have it for this process alone, until that ends, in whatever way."""
    try:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("ab")
    except (ImportError, OSError):  # no such locks here; or nothing can be written, which is said where it is tried
        yield False
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except OSError:
            ours = False
        yield ours


def write_named(parent: Path, write: Callable[[Path], str]) -> Path:
    """The same for a folder whose name is known once it is written; returns its path."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    except OSError as error:
        raise RaptrError(
            f"cache folder {str(parent)!r} cannot be written to ({error.strerror}); give another one."
        ) from error
    try:
        folder = parent / write(partial)
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster, with the same content
                raise
        return folder
    finally:
        shutil.rmtree(partial, ignore_errors=True)
