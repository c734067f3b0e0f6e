"""Documents -> texts that are encoded together: enough to be worth a call, and a part of what is finished."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from raptr.data.text.sources import SPLITS, Split
from raptr.data.tokens.encode_pool import Texts
from raptr.data.tokens.split_text import pieces

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
                waiting[split], sizes[split] = Chunk([], [], split), 0
    yield from (chunk for chunk in waiting.values() if chunk.texts)
