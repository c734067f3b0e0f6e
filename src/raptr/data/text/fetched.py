"""Text that is costly to get is kept on disk when it is first read, and read from there ever after.

    cache/text-<key>/  text.jsonl.zst  description.json

Tokens need three readings: to count and hash, to train the tokenizer, to tokenize. A spool holds the
documents that were chosen, and what was left out on the way.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from raptr.data.atomic_folder import write_named
from raptr.data.progress import progress
from raptr.data.text.lines import open_packed
from raptr.data.text.records import Document
from raptr.data.text.skipped import Omitted
from raptr.data.text.turns import size_of
from raptr.errors import RaptrError

Reader = Callable[[Omitted], Iterator[Document]]
"""Reads documents from the start, and tells what was left out."""


class Text(NamedTuple):
    """What a text is called, and its reader; and that which gives it in the order of no limit, if they differ."""

    name: str
    read: Reader
    whole: Reader | None = None


def limited(
    name: str,
    read: Callable[[Omitted, int | None], Iterator[Document]],
    files: list[tuple[str, Path]],
    limit: int | None,
) -> Text:
    """A text of files whose reader takes a limit: several are read in turns, if the limit may leave something out."""
    whole = partial(_with_limit, read, None)
    if limit is None or len(files) < 2:
        return Text(name, whole)
    if all(file.endswith(_PLAIN) for file, _ in files) and sum(size_of(path) for _, path in files) <= limit:
        return Text(name, whole)
    return Text(name, partial(_with_limit, read, limit), whole)


_PLAIN = (".txt", ".jsonl", ".json", ".csv")
"""Endings of files that are no smaller than their text."""


def _with_limit(
    read: Callable[[Omitted, int | None], Iterator[Document]], limit: int | None, omitted: Omitted
) -> Iterator[Document]:
    return read(omitted, limit)


def spooled(
    name: str,
    read: Reader,
    *,
    cache: Path,
    identity: Any,
    max_bytes: int | None,
    strict: bool,
    whole: Reader | None = None,
) -> Reader:
    """Read a source once, and give a reader of what was kept.

    Args:
        name: of the source, for messages.
        read: the costly reader; called at most once.
        cache: the folder of all spools.
        identity: JSON data that decides what ``read`` would give: with it, a spool that is there is used and
            nothing is read. None if that is not known: then it is read now.
        max_bytes: reading ends with the document that reaches this many bytes; None to read all.
        strict: stop at the first bad record.
        whole: reads the same documents in the order of no limit; what it gives is kept if ``max_bytes`` is not reached.

    Raises:
        RaptrError: more than a tenth is bad, or ``strict`` and something is.
    """
    folder = None if identity is None else Path(cache).expanduser() / spool_name(identity, max_bytes)
    if folder is None or not folder.exists():
        folder = write_named(
            Path(cache).expanduser(),
            lambda partial: _write(partial, name, (read, whole), folder, max_bytes, strict, identity),
        )
    return lambda omitted: _read(folder, omitted)


def spool_name(identity: Any, max_bytes: int | None) -> str:
    """The folder's name for an identity."""
    return f"text-{_hash(json.dumps([identity, max_bytes], sort_keys=True).encode('utf8'))}"


def _write(
    partial: Path,
    name: str,
    readers: tuple[Reader, Reader | None],
    folder: Path | None,
    max_bytes: int | None,
    strict: bool,
    identity: Any,
) -> str:
    read, whole = readers
    omitted, content, size = _fill(partial, name, read, max_bytes, strict)
    if whole is not None and max_bytes is not None and size < max_bytes:
        omitted, content, size = _fill(partial, name, whole, max_bytes, strict)
    omitted.check(name)
    description = {
        "source": name,
        "identity": identity,
        "bytes": size,
        "records": omitted.records,
        "filtered": omitted.filtered,
        "bad": dict(omitted.bad),
        "first": omitted.first,
        "unread": omitted.unread,
    }
    (partial / "description.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf8")
    return f"text-{content}" if folder is None else folder.name


def _fill(partial: Path, name: str, read: Reader, max_bytes: int | None, strict: bool) -> tuple[Omitted, str, int]:
    """Write documents until there are enough, and return what was left out, a hash of them, and their bytes."""
    import pyarrow

    omitted = Omitted(strict=strict)
    content, size = hashlib.blake2b(digest_size=12), 0
    with (
        pyarrow.output_stream(str(partial / "text.jsonl.zst"), compression="zstd") as file,
        progress(f"Fetching {name}", max_bytes) as advance,
    ):
        for document, text in read(omitted):
            line = json.dumps({"name": document, "text": text.decode("utf8")}).encode("utf8") + b"\n"
            file.write(line)
            content.update(line)
            size += len(text)
            advance(len(text))
            if max_bytes is not None and size >= max_bytes:
                break
    return omitted, content.hexdigest(), size


def _read(folder: Path, omitted: Omitted) -> Iterator[Document]:
    try:
        told = json.loads((folder / "description.json").read_text(encoding="utf8"))
        counted = Omitted(
            records=told["records"],
            filtered=told["filtered"],
            bad=Counter(told["bad"]),
            first=told["first"],
            unread=Counter(told.get("unread", {})),
        )
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(folder, error) from error
    omitted.add(counted)
    try:
        with open_packed(folder / "text.jsonl.zst") as file:
            for line in file:
                row = json.loads(line)
                yield row["name"], row["text"].encode("utf8")
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> RaptrError:
    return RaptrError(f"fetched text {str(folder)!r} is damaged ({error}); delete that folder.")


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
