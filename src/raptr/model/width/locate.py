"""Width: where the heads and the neurons lie in a layer, so that some of them can run alone.

The heads are those that share nothing: under grouped-query attention a key-value head with all the query heads that
use it. Which projections they lie in is known for the kinds of layers listed here and never guessed: a tensor that
depends on the number of heads and is not known (attention sinks, ALiBi, a norm over all heads at once) would make a
selection silently wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import nn

from raptr.model.class_swap import original_class
from raptr.model.stacks import Stack
from raptr.model.width.architectures import KINDS, SUPPORTED, Attention, Kind

What = Literal["heads", "neurons"]


@dataclass(frozen=True)
class Unsupported:
    """Result of a search that found nothing, with the reason as text for messages."""

    reason: str


@dataclass(frozen=True)
class Units:
    """Where the units that are chosen (heads, neurons) lie along one dimension of a tensor.

    Attributes:
        dim: the dimension.
        times: how often all of them lie there, one after the other (GPT-2: as queries, as keys, as values).
        count: how many there are.
        size: how many entries each has.
    """

    dim: int
    times: int
    count: int
    size: int

    def view(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as (before, unit, after)."""
        before, after = prod(tensor.shape[: self.dim]), prod(tensor.shape[self.dim + 1 :])
        return tensor.view(before * self.times, self.count, self.size * after)

    def select(self, tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """A copy of the tensor with these units only."""
        shape = (*tensor.shape[: self.dim], -1, *tensor.shape[self.dim + 1 :])
        return self.view(tensor).index_select(1, index).view(shape)


@dataclass(frozen=True, eq=False)
class Projection:
    """One linear map of a layer, of whose outputs or inputs the heads or neurons are slices.

    Attributes:
        module: the map.
        what: whether heads or neurons.
        inputs: whether they are its inputs, so that it leads out of them; its bias is then whole.
        transposed: whether the weight is (inputs, outputs), as in GPT-2's Conv1D.
        units: where they lie.
    """

    module: nn.Module
    what: What
    inputs: bool
    transposed: bool
    times: int
    count: int
    size: int

    @property
    def weight(self) -> Units:
        """Where they lie in the weight."""
        return Units(int(self.inputs != self.transposed), self.times, self.count, self.size)

    @property
    def bias(self) -> Units | None:
        """Where they lie in the bias; None where it is whole."""
        return None if self.inputs else Units(0, self.times, self.count, self.size)


@dataclass(frozen=True)
class Follower:
    """A module of the attention that must know that heads are left out.

    Attributes:
        module: the module.
        how: "split": it splits queries, keys and values by a size; "bias": it adds a bias with an entry per head.
    """

    module: nn.Module
    how: Literal["split", "bias"]


@dataclass(frozen=True, eq=False)
class LayerWidth:
    """What can be chosen in one layer, and where it lies.

    Attributes:
        block: the layer.
        heads: how many heads.
        neurons: how many neurons.
        projections: all linear maps with heads or neurons.
        followers: what else depends on the number of heads.
        bias: a table with an entry per head that all layers of the stack use, with its name, in the layer that has it.
        attention: the modules whose work shrinks with the heads.
    """

    block: nn.Module
    heads: int
    neurons: int
    projections: tuple[Projection, ...]
    followers: tuple[Follower, ...]
    bias: nn.Module | None
    attention: tuple[nn.Module, ...]

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All that runs otherwise when something is chosen."""
        return (*(one.module for one in self.projections), *(one.module for one in self.followers))


def find_width(stack: Stack) -> tuple[LayerWidth, ...] | Unsupported:
    """What can be chosen in each layer of a stack, or the reason why nothing can."""
    found = []
    for layer, block in enumerate(stack.blocks):
        width = _of_layer(block)
        if isinstance(width, Unsupported):
            return Unsupported(f"layer {layer}: {width.reason}; supported are the layers of transformers {SUPPORTED}")
        found.append(width)
    counts = sorted({(width.heads, width.neurons) for width in found})
    if len(counts) > 1:
        return Unsupported(f"its layers differ in their (heads, neurons): {', '.join(map(str, counts))}")
    return tuple(found)


def _of_layer(block: nn.Module) -> LayerWidth | Unsupported:
    name = type(block).__name__
    kind = next((kind for kind in KINDS if name in kind.layers), None)
    if kind is None or not _is_transformers(block):
        return Unsupported(f"{name} is not a kind of layer whose heads and neurons are known")
    projections, followers, attentions = list[Projection](), list[Follower](), list[nn.Module]()
    heads, table = None, None
    for rule in kind.attentions:
        attention = _at(block, rule.path)
        if attention is None and rule.optional:
            continue
        if attention is None:
            return Unsupported(f"it has no {rule.path}")
        made = _of_attention(attention, rule)
        if isinstance(made, Unsupported):
            return made
        if heads is not None and made[0].count != heads:
            return Unsupported(f"its attentions have {heads} and {made[0].count} heads")
        heads = made[0].count
        projections += made
        attentions.append(attention)
        if rule.how:
            followers.append(Follower(attention, rule.how))
        table = table or (_at(attention, rule.table) if rule.table else None)
    neurons = _of_mlp(block, kind)
    if isinstance(neurons, Unsupported):
        return neurons
    assert heads is not None
    return LayerWidth(
        block, heads, neurons[0].count, (*projections, *neurons), tuple(followers), table, tuple(attentions)
    )


def _of_attention(attention: nn.Module, rule: Attention) -> list[Projection] | Unsupported:
    kind = type(attention).__name__
    size = _attribute(attention, rule.size)
    maps = {path: _at(attention, path) for path, _ in rule.inward} | {rule.outward: _at(attention, rule.outward)}
    wrong = _wrong_maps(kind, maps)
    if wrong or not _is_transformers(attention) or not isinstance(size, int):
        return wrong or Unsupported(f"{kind} is not transformers' own attention")
    count, rest = divmod(_sizes(maps[rule.keys])[1], size * dict(rule.inward)[rule.keys])
    found = []
    for path, times in (*rule.inward, (rule.outward, 1)):
        inputs = path == rule.outward
        features = _sizes(maps[path])[0 if inputs else 1]
        if rest or not count or features % (times * count):
            puts = f"{features} {'in' if inputs else 'out'}puts"
            return Unsupported(f"{path} of {kind} has {puts}, which {count} heads do not divide")
        found.append(_projection(maps[path], "heads", inputs, times, count, features // (times * count)))
    known = {id(p) for module in maps.values() if module is not None for p in module.parameters()}
    known |= {id(p) for path in (*rule.further, rule.table) for p in _parameters(_at(attention, path))}
    further = [name for name, p in attention.named_parameters() if id(p) not in known]
    if further:
        return Unsupported(
            f"{kind} also has {', '.join(further)}, of which it is not known how it depends on the heads"
        )
    table = _at(attention, rule.table) if rule.table else None
    norms = [path for path in rule.further if path in ("q_norm", "k_norm")]
    if any(p.numel() != size for path in norms for p in _parameters(_at(attention, path))):
        return Unsupported(f"{kind} has norms over more than one head")
    if table is not None and [tuple(p.shape[1:]) for p in table.parameters()] != [(count,)]:
        return Unsupported(f"{kind} has a {rule.table} without one entry for each of its {count} heads")
    return found


def _of_mlp(block: nn.Module, kind: Kind) -> list[Projection] | Unsupported:
    holder = _at(block, kind.neurons)
    inward = next((paths for paths in kind.inward if all(_at(block, path) for path in paths)), kind.inward[0])
    maps = {path: _at(block, path) for path in (*inward, kind.outward)}
    wrong = _wrong_maps(type(block).__name__, maps)
    if wrong or holder is None or not _is_transformers(holder):
        return wrong or Unsupported(f"the MLP of {type(block).__name__} is not transformers' own")
    known = {id(p) for module in maps.values() for p in _parameters(module)}
    further = [name for name, p in holder.named_parameters() if id(p) not in known]
    sizes = {_sizes(maps[path])[0 if path == kind.outward else 1] for path in maps}
    if further or len(sizes) > 1:
        named = ", ".join(further) or f"neurons of the numbers {sorted(sizes)}"
        return Unsupported(f"{type(holder).__name__} has {named}")
    (count,) = sizes
    return [_projection(module, "neurons", path == kind.outward, 1, count, 1) for path, module in maps.items()]


def _projection(module: nn.Module | None, what: What, inputs: bool, times: int, count: int, size: int) -> Projection:
    assert module is not None
    return Projection(module, what, inputs, not isinstance(module, nn.Linear), times, count, size)


def _at(module: nn.Module, path: str) -> nn.Module | None:
    found: Any = module
    for part in path.split("."):
        if isinstance(found, nn.ModuleList):
            place = int(part)
            # The cross-attention's place is the MLP's in a layer without one; the last place is always the MLP's.
            found = found[place] if place < len(found) else None
        else:
            found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) else None


def _attribute(module: nn.Module, path: str) -> Any:
    *modules, name = path.split(".")
    found = _at(module, ".".join(modules)) if modules else module
    return getattr(found, name, None)


def _parameters(module: nn.Module | None) -> Iterator[nn.Parameter]:
    return iter(()) if module is None else module.parameters()


def _is_transformers(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.models.")


def _is_map(module: nn.Module | None) -> bool:
    """Whether this is a plain linear map, not one that a quantizer or an adapter put in its place."""
    if module is None:
        return False
    cls = original_class(module)
    conv = (cls.__module__, cls.__name__) == ("transformers.pytorch_utils", "Conv1D")
    return cls is nn.Linear or conv


def _wrong_maps(kind: str, maps: dict[str, nn.Module | None]) -> Unsupported | None:
    wrong = [f"{path} is {type(module).__name__}" for path, module in maps.items() if not _is_map(module)]
    return Unsupported(f"in {kind}, {', '.join(wrong)}, where a plain linear map was expected") if wrong else None


def _sizes(module: Any) -> tuple[int, int]:
    """(inputs, outputs) of a map."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return int(module.nx), int(module.nf)
