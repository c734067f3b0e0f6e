"""What of a store is finished, so that an interrupted preparation goes on where it was.

    train.bin  validation.bin  tokenizer/  parts.jsonl

A part is a chunk of texts: as many as are worth a call of the tokenizer. Its tokens are on the disk before its line in
``parts.jsonl`` is written; what has no line is cut off when a preparation goes on. A line holds a hash of the part's
texts: a part of other texts is not taken.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from raptr.data.text.sources import SPLITS, Split
from raptr.data.tokens.encode_pool import Texts
from raptr.data.tokens.split_text import pieces

_JOURNAL = "parts.jsonl"

CHUNK = 1_000_000
"""Characters that are encoded together; tokens do not depend on it."""


@dataclass(frozen=True)
class Chunk(Texts):
    """Texts of one split."""

    split: Split


def chunks(documents: Iterable[tuple[Split, str]]) -> Iterator[Chunk]:
    """Documents of one split together; their order is kept within it."""
    waiting = {split: Chunk([], [], split) for split in SPLITS}
    sizes: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for split, document in documents:
        for text, ends in pieces(document):
            waiting[split].texts.append(text)
            waiting[split].ends.append(ends)
            sizes[split] += len(text) + 1
            if sizes[split] >= CHUNK:
                yield waiting[split]
                waiting[split], sizes[split] = Chunk([], [], split, inside=not ends), 0
    yield from (chunk for chunk in waiting.values() if chunk.texts)


@dataclass(frozen=True)
class Part:
    """A finished part: its split, a hash of its texts, how many tokens it has and how many bytes its texts."""

    split: Split
    texts: str
    tokens: int
    bytes: int


def measured(chunk: Chunk) -> Part:
    """The part that a chunk becomes, but for the number of its tokens."""
    content = hashlib.blake2b(digest_size=16)
    size = 0
    for text, ends in zip(chunk.texts, chunk.ends, strict=True):
        encoded = text.encode("utf8")
        size += len(encoded)
        content.update(f"{len(encoded)} {ends:d}\0".encode())
        content.update(encoded)
    return Part(chunk.split, content.hexdigest(), 0, size)


class Parts:
    """The parts of a store that is being written; made by `opened`."""

    def __init__(self, folder: Path, done: list[Part], files: dict[Split, BinaryIO], journal: BinaryIO) -> None:
        self.folder, self.done = folder, done
        self._files, self._journal = files, journal

    def add(self, part: Part, tokens: npt.NDArray[np.unsignedinteger]) -> None:
        """Write a part's tokens, and then that they are there."""
        _on_disk(self._files[part.split], tokens.tobytes())
        _on_disk(self._journal, json.dumps(asdict(part)).encode("utf8") + b"\n")
        self.done.append(part)

    def tokens(self) -> dict[Split, int]:
        """How many tokens there are of each split."""
        return {split: sum(part.tokens for part in self.done if part.split == split) for split in SPLITS}

    def forget(self) -> None:
        """Begin again."""
        for file in (*self._files.values(), self._journal):
            file.truncate(0)
        self.done.clear()


@contextmanager
def opened(folder: Path, itemsize: int) -> Iterator[Parts]:
    """The parts that are whole in a folder; what is behind them is cut off.

    Args:
        folder: being written, by nobody else.
        itemsize: bytes of a token.
    """
    sizes: dict[Split, int] = {split: _size(bin_path(folder, split)) for split in SPLITS}
    done, used, kept = [], dict.fromkeys(SPLITS, 0), 0
    for line, part in _lines(folder / _JOURNAL):
        if used[part.split] + part.tokens * itemsize > sizes[part.split]:
            break
        used[part.split] += part.tokens * itemsize
        kept += len(line)
        done.append(part)
    files = {split: bin_path(folder, split).open("ab") for split in SPLITS}
    journal = (folder / _JOURNAL).open("ab")
    try:
        for split in SPLITS:
            files[split].truncate(used[split])
        journal.truncate(kept)
        yield Parts(folder, done, dict(files), journal)
    finally:
        for file in (*files.values(), journal):
            file.close()


def close(folder: Path) -> None:
    """Forget how a folder came about: it is whole."""
    (folder / _JOURNAL).unlink()


def bin_path(folder: Path, split: Split) -> Path:
    """The file with the tokens of a split."""
    return folder / f"{split}.bin"


def _lines(path: Path) -> Iterator[tuple[bytes, Part]]:
    """The lines of a journal, up to the first one that is not whole."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                part = Part(**json.loads(line))
            except (ValueError, TypeError):
                return
            if not line.endswith(b"\n"):
                return
            yield line, part


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _on_disk(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
