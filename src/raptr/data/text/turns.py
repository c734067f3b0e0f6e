"""Documents of several files in turns, so that the first bytes of them are of every file in proportion to its size.

In the order of their names, the first bytes of three files, one for each language, may be all of one language.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

from raptr.data.text.records import Document

TURNS = 64
"""Turns that a limit is divided into."""

PASSAGE = 10_000
"""Bytes of a long document that stay together, at least."""


_MORE = 1.01
"""What a long document gives of its share, so that the limit is reached."""


def in_turns(
    files: list[tuple[str, Path]], read: Callable[[str, Path], Iterator[Document]], limit: int | None
) -> Iterator[Document]:
    """The documents of files: one file after the other, or in turns if less than all of their text may be used.

    A turn is as many documents of one file as make a 64th of the limit. The k-th turn of a file of s bytes comes at
    the time (k + u) limit / (64 s), or u if it is read in one turn, with u in [0, 1) by a hash of its name. So
    at every time about the same share of each file was read, of small files that share of their number; and no more
    files are opened than are needed. The order depends on the names and sizes of the files only.

    A document that is a file by itself and longer than a turn gives no more than its share, in passages from all over
    it: of three long texts, one would be more than the limit.

    Args:
        files: relative names and paths.
        read: gives the documents of one.
        limit: bytes of text that will be used, about; None for all.
    """
    sizes = {name: size_of(path) for name, path in files}
    total = sum(sizes.values())
    if limit is None or len(files) == 1 or not total:
        for name, path in files:
            yield from read(name, path)
        return
    turn = max(1, limit // TURNS)
    waiting = [(_at(name) * min(1.0, turn / max(1, sizes[name])), name, path) for name, path in files]
    heapq.heapify(waiting)
    begun: dict[str, Iterator[Document]] = {}
    while waiting:
        time, name, path = heapq.heappop(waiting)
        documents = begun.pop(name, None) or read(name, path)
        used = 0
        for document, content in documents:
            share = limit * sizes[name] / (total * max(1, len(content)))  # of all text, if it is packed alike
            if document == name and share < 1 and len(content) > turn:
                content = _passages(name, content, max(turn, int(_MORE * share * len(content))))
            yield document, content
            used += len(content)
            if used >= turn:
                begun[name] = documents
                heapq.heappush(waiting, (time + used / max(1, sizes[name]), name, path))
                break


def size_of(path: Path) -> int:
    """Return a file's size; of one that cannot be looked at, 0: reading it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _at(name: str) -> float:
    """A number in [0, 1) of a name."""
    digest = hashlib.blake2b(name.encode("utf8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") * 2.0**-64


def _passages(name: str, content: bytes, size: int) -> bytes:
    """About so many bytes of a text, in passages from all over it, joined by ends of lines."""
    length = max(PASSAGE, size // TURNS)
    ranked = sorted(range(0, len(content), length), key=lambda start: _at(f"{name}\0{start}"))[: -(-size // length)]
    stops = {start: start + length for start in ranked[:-1]} | {
        ranked[-1]: ranked[-1] + size - (len(ranked) - 1) * length
    }
    cut = (content[start : stops[start]].decode("utf8", errors="ignore") for start in sorted(ranked))
    return "\n".join(cut).encode("utf8")
