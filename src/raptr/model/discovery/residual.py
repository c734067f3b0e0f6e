"""How a layer adds to its input, told by the autograd graph of a recorded run, never by class names.

A pre-norm layer returns its input plus what its branches computed. Only there is x + s (layer(x) - x) a factor on
the update, and only there does a layer whose last linear maps are zero return its input. A post-norm layer
normalises the sum, so its input cannot be found behind additions alone.

Each node of the graph is judged from those that it was computed from: which parameters have to be zero for it to be
zero, and whether it is the layer's input plus something. What is not known to keep zeros (a softmax, a constant that
is added) cannot be made zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raptr.model.discovery.dependencies import Node

Zero = frozenset[int] | None
"""The identities of the parameters that have to be zero; None where nothing makes it zero."""

NEVER: Zero = None

_SAME = {"View", "UnsafeView", "ReshapeAlias", "Alias", "Clone", "ToCopy"}  # the same numbers
_ALL = {"Add", "Sub", "Cat", "Stack", "IndexAdd", "IndexPut", "Where", "ScatterAdd"}  # zero if all of them are
_FIRST = {  # zero if the first is
    *_SAME,
    *("T", "Transpose", "Permute", "Expand", "Squeeze", "Unsqueeze", "Select", "Slice", "Split", "SplitWithSizes"),
    *("Unbind", "Index", "IndexSelect", "Gather", "Sum", "Mean", "Neg", "Div", "Unfold", "AsStrided", "Repeat"),
    *("Gelu", "Silu", "Relu", "Tanh", "Mish", "LeakyRelu", "NativeDropout", "FusedRmsNorm", "Cumsum", "Chunk"),
}
_EITHER = {"Mul", "Mm", "Bmm"}  # zero if one of them is
_LINEAR = {  # where the operands of a product are, and where something is added to it
    "Mm": ((0, 1), None),
    "Bmm": ((0, 1), None),
    "Addmm": ((1, 2), 0),
    "Baddbmm": ((1, 2), 0),
    "Linear": ((0, 1), 2),
    "Convolution": ((0, 1), 2),
}
_WEIGHT = {"T", "Transpose", "Permute", "View", "Expand", "Index", "Select", "Unsqueeze", "ToCopy", "Clone", "Slice"}


@dataclass(frozen=True)
class Branches:
    """What was seen of one layer.

    Attributes:
        residual: whether it returns its input plus what its branches computed, as pre-norm layers do.
        outputs: the names of the parameters at the ends of its branches: with zeros there, it returns its input.
            None if no parameters do that.
    """

    residual: bool
    outputs: tuple[str, ...] | None


@dataclass(frozen=True)
class _Value:
    """A node judged: what makes it zero, and, if it is the layer's input plus something, what makes that zero."""

    zero: Zero
    residual: bool = False
    update: Zero = NEVER


def branches(returned: Node | None, entered: tuple[Node | None, int], start: int, names: Mapping[int, str]) -> Branches:
    """How the returned hidden states add to those that entered.

    Args:
        returned: the node of the hidden states that a layer returned.
        entered: the node of those that entered it, and which of its outputs they are.
        start: the sequence number at which the layer began; what is older is not looked into.
        names: identity -> name of the layer's parameters.
    """
    if returned is None or entered[0] is None:
        return Branches(False, None)
    values: dict[Node, _Value] = {}

    def value_of(given: tuple[Node | None, int]) -> _Value:
        return _Value(NEVER, True, frozenset()) if given == entered else values.get(given[0], _Value(NEVER))

    for node in _in_order(returned, start):
        values[node] = _judge(node, [value_of(given) for given in node.next_functions])
    found = value_of((returned, 0))
    known = found.residual and found.update is not None and found.update <= names.keys()
    outputs = tuple(name for p, name in names.items() if p in (found.update or ())) if known else None
    return Branches(found.residual, outputs)


def _in_order(last: Node, start: int) -> Sequence[Node]:
    """All nodes from a moment on to the last, each after those that it was computed from."""
    order: list[Node] = []
    seen, waiting = set[Node](), [(last, False)]
    while waiting:
        node, done = waiting.pop()
        if done:
            order.append(node)
        elif node not in seen and node._sequence_nr() >= start:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(before, False) for before, _ in node.next_functions if before is not None]
    return order


def _judge(node: Node, before: Sequence[_Value]) -> _Value:
    if hasattr(node, "variable"):
        return _Value(frozenset({id(node.variable)}))
    kind, zeros = _kind(node), [value.zero for value in before]
    if kind in _LINEAR:
        weighted, added = _weighted(node, _LINEAR[kind][0]), _LINEAR[kind][1]
        if added == 0 and before[0].residual and getattr(node, "_saved_beta", 1) == 1:
            return _Value(NEVER, True, _union([before[0].update, weighted]))
        if added is not None and len(before) > added and node.next_functions[added][0] is not None:
            return _Value(_union([weighted, zeros[added]]))
        if weighted is not None or kind not in _EITHER:
            return _Value(weighted)
    if kind == "Add" and len(before) == 2:
        for value, other, factor in ((before[0], zeros[1], 1), (before[1], zeros[0], getattr(node, "_saved_alpha", 1))):
            if value.residual and factor == 1:
                return _Value(NEVER, True, _union([value.update, other]))
    if kind in _SAME or (kind == "Clamp" and before[0].residual):
        return before[0]
    if kind in _ALL:
        return _Value(_union(zeros))
    if kind == "NativeLayerNorm":  # zeros become the bias
        has_bias = node.next_functions[2][0] is not None
        return _Value(_union([zeros[0], *([zeros[2]] if has_bias else [])]))
    if kind in _EITHER:
        return _Value(_product(node, zeros))
    if "Attention" in kind:  # a mean of the values: query, key, value
        return _Value(zeros[2] if len(zeros) > 2 else NEVER)
    return _Value(zeros[0] if kind in _FIRST and zeros else NEVER)


def _kind(node: Node) -> str:
    """A node's operation: of ``AddBackward0``, ``Add``."""
    name: str = node.name()
    return name.rpartition("::")[2].split("Backward")[0].lstrip("_")


def _weighted(node: Node, operands: tuple[int, int]) -> Zero:
    """The weight of a linear map: the last operand that is a parameter."""
    found = [weight for i in operands if (weight := _weight(node.next_functions[i][0])) is not None]
    return frozenset({id(found[-1])}) if found else NEVER


def _weight(node: Node | None) -> Any:
    """The parameter of two dimensions or more that an operand is, transposed or chosen from; or None."""
    while node is not None and not hasattr(node, "variable"):
        node = node.next_functions[0][0] if _kind(node) in _WEIGHT else None
    return node.variable if node is not None and node.variable.ndim >= 2 else None


def _product(node: Node, zeros: Sequence[Zero]) -> Zero:
    """Of a product one factor is enough: one that was computed rather than a parameter itself (a norm's weight)."""
    factors = [(hasattr(given, "variable"), zero) for (given, _), zero in zip(node.next_functions, zeros, strict=True)]
    possible = [zero for _, zero in sorted(factors, key=lambda factor: factor[0]) if zero is not None]
    return possible[0] if possible else NEVER


def _union(zeros: Sequence[Zero]) -> Zero:
    together: frozenset[int] = frozenset()
    for zero in zeros:
        if zero is None:
            return NEVER
        together |= zero
    return together
