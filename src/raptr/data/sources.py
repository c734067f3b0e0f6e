"""Where text comes from: documents, split into train and validation, without duplicates.

Nothing is held but one document and a hash of each one seen, so a corpus may be far larger than memory.
Everything is read in one fixed order, and read again from the start wherever it is needed.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from raptr.data.builtin import read_builtin
from raptr.data.files import find_files, read_files
from raptr.data.progress import progress
from raptr.errors import RaptrError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")
BUILTIN = "builtin:python"

_Raw = Callable[[], Iterator[tuple[str, bytes]]]
_ENOUGH = 10  # documents held out, on average, for whole documents to be a fair validation set


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a source holds.

    Attributes:
        documents: how many each split has.
        bytes: of text in UTF-8, for each split.
        duplicates: documents dropped because the same text came before.
        empty: documents dropped because they hold nothing but white space.
        undecodable: files of ``builtin:python`` dropped because they are not UTF-8.
    """

    documents: dict[Split, int]
    bytes: dict[Split, int]
    duplicates: int
    empty: int
    undecodable: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """Text that has been read once, counted and hashed, and can be read again.

    Attributes:
        name: as the user gave it.
        content_hash: hexadecimal, of every name and text used and of the split it is in.
        split: how validation text was held out, in words.
        counts: documents and bytes, and what was dropped.
    """

    name: str
    content_hash: str
    split: str
    counts: Counts
    _scan: Callable[["_Tally"], Iterator[tuple[Split, str]]] = field(repr=False)

    def read(self) -> Iterator[tuple[Split, str]]:
        """Every document once with its split, in the source's order.

        Raises:
            RaptrError: the text is not what it was when the source was opened.
        """
        tally = _Tally()
        yield from self._scan(tally)
        if tally.hash.hexdigest() != self.content_hash:
            raise RaptrError(
                f"{self.name}: the text has changed since it was opened; leave it as it is during the "
                "preparation, and start again."
            )

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of one split, in the source's order; a new iterator at each call."""
        return (text for where, text in self.read() if where == split)


@dataclass
class _Tally:
    """What one reading counts."""

    def __post_init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self.documents: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.bytes: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.duplicates = self.empty = self.undecodable = self.distinct = 0
        self.to_the_end = True

    def counts(self) -> Counts:
        return Counts(
            documents=self.documents,
            bytes=self.bytes,
            duplicates=self.duplicates,
            empty=self.empty,
            undecodable=self.undecodable,
        )


def open_source(
    spec: str,
    *,
    max_bytes: int | None = None,
    validation: str | None = None,
    validation_share: float = 0.02,
    text_field: str = "text",
) -> Source:
    """Read, count and hash a source of text.

    With ``validation`` that is the validation text, and ``spec`` without the documents it shares
    with it is the train text. Otherwise a document is held out if the hash of its text, as a number in
    [0, 1), is below ``validation_share``: its place does not matter, nor does ``max_bytes``. A source of
    so few documents that less than 10 of them would be expected there is split inside its documents:
    the last ``validation_share`` of the characters of each.

    Of several documents with the same text, the first is used. ``max_bytes`` is divided between the
    splits as ``validation_share`` says (a ``validation`` of its own does not count); each takes its
    documents in order until it is full, and its last one is cut.

    Args:
        spec: "builtin:python", or the path of a file or folder of .txt and .jsonl, also as .xz or .gz.
        max_bytes: the limit on the text, in bytes of UTF-8; None for all of it.
        validation: a second spec, for the validation text.
        validation_share: in (0, 0.5].
        text_field: the field of a .jsonl line that holds the text.

    Returns:
        The source. Opening it reads all that will be used once.

    Raises:
        RaptrError: a source that is missing, empty or cannot be read, or an option out of its range.

    Example:
        >>> source = open_source("builtin:python", max_bytes=100_000)
        >>> source.counts.bytes["validation"]
        2000
    """
    if not 0 < validation_share <= 0.5:
        raise RaptrError(f"validation_share is {validation_share}; expected above 0 and at most 0.5, like 0.02.")
    if max_bytes is not None and max_bytes < 1:
        raise RaptrError(f"max_bytes is {max_bytes}; expected at least 1, or none for all of the text.")
    raw = _raw(spec, text_field)
    if validation is not None:
        scan = partial(_scan_apart, raw, _raw(validation, text_field), max_bytes)
        return _opened(spec, f"validation from {validation}", scan, max_bytes)
    rooms = _rooms(max_bytes, validation_share)
    scan = partial(_scan_split, raw, partial(_by_hash, validation_share), rooms)
    source, tally = _tallied(spec, "whole documents, by the hash of their text", scan, max_bytes)
    if tally.to_the_end and tally.distinct * validation_share < _ENOUGH:
        scan = partial(_scan_split, raw, partial(_by_end, validation_share), rooms)
        source, _ = _tallied(spec, "the end of every document (there are few)", scan, max_bytes)
    return _not_empty(source)


