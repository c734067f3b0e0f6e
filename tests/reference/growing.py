"""Growth written a second time: small models that really grow, as lists of layers into which copies are put.

Written from the docstrings of the methods and their papers, without a look at the plans. A layer is what has happened
to it: a history, of its parameters and of its optimizer state. A copy has the same history; training adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Layer:
    """The histories of a layer's parameters and of its optimizer state; "" is none."""

    parameters: str
    state: str = ""

    def trained(self, mark: str) -> Layer:
        """The layer after some steps."""
        return Layer(f"{self.parameters} {mark}", f"{self.state} {mark}")


def train(model: Sequence[Layer], stage: int) -> list[Layer]:
    """Every layer of a small model after a stage, in which each place sees something else."""
    return [layer.trained(f"stage{stage}@{place}") for place, layer in enumerate(model)]


Again = Callable[[Layer], Layer]
"""What is put in for a layer that is copied."""

Grow = Callable[[list[Layer], int, Again], list[Layer]]
"""A small model, made into one of so many layers."""


def on_top(model: list[Layer], size: int, again: Again) -> list[Layer]:
    """Gradual stacking: the last block again, on top."""
    block = size - len(model)
    return [*model, *map(again, model[len(model) - block :])]


def whole(model: list[Layer], size: int, again: Again) -> list[Layer]:
    """Progressive stacking and G_stack: the whole model again, until it is deep enough."""
    bigger = list(model)
    while len(bigger) < size:
        bigger.extend(map(again, model))
    assert len(bigger) == size
    return bigger


def in_the_middle(model: list[Layer], size: int, again: Again) -> list[Layer]:
    """MIDAS: the middle block again, right behind it."""
    block = size - len(model)
    if len(model) % block:
        first = (len(model) - block) // 2
        middle = model[first : first + block]
        return [*model[:first], *middle, *map(again, middle), *model[first + block :]]
    blocks = [model[i : i + block] for i in range(0, len(model), block)]
    number = -(-len(blocks) // 2)  # of the middle block, counted from 1
    blocks.insert(number, [again(layer) for layer in blocks[number - 1]])
    return [layer for each in blocks for layer in each]


def in_turn(model: list[Layer], size: int, again: Again) -> list[Layer]:
    """Late expansion by copies: the trained layers over and over, cut off where the model is full."""
    return [model[i] if i < len(model) else again(model[i % len(model)]) for i in range(size)]


def with_initial(model: list[Layer], size: int, again: Again) -> list[Layer]:
    """Late expansion by layers as they were initialised."""
    return model + [Layer(f"initial{i}") for i in range(len(model), size)]


def with_silent(model: list[Layer], size: int, again: Again) -> list[Layer]:
    """The same, with their output projections set to zero."""
    return model + [Layer(f"silent(initial{i})") for i in range(len(model), size)]


def grown(grow: Grow, sizes: Sequence[int], *, reset: bool = False) -> list[list[Layer]]:
    """The small model as each stage begins; with ``reset``, copies have no optimizer state."""

    def again(layer: Layer) -> Layer:
        return replace(layer, state="") if reset else layer

    model, found = [Layer(f"initial{i}") for i in range(sizes[0])], []
    for stage, size in enumerate(sizes):
        model = grow(model, size, again) if stage else model
        found.append(model)
        model = train(model, stage)
    return found


def along(plan: Any, stack: int = 0) -> list[list[Layer]]:
    """The same from a plan of raptr: what lies along its path, in the full-size model, as each stage begins.

    The full model is there from the start; the small one lies somewhere in it. At a boundary all sources are read
    before anything is written.
    """
    model = [Layer(f"initial{i}") for i in range(plan.shape.layers[stack])]
    for i, place in enumerate(plan.subnetwork(0).layers[stack]):
        model[place] = Layer(f"initial{i}")
    found = []
    for number, stage in enumerate(plan.stages):
        copies = [copy for copy in plan.transition(stage.start) if copy.stack == stack]
        read = [model[copy.source] for copy in copies]
        for copy, layer in zip(copies, read, strict=True):
            parameters = f"silent({layer.parameters})" if copy.silent else layer.parameters
            model[copy.target] = Layer(parameters, "" if copy.reset else layer.state)
        path = plan.subnetwork(stage.start).layers[stack]
        found.append([model[place] for place in path])
        for place, layer in zip(path, train(found[-1], number), strict=True):
            model[place] = layer
    return found
