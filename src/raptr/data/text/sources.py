"""Where text comes from: documents, split into train and validation, without duplicates.

Nothing is held but one document and a hash of each one seen, so a corpus may be far larger than memory.
Everything is read in one fixed order, and read again from the start wherever it is needed.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from raptr.config import SourceConfig
from raptr.config.data import BUILTIN
from raptr.data.progress import progress
from raptr.data.text.builtin import read_builtin
from raptr.data.text.fetched import Reader, Text, limited
from raptr.data.text.files import find_files, read_files
from raptr.data.text.hub import open_dataset
from raptr.data.text.records import Choice
from raptr.data.text.skipped import Omitted
from raptr.errors import RaptrError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")

DIGEST = 16
"""Bytes of the hash that stands for a document's text."""

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
        omitted: bad records, and those left out by rules.
    """

    documents: dict[Split, int]
    bytes: dict[Split, int]
    duplicates: int
    empty: int
    undecodable: int
    omitted: Omitted


@dataclass(frozen=True, kw_only=True)
class Source:
    """Text that has been read once, counted and hashed, and can be read again.

    Attributes:
        name: as the user gave it.
        content_hash: hexadecimal, of every name and text used and of the split it is in.
        split: how validation text was held out, in words.
        counts: documents and bytes, and what was dropped.
        digests: of each split, the hashes of the documents that it has, or has a part of, one after the other.
    """

    name: str
    content_hash: str
    split: str
    counts: Counts
    digests: dict[Split, bytes] = field(repr=False)
    _scan: "_Scan" = field(repr=False)

    def read(self) -> Iterator[tuple[Split, str]]:
        """Every document once with its split, in the source's order.

        Raises:
            RaptrError: the text is not what it was when the source was opened.
        """
        return ((split, text) for split, _, text in self.named())

    def named(self) -> Iterator[tuple[Split, str, str]]:
        """The same with the name of each document between the two: its file below the source's path, and its place.

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

    strict: bool = False

    def __post_init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self.documents: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.bytes: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.digests: dict[Split, bytearray] = {split: bytearray() for split in SPLITS}
        self.duplicates = self.empty = self.undecodable = self.distinct = 0
        self.omitted = Omitted(strict=self.strict)
        self.to_the_end = True
        self.left_out = False

    def counts(self) -> Counts:
        return Counts(
            documents=self.documents,
            bytes=self.bytes,
            duplicates=self.duplicates,
            empty=self.empty,
            undecodable=self.undecodable,
            omitted=self.omitted,
        )


_Scan = Callable[[_Tally], Iterator[tuple[Split, str, str]]]
"""One reading: the split, name and text of every document that is used."""


def open_source(source: SourceConfig, *, name: str = "data", cache: Path, strict: bool = False) -> Source:
    """Read, count and hash a source of text.

    With validation text of its own (``validation``, ``validation_split``), the train text is the source
    without the documents it shares with that. Otherwise a document is held out if the hash of its text,
    as a number in [0, 1), is below ``validation_share``: its place does not matter, nor does ``max_bytes``.
    A source of so few documents that less than 10 of them would be expected there is split inside its
    documents: the last ``validation_share`` of the characters of each.

    Of several documents with the same text, the first is used. ``max_bytes`` is divided between the
    splits as ``validation_share`` says (validation text of its own does not count); each takes its
    documents in order until it is full, and its last one is cut. If that leaves out text of several files, their
    documents come in turns, see `raptr.data.text.turns.in_turns`; else in the order of the names.

    Args:
        source: where the text is and what of it is used.
        name: of the source, for messages.
        cache: the folder where text that is fetched is kept.
        strict: stop at the first bad file or record. Otherwise they are skipped, and reported on stderr.

    Returns:
        The source. Opening it reads all that will be used once.

    Raises:
        RaptrError: a source that is missing, empty or cannot be read, or of which more than a tenth is bad.

    Example:
        >>> text = open_source(SourceConfig(path="builtin:python", max_bytes=100_000), cache=Path("unused"))
        >>> text.counts.bytes["validation"]
        2000
    """
    text, held_out = _open(source, cache, strict)
    opened, tally = _opened(source, name, text, held_out, strict)
    if text.whole is not None and not tally.left_out:  # all of it fits: then the order is that of no limit
        ordered, tally = _opened(source, name, text._replace(read=text.whole), held_out, strict)
        opened = opened if tally.left_out else ordered
    return _whole(opened, name)


def _opened(
    source: SourceConfig, name: str, text: Text, held_out: Text | None, strict: bool
) -> tuple[Source, "_Tally"]:
    size, share = source.max_bytes, source.validation_share
    if held_out is not None:
        scan = partial(_scan_apart, text.read, held_out.read, size)
        return _tallied(name, text.name, f"validation from {held_out.name}", scan, size, strict)
    rooms = _rooms(size, share)
    scan = partial(_scan_split, text.read, partial(_by_hash, share), rooms)
    opened, tally = _tallied(name, text.name, "whole documents, by the hash of their text", scan, size, strict)
    if tally.to_the_end and tally.distinct * share < _ENOUGH:
        scan = partial(_scan_split, text.read, partial(_by_end, share), rooms)
        opened, tally = _tallied(name, text.name, "the end of every document (there are few)", scan, size, strict)
    return opened, tally


