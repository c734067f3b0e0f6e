"""A sample of a text from all over it: the same of the same files, wherever they lie and in whatever order.

The beginning of a text is not a sample of it: of three files, one for each language, it may be all of one language.
"""

import hashlib
import heapq
from collections.abc import Iterator

from raptr.data.text.sources import Source

PASSAGE = 10_000
"""Characters of a long document that are drawn together."""


def draw(source: Source, size: int) -> Iterator[str]:
    """Draw exactly so many bytes of a source's train text, if it has as many.

    Passages of up to `PASSAGE` characters are ranked by a hash of the document's name (its file below the source's
    path, and the line or row) and of their place in it. Those with the smallest hashes are taken, and the one with
    the largest of these is cut.
    The text is read once; no more than the sample is held.

    Args:
        source: the text.
        size: bytes of UTF-8.

    Returns:
        The passages, in the source's order.
    """
    taken: list[tuple[int, int, bytes]] = []  # a heap: the largest hash is first, and of equal ones the last passage
    total = 0
    for place, (rank, content) in enumerate(_passages(source)):
        if total >= size and -rank <= taken[0][0]:
            continue
        heapq.heappush(taken, (-rank, -place, content))
        total += len(content)
        while total - len(taken[0][2]) >= size:
            total -= len(heapq.heappop(taken)[2])
    if not taken:
        return
    rank, place, content = heapq.heappop(taken)
    taken.append((rank, place, content[: len(content) - max(0, total - size)]))
    for _, _, content in sorted(taken, key=lambda passage: -passage[1]):
        yield content.decode("utf8", errors="ignore")


def _passages(source: Source) -> Iterator[tuple[int, bytes]]:
    """Every passage of the train text with its rank."""
    for split, name, text in source.named():
        if split == "train":
            for start in range(0, len(text), PASSAGE):
                place = f"{name}\0{start}".encode("utf8", "surrogateescape")
                rank = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "big")
                yield rank, text[start : start + PASSAGE].encode("utf8")
