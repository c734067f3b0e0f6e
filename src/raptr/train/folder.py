"""A run's folder: whose it is, what is in it, and files that are whole or not there."""

import json
import math
import os
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError
from raptr.train.metrics import to_json

Result = dict[str, Any]
"""What a finished run did: steps, tokens, epochs, FLOPs, seconds, the full model's last validation loss
(NaN if the run diverged; in the file, null), and its ``eval_losses`` by validation source."""


def read_result(folder: Path) -> Result | None:
    """What a run folder's finished run did; None if it is not finished."""
    path = folder / "result.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: math.nan if value is None else value for name, value in content.items()}


def check_folder(folder: Path, record: str, file: str) -> None:
    """Refuse a folder that holds something other than this very run, by the record in it.

    Raises:
        RaptrError: it holds something else; nothing is touched.
    """
    existing = folder / file
    if existing.exists():
        old = existing.read_text(encoding="utf-8")
        if old != record:
            raise RaptrError(
                f"{folder} holds another run: {_difference(old, record)}. "
                "Give another --output (or name=...), or remove that folder."
            )
    elif folder.exists() and (not folder.is_dir() or any(map(_is_content, folder.iterdir()))):
        raise RaptrError(f"{folder} exists and is not a run of raptr ({file} is not in it); give another --output.")


def claim_folder(folder: Path, record: str, file: str) -> None:
    """Make a folder this run's own; see `check_folder`."""
    check_folder(folder, record, file)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / file, record)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, to_json(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write a file, whole or not at all, also where several processes write it or the machine stops."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_same(folder: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with a run, or to let it stand for this one, if it was made from something else.

    Raises:
        RaptrError: its data, steps, costs or versions are not those of now.
    """
    before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for name, old, new in [
        ("data", before["data"]["key"], facts["data"]["key"]),
        ("steps", before["steps"], facts["steps"]),
        ("number of processes", before["environment"].get("processes", 1), facts["environment"]["processes"]),
        ("FLOPs of a step", before["flops"], json.loads(to_json(facts["flops"]))),
        *((name, before["environment"][name], facts["environment"][name]) for name in _VERSIONS),
    ]:
        _check_equal(folder, name, old, new)


def check_engine(folder: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with a run on another engine: its checkpoints have another form.

    Raises:
        RaptrError: it was trained on another one.
    """
    before = json.loads((folder / "run.json").read_text(encoding="utf-8"))["environment"]
    _check_equal(folder, "engine", before.get("engine", "single"), facts["environment"]["engine"])


def _check_equal(folder: Path, name: str, old: Any, new: Any) -> None:
    if old != new:
        raise RaptrError(
            f"the run in {folder} is not the one that would be made now: its {name} "
            f"is {str(old)[:80]}, now {str(new)[:80]}. Give another --output, or remove that folder."
        )


_VERSIONS = ("raptr", "torch", "transformers")


def _is_content(path: Path) -> bool:
    """Not what a process leaves that is killed at its very start: a half-written file or an empty folder."""
    return not path.name.startswith(".") and not (path.is_dir() and not any(path.iterdir()))


def _difference(old: str, new: str) -> str:
    for before, after in zip(old.splitlines(), new.splitlines(), strict=False):
        if before != after:
            return f"it has {before.strip()!r} where this one has {after.strip()!r}"
    return "its config has other lines"
