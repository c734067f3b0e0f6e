"""Layer dropping, sequence masks and width written a second time: from the docstrings, without numpy.

Layers are numbered from 1 where the papers do. Words come from `reference.plan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

from reference import plan as reference

PATHS, HEADS, NEURONS, SEQUENCES = 0, 4, 5, 6
PAIR = 2**32

Keep = Callable[[int, int, int, int], float]
"""From layer (counted from 1), number of layers, step and number of steps, the probability to be kept."""


def layerdrop(rate: float) -> Keep:
    """One probability for all."""
    return lambda layer, layers, step, steps: 1 - rate


def stochastic_depth(last: float) -> Keep:
    """Linear from 1 before the first layer to ``last`` at the last one."""
    return lambda layer, layers, step, steps: (layers - layer) / layers + layer / layers * last


def theta(step: int, limit: float, gamma: float) -> float:
    """PLD's theta(t)."""
    return limit + (1 - limit) * math.e ** (-gamma * step)


def pld(limit: float, gamma: float) -> Keep:
    """As in the paper."""
    return lambda layer, layers, step, steps: 1 - layer / layers + layer / layers * theta(step, limit, gamma)


def pld_deepspeed(limit: float, gamma: float) -> Keep:
    """As in the public implementation: every layer is kept as the paper would keep the one before it."""
    paper = pld(limit, gamma)
    return lambda layer, layers, step, steps: paper(layer - 1, layers, step, steps)


def by_sequence(rate: float) -> Keep:
    """Don't Drop Dropout; the paper counts layers from 0."""

    def keep(layer: int, layers: int, step: int, steps: int) -> float:
        depth = 0.0 if layers == 1 else (layer - 1) / (layers - 1)
        time = 1.0 if steps == 1 else (steps - 1 - step) / (steps - 1)
        return 1 - rate * depth * time

    return keep


def uniform(word: int) -> float:
    """A word as a number in [0, 1)."""
    return (word // 2**11) / 2**53


def path(
    keep: Keep, *, layers: int, steps: int, fixed: Sequence[int], seed: int, step: int, micro: int, stack: int
) -> list[int]:
    """The layers (from 0) that a step keeps."""
    words = reference.words(seed, PATHS, (step, micro, stack), layers)
    always = {layer % layers for layer in fixed}
    return [
        layer
        for layer in range(layers)
        if layer in always or uniform(words[layer]) < keep(layer + 1, layers, step, steps)
    ]


def kept_sequences(
    probability: float, *, batch: int, seed: int, step: int, micro: int, rank: int, stack: int, layer: int
) -> list[int]:
    """The sequences of a rank's batch that run through a layer; if there were none, the one with the smallest word."""
    words = reference.words(seed, SEQUENCES, (step, micro * PAIR + rank, stack * PAIR + layer), batch)
    chosen = [i for i in range(batch) if uniform(words[i]) < probability]
    return chosen or [min(range(batch), key=lambda i: words[i])]


def run_probability(probability: float, batch: int) -> float:
    """The probability of the first sequence to run, by all 2**batch outcomes of the draws."""
    total = 0.0
    for kept in product((False, True), repeat=batch):
        weight = math.prod(probability if one else 1 - probability for one in kept)
        total += weight * (1.0 if kept[0] else 0.0 if any(kept) else 1 / batch)
    return total


def units(
    purpose: int, *, share: str, count: int, seed: int, step: int, micro: int, stack: int, layer: int
) -> list[int]:
    """The heads or neurons of a layer that a share such as "75%" keeps: those with the smallest words."""
    (size,) = reference.sizes_of(share, [count])[0]
    words = reference.words(seed, purpose, (step, micro, stack * PAIR + layer), count)
    return sorted(sorted(range(count), key=lambda i: words[i])[:size])