def _open(source: SourceConfig, cache: Path, strict: bool) -> tuple[Text, Text | None]:
    """The text of a source, and its validation text if it has some of its own."""
    text = (
        _of_path(str(source.path), source, source.max_bytes)
        if source.dataset is None
        else open_dataset(source, source.split, cache=cache, max_bytes=source.max_bytes, strict=strict)
    )
    if source.validation is not None:
        return text, _of_path(source.validation, source, None)
    if source.validation_split is not None:
        split = source.validation_split
        return text, open_dataset(source, split, cache=cache, max_bytes=None, strict=strict)
    return text, None


def _of_path(path: str, source: SourceConfig, limit: int | None) -> Text:
    if path == BUILTIN:
        return Text(path, lambda omitted: read_builtin())
    if path.startswith("builtin:"):
        raise RaptrError(f"source {path!r} does not exist; the only one of this kind is {BUILTIN!r}.")
    files = find_files(path).files  # refuses a path that cannot be read before anything is
    choice = Choice.of(source)
    return limited(path, lambda omitted, limit: read_files(path, choice, omitted, limit), files, limit)


def _tallied(
    name: str,
    text: str,
    split: str,
    scan: _Scan,
    size: int | None,
    strict: bool,
) -> tuple[Source, _Tally]:
    tally = _Tally(strict)
    with progress(f"Reading {name}", size) as advance:
        for *_, part in scan(tally):
            advance(len(part))
    content_hash = tally.hash.hexdigest()
    digests = {split: bytes(all_of_it) for split, all_of_it in tally.digests.items()}
    opened = Source(
        name=text, content_hash=content_hash, split=split, counts=tally.counts(), digests=digests, _scan=scan
    )
    return opened, tally


def _whole(source: Source, name: str) -> Source:
    """Report what is bad; refuse a source that is bad or empty."""
    counts, omitted = source.counts, source.counts.omitted
    omitted.check(name)
    omitted.report(name)
    for split in SPLITS:
        if not counts.documents[split]:
            raise RaptrError(
                f"{source.name}: there is no {split} text (dropped: {counts.empty} empty documents, "
                f"{counts.duplicates} duplicates, {counts.undecodable} not UTF-8, {omitted.filtered} by rules, "
                f"{omitted.bad.total()} bad); give more text, or validation text of its own."
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
    read: Reader,
    rule: Callable[[bytes, str], Iterator[tuple[Split, str]]],
    rooms: dict[Split, int | None],
    tally: _Tally,
    seen: set[bytes] | None = None,
) -> Iterator[tuple[Split, str, str]]:
    """Documents that are neither empty nor seen, split by the rule, until the rooms are full."""
    seen = set() if seen is None else seen
    room = dict(rooms)
    for name, content in read(tally.omitted):
        if all(left == 0 for left in room.values()):
            tally.to_the_end, tally.left_out = False, True
            return
        if not content.strip():
            tally.empty += 1
            continue
        digest = hashlib.blake2b(content, digest_size=DIGEST).digest()
        if digest in seen:
            tally.duplicates += 1
            continue
        seen.add(digest)
        try:
            text = content.decode("utf8")
        except UnicodeDecodeError:
            tally.undecodable += 1
            continue
        del content
        tally.distinct += 1
        for split, part in rule(digest, text):
            used, size = _fitting(part, room[split])
            tally.left_out |= used != part
            if used:
                left = room[split]
                room[split] = None if left is None else left - size if used == part else 0
                tally.documents[split] += 1
                tally.digests[split] += digest
                tally.bytes[split] += size
                tally.hash.update(f"{split}\0{name}\0{size}\0".encode("utf8", "surrogateescape"))
                tally.hash.update(used.encode("utf8"))
                yield split, name, used


def _fitting(text: str, room: int | None) -> tuple[str, int]:
    """As much of the text, from its start, as fits into so many bytes; and its size."""
    content = text.encode("utf8")
    if room is None or len(content) <= room:
        return text, len(content)
    used = content[:room].decode("utf8", errors="ignore")
    return used, len(used.encode("utf8"))


def _scan_apart(
    train: Reader, held_out: Reader, max_bytes: int | None, tally: _Tally
) -> Iterator[tuple[Split, str, str]]:
    """Validation text first, so that train documents that are in it too are dropped as duplicates."""
    seen: set[bytes] = set()
    yield from _scan_split(held_out, partial(_all_to, "validation"), {"validation": None}, tally, seen)
    yield from _scan_split(train, partial(_all_to, "train"), {"train": max_bytes}, tally, seen)
