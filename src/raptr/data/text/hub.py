"""Documents from the ``datasets`` library: the Hugging Face Hub, its builders of files, and saved datasets.

The library is imported where it is used, and code that comes with a dataset is never run.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raptr.config import SourceConfig
from raptr.config.data import BUILDERS
from raptr.data.text.fetched import Reader, Text, limited, spooled
from raptr.data.text.files import Files, find_files
from raptr.data.text.records import Choice, Document, Record, missing
from raptr.data.text.skipped import Omitted
from raptr.data.text.turns import in_turns
from raptr.errors import RaptrError
from raptr.messages import first_line

_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Unreadable(RaptrError):
    """Of a file or a whole dataset, not of a record."""


def open_dataset(source: SourceConfig, split: str, *, cache: Path, max_bytes: int | None, strict: bool) -> Text:
    """One split of a source's dataset, and what it is called, with its commit if it is one of the Hub's.

    What comes from the Hub, and what is read with ``streaming``, is fetched once and kept in ``cache``. It
    is found there again, without being fetched, where it is known to be the same: a dataset of the Hub by
    its commit, local files by their paths, sizes and times. Anything else is fetched at every call.

    Args:
        source: with ``dataset`` set.
        split: which of its splits.
        cache: where fetched text is kept.
        max_bytes: the limit on what is fetched, in bytes of the chosen text.
        strict: stop at the first bad record.

    Raises:
        RaptrError: no such dataset, split or column, or the Hub cannot be reached.
    """
    name, choice = str(source.dataset), Choice.of(source)
    folder = Path(name).expanduser()
    label = ", ".join(filter(None, (name, source.config, *source.files, split)))
    keep = partial(spooled, name, cache=cache, max_bytes=max_bytes, strict=strict)
    asked = source.model_dump(include={"dataset", "config", "files", "text", "filter", "min_chars", "max_chars"})
    read: Reader
    if name in BUILDERS:
        files = _local_files(source.files)
        text = limited(label, partial(_read_files, source, files, choice), files.files, max_bytes)
        if not source.streaming:
            return text
        known = [[str(path), *_state(path)] for _, path in files.files]
        turns = [] if text.whole is None else ["in turns"]
        return Text(label, keep(text.read, whole=text.whole, identity=[asked, known, *turns]))
    if _is_saved(folder):
        _refuse_options(source, "a folder written by save_to_disk", "config", "revision", "files", "streaming")
        return Text(label, partial(_read_saved, folder, split, choice))
    if folder.is_dir():
        _refuse_options(source, "a local folder", "revision")
        read = partial(_read_any, source, str(folder.absolute()), split, None, choice)
        return Text(label, keep(read, identity=None) if source.streaming else read)
    if folder.is_absolute() or name.startswith((".", "~")):
        raise RaptrError(f"dataset {name!r}: there is no such folder; {_EXPECTED}.")
    if name.isidentifier() and find_spec(f"datasets.packaged_modules.{name}") is not None:
        raise RaptrError(
            f"dataset {name!r} is a builder of the datasets library that raptr does not use, because it reads more "
            f"than text; {_EXPECTED}."
        )
    commit = _commit(name, source.revision)
    read = partial(_read_any, source, name, split, commit, choice)
    return Text(f"{label}, revision {commit}", keep(read, identity=[asked, split, commit]))


_EXPECTED = (
    f"give a name on the Hugging Face Hub, a folder (also one written by save_to_disk), or one of "
    f"{', '.join(BUILDERS)} with files"
)


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _refuse_options(source: SourceConfig, what: str, *keys: str) -> None:
    for key in keys:
        if getattr(source, key):
            raise RaptrError(f"dataset {source.dataset!r} is {what}; {key} has no effect on it, remove it.")


def _local_files(patterns: list[str]) -> Files:
    """Every file that any of the patterns meets, once."""
    found = [find_files(pattern, endings=("",)) for pattern in patterns]
    files = {path.absolute(): name for each in found for name, path in each.files}
    return Files(
        files=[(name, path) for path, name in files.items()],
        unread={path.absolute(): kind for each in found for path, kind in each.unread.items()},
        unreadable={path.absolute(): reason for each in found for path, reason in each.unreadable.items()},
    )


def _state(path: Path) -> tuple[int, int]:
    """A file's size and time; of one that cannot be looked at, nothing: reading it will tell."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read_files(
    source: SourceConfig, files: Files, choice: Choice, omitted: Omitted, limit: int | None
) -> Iterator[Document]:
    """File by file, so that a broken one does not end the reading of the others."""
    files.report(omitted)

    def read(name: str, path: Path) -> Iterator[Document]:
        try:
            rows = _load(str(source.dataset), data_files=[str(path)], split="train", streaming=source.streaming)
            yield from choice.documents(_records(name, str(path), rows, choice), omitted)
        except _Unreadable as error:
            omitted.skip("unreadable file", str(error))

    yield from in_turns(files.files, read, limit)


