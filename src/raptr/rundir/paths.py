"""A run's folder: whose it is, what is in it, and files that are whole or not there."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError

Result = dict[str, Any]
"""What a finished run did: steps, tokens, epochs, FLOPs, seconds, updates that were not made, the full model's last
validation loss (NaN if the run diverged; in the file, null), and its ``eval_losses`` by validation source. Of a run
that stopped because it diverged all are those of the steps it took, and ``diverged`` is true."""


NUMBERS = ("steps", "tokens", "epochs", "layer_flops", "total_flops", "seconds", "eval_loss")
"""Of a result, those that are one number."""

_KINDS = {"config.yaml": "run", "comparison.yaml": "comparison"}
"""What a folder with such a file holds."""


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON, in which a number that is not finite is null: a diverged run is still a readable one."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [finite(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(content), indent=indent, allow_nan=False)


@contextmanager
def recorded(path: Path) -> Iterator[Any]:
    """The content of a JSON file that raptr wrote; what it turns out not to hold in the ``with`` is said as damage.

    Raises:
        RaptrError: the file is no JSON, or what was looked for is not in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # halves of characters can be written in JSON
        yield content
    except RaptrError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise RaptrError(f"{path} is damaged ({error!r}); give another --output, or remove that folder.") from error


def read_result(folder: Path) -> Result | None:
    """What a run folder's finished run did; None if it is not finished.

    Raises:
        RaptrError: its result is damaged.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    with recorded(path) as content:
        found: Result = {name: math.nan if value is None else value for name, value in content.items()}
        for value in (*(found[name] for name in NUMBERS), *found.get("eval_losses", {}).values()):
            if value is not None:
                math.isnan(value)  # refuses what is no number
    return found


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


def _is_content(path: Path) -> bool:
    """Not what a process leaves that is killed at its very start: a half-written file or an empty folder."""
    return not path.name.startswith(".") and not (path.is_dir() and not any(path.iterdir()))


def _difference(old: str, new: str) -> str:
    for before, after in zip_longest(old.splitlines(), new.splitlines(), fillvalue=""):
        if before != after:
            has, has_not = (repr(line.strip()) if line else "nothing" for line in (before, after))
            return f"it has {has} where this one has {has_not}"
    return "its lines end in another way"
