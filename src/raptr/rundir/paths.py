"""The files of a run folder: their names, atomic writing, and checked reading."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError
from raptr.rundir.json_record import to_json

FORMAT = 1
"""Format number in the JSON files of a run and of a comparison."""

CONFIG = "config.yaml"
RUN_INFO = "run.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
MODEL = "model"
TENSORBOARD = "tensorboard"

COMPARISON = "comparison.yaml"
COMPARISON_INFO = "comparison.json"
CLOCK = "clock.json"
SWEEP = "sweep.json"
TRIALS = "sweep"
SUMMARY = "summary.json"

REPORT = "report.html"
FIGURES = "figures"

_KINDS = {CONFIG: "run", COMPARISON: "comparison"}
"""Content of a folder that has such a file."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        RaptrError: the file cannot be read, holds no JSON object, or has a format that this version does not know.
    """
    try:
        value = _parsed(path)
    except (OSError, ValueError, RecursionError) as error:
        raise RaptrError(
            f"{path} cannot be read as JSON ({error}). It is written by `raptr`; repeat the command that made it."
        ) from error
    if not isinstance(value, dict):
        raise RaptrError(f"{path} holds {type(value).__name__}, but a JSON object is expected.")
    if value.get("format", FORMAT) != FORMAT:
        raise RaptrError(
            f"{path} has format {value['format']!r}, this version of raptr reads format {FORMAT}. "
            "Make the report with the version that made the run."
        )
    return value


@contextmanager
def recorded(path: Path) -> Iterator[Any]:
    """Give the content of a JSON file that a resumed command relies on; in the ``with``, errors of lookup are damage.

    Raises:
        RaptrError: the file is no JSON, or what was looked for is not in it.
    """
    try:
        yield _parsed(path)
    except RaptrError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise RaptrError(f"{path} is damaged ({error!r}); give another --output, or remove that folder.") from error


def _parsed(path: Path) -> Any:
    """The value in a JSON file, as UTF-8 can write it again: JSON can hold halves of characters."""
    value = json.loads(path.read_text(encoding="utf-8"))
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def read_text(path: Path) -> str:
    """Return the text of a file; nothing if there is no such file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def check_folder(folder: Path, file: str) -> None:
    """Refuse a folder that holds something, but no such file.

    Raises:
        RaptrError: it does; nothing is touched.
    """
    if (folder / file).exists():
        return
    if folder.exists() and (not folder.is_dir() or any(map(_is_content, folder.iterdir()))):
        held = next((kind for name, kind in _KINDS.items() if (folder / name).exists()), None)
        what = f"holds a {held}" if held else "exists"
        raise RaptrError(
            f"{folder} {what} and is not a {_KINDS.get(file, 'run')} of raptr ({file} is not in it); "
            "give another --output, or another name=..."
        )


def claim_folder(folder: Path, record: str, file: str) -> None:
    """Make a folder one's own, by a record in it.

    Raises:
        RaptrError: it holds something else; nothing is touched.
    """
    check_folder(folder, file)
    existing = folder / file
    if existing.exists() and (old := existing.read_text(encoding="utf-8", errors="replace")) != record:
        raise RaptrError(
            f"{folder} holds another {_KINDS.get(file, 'run')}: {_difference(old, record)}. "
            "Give another --output (or name=...), or remove that folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / file, record)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, to_json(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write a file, whole or not at all, also if several processes write it or the machine stops."""
    write_bytes(path, content.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, also if several processes write it or the machine stops."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_content(path: Path) -> bool:
    """Not what a process leaves that is killed at its very start: a half-written file or an empty folder."""
    return not path.name.startswith(".") and not (path.is_dir() and not any(path.iterdir()))


def _difference(old: str, new: str) -> str:
    for before, after in zip_longest(old.splitlines(), new.splitlines(), fillvalue=""):
        if before != after:
            has, has_not = (repr(line.strip()) if line else "nothing" for line in (before, after))
            return f"it has {has} where this one has {has_not}"
    return "its lines end in another way"