def _read_saved(folder: Path, split: str, choice: Choice, omitted: Omitted) -> Iterator[Document]:
    import datasets

    with _explained(f"dataset {str(folder)!r}"):
        rows: Any = datasets.load_from_disk(str(folder))
    if isinstance(rows, Mapping):
        if split not in rows:
            raise RaptrError(f"dataset {str(folder)!r} has no split {split!r}; it has {', '.join(map(repr, rows))}.")
        rows = rows[split]
    elif split != "train":
        raise RaptrError(f"dataset {str(folder)!r} has no splits, but split {split!r} was asked for; leave it out.")
    yield from choice.documents(_records(split, str(folder), rows, choice), omitted)


def _read_any(
    source: SourceConfig, where: str, split: str, commit: str | None, choice: Choice, omitted: Omitted
) -> Iterator[Document]:
    rows = _load(
        where,
        name=source.config,
        data_files=source.files or None,
        split=split,
        revision=commit,
        streaming=source.streaming,
    )
    yield from choice.documents(_records(split, f"{source.dataset}, {split}", rows, choice), omitted)


def _load(where: str, **options: Any) -> Any:
    import datasets
    from datasets.utils import logging

    files = options.get("data_files") if where in BUILDERS else None
    verbosity, bars = logging.get_verbosity(), datasets.are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)  # what is wrong is said once, below
    if files:
        datasets.disable_progress_bars()
    try:
        with _explained(f"dataset {where!r}" if files is None else files[0]):
            rows = datasets.load_dataset(where, **options)
    finally:
        logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
    return rows


def _records(name: str, place: str, rows: Any, choice: Choice) -> Iterator[Record]:
    """The rows of a dataset, of its columns only those that are used."""
    with _explained(place):
        known = rows.column_names or list(next(iter(rows), {}))  # of a stream they may only be seen in a row
        try:
            columns = choice.roots(known)
        except KeyError as error:
            raise _Unreadable(missing(place, error.args[0], known)) from error
        for number, row in enumerate(rows.select_columns(columns), start=1):
            yield Record(f"{name}:{number}", f"{place}, row {number}", row)


def _commit(name: str, revision: str | None) -> str:
    """The commit that a name and revision stand for on the Hub today."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    with _explained(f"dataset {name!r}", f"{_EXPECTED}; with the full commit hash as revision, no network is needed"):
        found = HfApi().dataset_info(name, revision=revision, timeout=20)
    return str(found.sha)


@contextmanager
def _explained(what: str, expected: str = "") -> Iterator[None]:
    """Whatever the library, the Hub's client or a broken file raise, as one line that says for what."""
    try:
        yield
    except RaptrError:
        raise
    except Exception as error:
        reasons = [_reason(error)]
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if _reason(cause) not in reasons[0]:
            reasons.append(_reason(cause))
        told = ": ".join(reasons)
        raise _Unreadable(f"{what} cannot be read: {told}." + (f" Here, {expected}." if expected else "")) from error


def _reason(error: BaseException) -> str:
    return first_line(error).rstrip(".:")
