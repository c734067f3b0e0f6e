"""Documents -> texts that are encoded together: enough to be worth a call, never so long that memory fills.

A document of up to a million characters is one text. A longer one (a book, a line without an end) is cut into several
where a tokenizer cuts anyway: after a line's end, else before a space, in both cases between characters that are no
white space; and only where there is none in the last tenth, anywhere. Byte-level BPE, WordPiece, and Unigram over words
give the same tokens as for the whole; other kinds may give others for the word at a cut.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from raptr.data.encoding import Texts
from raptr.data.sources import SPLITS, Split

PIECE = 1_000_000
"""The longest text, in characters. The tokens that are stored depend on it."""

CHUNK = 1_000_000
"""Characters that are encoded together; tokens do not depend on it."""

_LINE = re.compile(r"(?<=\S)\n(?=\S)")
_WORD = re.compile(r"(?<=\S)(?= \S)")


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
                waiting[split], sizes[split] = Chunk([], [], split), 0
    yield from (chunk for chunk in waiting.values() if chunk.texts)


def pieces(document: str) -> Iterator[tuple[str, bool]]:
    """A document as texts of at most ``PIECE`` characters, each with whether it is the last one.

    Example:
        >>> list(pieces("short"))
        [('short', True)]
    """
    start = 0
    while len(document) - start > PIECE:
        stop = _cut(document, start + PIECE - PIECE // 10, start + PIECE)
        yield document[start:stop], False
        start = stop
    yield document[start:], True


def _cut(document: str, first: int, last: int) -> int:
    """The best place to cut between two places."""
    for pattern in (_LINE, _WORD):
        found = [match.end() for match in pattern.finditer(document, first, last)]
        if found:
            return found[-1]
    return last
