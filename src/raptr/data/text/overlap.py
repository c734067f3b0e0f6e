"""Documents that one source trains on and another is validated on: its losses are better than they should be.

Each source keeps its own train text free of its own validation text; between sources nothing is dropped, so that
the tokens of one do not depend on the others. What there is in common is counted, and said.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from rich.console import Console

from raptr.data.text.sources import DIGEST, Source

Shared = dict[str, dict[str, int]]
"""By validation source and train source, how many documents they share."""


def shared_documents(sources: Mapping[str, Source], weights: Mapping[str, float] | None) -> Shared:
    """Count the train documents of each source that are validation documents of another, with the same text.

    Args:
        sources: by name, all of them opened.
        weights: each one's share of the training; what has none is not trained on.
    """
    held_out: dict[bytes, list[str]] = {}
    for name, source in sources.items():
        for digest in _each(source.digests["validation"]):
            held_out.setdefault(digest, []).append(name)
    counts: dict[str, Counter[str]] = {name: Counter() for name in sources}
    for name, source in sources.items():
        if weights is None or weights[name] > 0:
            for digest in _each(source.digests["train"]):
                for other in held_out.get(digest, ()):
                    counts[other][name] += other != name
    return {name: dict(+count) for name, count in counts.items() if +count}


def said_of(shared: Shared) -> list[str]:
    """A sentence for each pair of sources."""
    return [
        f"{train}: {count:,} {'document' if count == 1 else 'documents'} that are trained on are validation text of "
        f"{validation}, whose loss is better than it should be. Take them out of one of the two."
        for validation, counts in shared.items()
        for train, count in counts.items()
    ]


def report(shared: Shared) -> None:
    """Say on stderr what is shared, if anything is."""
    for text in said_of(shared):
        Console(stderr=True).print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _each(digests: bytes) -> Iterator[bytes]:
    return (digests[start : start + DIGEST] for start in range(0, len(digests), DIGEST))
