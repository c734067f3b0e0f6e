"""Folders that are there whole or not at all."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from raptr.errors import RaptrError


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