def _raw(spec: str, text_field: str) -> _Raw:
    if spec == BUILTIN:
        return read_builtin
    if spec.startswith("builtin:"):
        raise RaptrError(f"source {spec!r} does not exist; the only one of this kind is {BUILTIN!r}.")
    find_files(spec)  # refuses a path that cannot be read before anything is
    return partial(read_files, spec, text_field)


def _opened(name: str, split: str, scan: Callable[[_Tally], Iterator[tuple[Split, str]]], size: int | None) -> Source:
    return _not_empty(_tallied(name, split, scan, size)[0])


def _tallied(
    name: str, split: str, scan: Callable[[_Tally], Iterator[tuple[Split, str]]], size: int | None
) -> tuple[Source, _Tally]:
    tally = _Tally()
    with progress("Reading text", size) as advance:
        for _, text in scan(tally):
            advance(len(text))
    content_hash = tally.hash.hexdigest()
    return Source(name=name, content_hash=content_hash, split=split, counts=tally.counts(), _scan=scan), tally


def _not_empty(source: Source) -> Source:
    for split in SPLITS:
        if not source.counts.documents[split]:
            raise RaptrError(
                f"{source.name}: there is no {split} text (dropped: {source.counts.empty} empty documents, "
                f"{source.counts.duplicates} duplicates, {source.counts.undecodable} not UTF-8); "
                "give more text, or validation text of its own."
            )
    return source


def _rooms(max_bytes: int | None, share: float) -> dict[Split, int | None]:
    if max_bytes is None:
        return {"train": None, "validation": None}
    held_out = round(max_bytes * share)
    return {"train": max_bytes - held_out, "validation": held_out}


def _by_hash(share: float, digest: bytes, text: str) -> Iterator[tuple[Split, str]]:
    held_out = int.from_bytes(digest[:8], "big") * 2.0**-64 < share
    yield "validation" if held_out else "train", text


def _by_end(share: float, digest: bytes, text: str) -> Iterator[tuple[Split, str]]:
    cut = len(text) - round(len(text) * share)
    yield "train", text[:cut]
    yield "validation", text[cut:]


def _all_to(split: Split, digest: bytes, text: str) -> Iterator[tuple[Split, str]]:
    yield split, text


def _scan_split(
    raw: _Raw,
    rule: Callable[[bytes, str], Iterator[tuple[Split, str]]],
    rooms: dict[Split, int | None],
    tally: _Tally,
    seen: set[bytes] | None = None,
) -> Iterator[tuple[Split, str]]:
    """Documents that are neither empty nor seen, split by the rule, until the rooms are full."""
    seen = set() if seen is None else seen
    room = dict(rooms)
    for name, content in raw():
        if all(left == 0 for left in room.values()):
            tally.to_the_end = False
            return
        if not content.strip():
            tally.empty += 1
            continue
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest in seen:
            tally.duplicates += 1
            continue
        seen.add(digest)
        try:
            text = content.decode("utf8")
        except UnicodeDecodeError:
            tally.undecodable += 1
            continue
        tally.distinct += 1
        for split, part in rule(digest, text):
            used, size = _fitting(part, room[split])
            if used:
                left = room[split]
                room[split] = None if left is None else left - size if used == part else 0
                tally.documents[split] += 1
                tally.bytes[split] += size
                tally.hash.update(f"{split}\0{name}\0{size}\0".encode("utf8", "surrogateescape"))
                tally.hash.update(used.encode("utf8"))
                yield split, used


def _fitting(text: str, room: int | None) -> tuple[str, int]:
    """As much of the text, from its start, as fits into so many bytes; and its size."""
    content = text.encode("utf8")
    if room is None or len(content) <= room:
        return text, len(content)
    used = content[:room].decode("utf8", errors="ignore")
    return used, len(used.encode("utf8"))


def _scan_apart(raw: _Raw, held_out: _Raw, max_bytes: int | None, tally: _Tally) -> Iterator[tuple[Split, str]]:
    """Validation text first, so that train documents that are in it too are dropped as duplicates."""
    seen: set[bytes] = set()
    yield from _scan_split(held_out, partial(_all_to, "validation"), {"validation": None}, tally, seen)
    yield from _scan_split(raw, partial(_all_to, "train"), {"train": max_bytes}, tally, seen)
