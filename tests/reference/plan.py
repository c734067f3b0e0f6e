"""RaPTr written a second time, slowly: exact fractions, Philox in Python's own integers, sorted lists.

Written from the docstrings of `Schedule`, `RaPTr` and `raptr.plan.rng` and from the paper of Philox
(Salmon et al., SC 2011), without numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

WORD = 2**64


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x64-10: the four words at a counter of four words, under a key of two."""
    a, b, c, d = counter
    left, right = key
    for _ in range(10):
        high_a, low_a = divmod(0xD2E7470EE14C6C93 * a, WORD)
        high_c, low_c = divmod(0xCA5A826395121157 * c, WORD)
        a, b, c, d = high_c ^ b ^ left, low_c, high_a ^ d ^ right, low_a
        left, right = (left + 0x9E3779B97F4A7C15) % WORD, (right + 0xBB67AE8584CAA73B) % WORD
    return [a, b, c, d]


def words(seed: int, purpose: int, place: Sequence[int], count: int) -> list[int]:
    """``count`` words at a place; blocks are numbered from 1, as numpy's stream does."""
    found: list[int] = []
    while len(found) < count:
        found += philox((len(found) // 4 + 1, *place), (seed, purpose))
    return found[:count]


def nearest(number: Fraction) -> int:
    """The nearest integer; a half goes up."""
    return (2 * number.numerator + number.denominator) // (2 * number.denominator)


def sizes_of(text: str, layers: Sequence[int]) -> list[tuple[int, ...]]:
    """The layer counts of each stage, one for each stack."""
    found = []
    for part in text.split("-"):
        if part.endswith("%"):
            found.append(tuple(max(1, nearest(Fraction(part[:-1]) * count / 100)) for count in layers))
        else:
            found.append(tuple(int(part) for _ in layers))
    return found


def stages_of(
    text: str, layers: Sequence[int], steps: int, lengths: str | Sequence[float] = "equal", warmup: int | float = 0
) -> list[tuple[int, int, tuple[int, ...]]]:
    """(start, stop, sizes) of each stage, the warm-up first; a stage may come out empty."""
    sizes = sizes_of(text, layers)
    if lengths == "equal":
        weights = [Fraction(1) for _ in sizes]
    elif lengths == "proportional":
        weights = [Fraction(number) for number in range(1, len(sizes) + 1)]
    else:
        weights = [Fraction(str(length)) for length in lengths]
    first = warmup if isinstance(warmup, int) else round(warmup * steps)
    found = [(0, first, tuple(layers))] if first else []
    done, start = Fraction(0), first
    for size, weight in zip(sizes, weights, strict=True):
        done += weight
        stop = first + nearest((steps - first) * done / sum(weights))
        found.append((start, stop, size))
        start = stop
    return found


def path(
    *,
    layers: int,
    size: int,
    fixed: Sequence[int],
    sampler: str,
    seed: int,
    step: int,
    micro: int = 0,
    stack: int = 0,
) -> list[int]:
    """The kept layers of one stack at one step."""
    if size == layers:
        return list(range(layers))
    always = {layer + layers if layer < 0 else layer for layer in fixed}
    free = [layer for layer in range(layers) if layer not in always]
    drawn = dict(zip(free, words(seed, 0, (step, micro, stack), len(free)), strict=True))
    wanted = size - len(always)
    if sampler == "fixed":
        kept = sorted(free, key=lambda layer: drawn[layer])[:wanted]
    else:
        kept = [layer for layer in free if (drawn[layer] // 2**11) / 2**53 < wanted / len(free)]
    return sorted([*always, *kept])
