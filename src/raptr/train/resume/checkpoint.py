"""Checkpoints of a run: written whole or not at all, checked before they are used, set aside where damaged.

The Trainer writes a checkpoint file by file, into a folder of another name. When all of it is on the disk, a manifest
is added, ``raptr.json``, with the size and a hash of every other file and what the run had done and recorded; then the
folder is given its name. What is read later is what was written, or it is not used.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from raptr.errors import RaptrError
from raptr.model.rank_check import gather_objects
from raptr.rundir.json_record import to_json
from raptr.rundir.paths import write_json
from raptr.train.ranks import from_main, is_main
from raptr.train.resume.safe_load import NotPlain, check_lists

KEPT = 2
"""How many checkpoints are kept: while the newest is written, the one before it must be there."""

PARTIAL, DAMAGED = "partial", "damaged-"
"""What a checkpoint's folder is in while it is written, and what comes before the name of one that is damaged."""

_MANIFEST = "raptr.json"

_WRITING = (OSError, SafetensorError, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        path: its folder.
        step: how many steps were completed.
        metrics: what `MetricsCallback.restore` takes.
    """

    path: Path
    step: int
    metrics: dict[str, Any]


@contextmanager
def written(folder: Path, step: int, metrics: dict[str, Any] | None) -> Iterator[Path]:
    """A folder in which the Trainer writes ``checkpoint-<step>``, which is whole when it gets to its own place.

    Every rank writes a file of its own, the last thing that it does: the manifest is made when all of them have.

    Args:
        folder: of all checkpoints; of older ones the newest `KEPT` less one stay.
        step: how many steps were completed.
        metrics: what is kept for `MetricsCallback.restore`; rank 0's counts.

    Raises:
        RaptrError: it could not be written, most likely because the disk is full; those before it are as they were.
    """
    partial, name = folder / PARTIAL, f"checkpoint-{step}"
    from_main(lambda: shutil.rmtree(partial, ignore_errors=True))
    failure: Exception | None = None
    try:
        yield partial
    except _WRITING as error:
        failure = _of_writing(error)
    failed = next((told for told in gather_objects(failure and str(failure)) if told), None)
    try:
        if failed is not None:
            raise failure or OSError(failed)
        from_main(lambda: _complete(partial / name, folder / name, step, metrics))
    except _WRITING as error:
        reason = _of_writing(error)
        if is_main():
            shutil.rmtree(partial, ignore_errors=True)
        older = ", ".join(path.name for _, path in _numbered(folder)) or "none"
        raise RaptrError(
            f"the checkpoint of step {step} could not be written ({reason}). Those before it are as they were, in "
            f"{folder}: {older}. Free some space (or raise the quota), and give the same command again."
        ) from error
    from_main(lambda: _keep(folder, KEPT))


def newest_checkpoint(folder: Path, metrics: Path) -> Checkpoint | None:
    """The newest whole checkpoint in a folder of checkpoints; None if there is none.

    One that is not what its manifest says is set aside, with a warning: its folder gets another name, and nobody
    removes it.

    Args:
        folder: of all checkpoints.
        metrics: the run's metrics.jsonl, which must hold what the checkpoint says was recorded.
    """
    for step, path in reversed(_numbered(folder)):
        try:
            return Checkpoint(path=path, step=step, metrics=_checked(path, step, metrics))
        except _Damage as damage:
            aside = _free(path.with_name(f"{DAMAGED}{path.name}"))
            path.rename(aside)
            warnings.warn(
                f"{path} is damaged ({damage}) and was set aside as {aside.name}; the checkpoint before it is used, "
                "or the run begins again.",
                stacklevel=2,
            )
    return None


def remove_checkpoints(folder: Path, but: Path | None = None) -> None:
    """Remove all checkpoints of a folder but one, and what was not finished; what was set aside stays.

    What a stopped run left beside the checkpoint that it goes on from must not stay: the newest by their number are
    kept, so an older attempt's last ones would push out those that are to be written.
    """
    for path in [folder / PARTIAL, *(path for _, path in _numbered(folder))]:
        if path != but:
            shutil.rmtree(path, ignore_errors=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


class _Damage(Exception):
    """A checkpoint is not what its manifest says."""


def _complete(partial: Path, place: Path, step: int, metrics: dict[str, Any] | None) -> None:
    """Flush a checkpoint, add its manifest, and let it appear."""
    files = {path.relative_to(partial).as_posix(): path for path in sorted(partial.rglob("*")) if path.is_file()}
    facts = {name: {"bytes": path.stat().st_size, "blake2b": _hash(path, flush=True)} for name, path in files.items()}
    manifest = json.loads(to_json({"format": 2, "step": step, "metrics": metrics, "files": facts}))
    write_json(partial / _MANIFEST, {**manifest, "blake2b": _seal(manifest)})
    for folder in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
        _flush(folder)
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    partial.parent.rmdir()
    _flush(place.parent)


def _checked(path: Path, step: int, metrics: Path) -> dict[str, Any]:
    """What a checkpoint keeps of the metrics."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("blake2b") != _seal(manifest):
            raise _Damage(f"{_MANIFEST} has other content than was written")
        files, kept = manifest["files"], manifest["metrics"]
        if manifest["step"] != step:
            raise _Damage(f"{_MANIFEST} is of step {manifest['step']}")
        for name, facts in files.items():
            size = (path / name).stat().st_size
            if size != facts["bytes"]:
                raise _Damage(f"{name} has {size} bytes instead of {facts['bytes']}")
            if _hash(path / name) != facts["blake2b"]:
                raise _Damage(f"{name} has other content than was written")
        check_lists(path)
        recorded = metrics.stat().st_size
        if recorded < kept["bytes"]:
            raise _Damage(f"{metrics.name} has {recorded} bytes, and had {kept['bytes']}")
    except OSError as error:
        raise _Damage(f"{Path(error.filename or '').name}: {error.strerror}") from error
    except NotPlain as error:
        raise _Damage(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damage(f"{_MANIFEST} cannot be read: {error!r}") from error
    return dict(kept)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints by their steps, rising."""
    found = [(path.name.removeprefix("checkpoint-"), path) for path in folder.glob("checkpoint-*")]
    return sorted((int(number), path) for number, path in found if number.isdecimal())


def _keep(folder: Path, count: int) -> None:
    for _, path in _numbered(folder)[:-count]:
        shutil.rmtree(path, ignore_errors=True)


def _free(path: Path) -> Path:
    """A path at which nothing is."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _of_writing(error: Exception) -> Exception:
    """The error, if it is one of writing: of a RuntimeError only that of torch's own writer, which does not say why.

    Raises:
        RuntimeError: it is another one.
    """
    if isinstance(error, RuntimeError) and not any(word in str(error) for word in ("PytorchStreamWriter", "iostream")):
        raise error
    return error


def _seal(manifest: dict[str, Any]) -> str:
    """A hash of a manifest's content."""
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=16).hexdigest()


def _hash(path: Path, *, flush: bool = False) -> str:
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _flush(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
