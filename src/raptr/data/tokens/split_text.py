"""Documents -> texts that are never so long that memory fills, nor a word in them so long that time does.

A document of up to a million characters is one text. A longer one (a book, a line without an end) is cut into several
where a tokenizer cuts anyway: after a line's end, else before a space, in both cases between characters that are no
white space; and only where there is none in the last tenth, anywhere. Byte-level BPE, WordPiece, and Unigram over words
give the same tokens as for the whole; other kinds may give others for the word at a cut.
"""

import re
from collections.abc import Iterator

PIECE = 1_000_000
"""The longest text, in characters. The tokens that are stored depend on it."""

_ENDLESS = re.compile(r"\S{1000}(?=\S)|\s{1000}(?=\s)")
_SPACES = re.compile(r"\s{1001}")
_LINE = re.compile(r"(?<=\S)\n(?=\S)")
_WORD = re.compile(r"(?<=\S)(?= \S)")


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


def in_words(text: str) -> Iterator[str]:
    """A text, cut in words (or white space) of more than 1000 characters after every 1000 of them.

    The time that a trainer takes for a word grows with the square of its length, and without a space a document is
    one word.

    Example:
        >>> [len(part) for part in in_words("x" * 1500 + " y")]
        [1000, 502]
    """
    start = 0
    if max(map(len, text.split()), default=0) > 1000 or _SPACES.search(text):
        for match in _ENDLESS.finditer(text):
            yield text[start : match.end()]
            start = match.end()
    yield text[start:]
