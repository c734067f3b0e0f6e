"""What a layer reads besides the hidden states it is given, told by the autograd graph of a recorded run.

Whatever a layer computes with (an argument, a dictionary that an earlier layer filled, an attribute) is in the
graph of its output. Going back from there, and not further than the hidden states that entered, one meets what it
reads besides them: hidden states of a layer other than the one before (a skip connection), or something that was
computed inside another layer (shared keys and values). The graph's sequence numbers, which rise as a forward
goes on, say inside which layer a node was made.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Node = Any  # torch.autograd.graph.Node
Place = tuple[int, int]
"""(stack, layer)"""


@dataclass(frozen=True)
class Span:
    """The sequence numbers of the nodes that were made inside a layer: from ``start`` to below ``stop``."""

    place: Place
    start: int
    stop: int


@dataclass(frozen=True)
class Reads:
    """What was met.

    Attributes:
        states: the layers whose returned hidden states are read.
        made: the layers of which something else is read, with the identity of the parameters that it was made with.
    """

    states: set[Place] = field(default_factory=set)
    made: dict[Place, set[int]] = field(default_factory=dict)


def moment() -> int:
    """The sequence number that the autograd graph has come to."""
    node: Node = torch.zeros((), device="meta", requires_grad=True).clone().grad_fn
    number: int = node._sequence_nr()
    return number


def reads(
    outputs: Collection[Node | None],
    given: Node | None,
    own: Place | None,
    states: Mapping[Node, Place],
    spans: Sequence[Span],
) -> Reads:
    """Go back from outputs to everything that they were computed from.

    Args:
        outputs: the graph's nodes of what a layer returned, or of what the model did.
        given: the node of the hidden states that entered the layer.
        own: the layer, whose own nodes are not of interest; None for the model's outputs.
        states: the nodes of the hidden states that each layer returned.
        spans: of all layers, in the order in which they ran.
    """
    found, starts = Reads(), [span.start for span in spans]

    def inside(node: Node) -> Place | None:
        number = node._sequence_nr()
        i = bisect_right(starts, number) - 1
        return spans[i].place if i >= 0 and number < spans[i].stop else None

    waiting: list[tuple[Node, Place | None]] = [(node, None) for node in outputs if node is not None]
    seen = set(waiting)
    while waiting:
        node, maker = waiting.pop()  # the maker: the other layer in whose nodes the way has come to
        if node is given:
            continue
        if hasattr(node, "variable"):
            if maker is not None:
                found.made[maker].add(id(node.variable))
            continue
        if maker is None and node in states and states[node] != own:
            found.states.add(states[node])
            continue
        place = inside(node)
        if maker is None and place not in (None, own):
            maker = place
            found.made.setdefault(place, set())
        if maker is not None and place != maker:
            continue
        for further, _ in node.next_functions:
            if further is not None and (further, maker) not in seen:
                seen.add((further, maker))
                waiting.append((further, maker))
    return found
