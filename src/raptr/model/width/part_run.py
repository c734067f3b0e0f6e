"""How a layer runs with some of its heads and neurons.

The class of each projection is swapped for a subclass of the same name, when a selection is first activated, as a
layer's is by `raptr.model.gate.gate`. Its forward runs on the selected rows and columns: they are copied out of weight
and bias (one percent of the time of the product at 2,000 tokens), and what follows is as small as the selection.
In evaluation, and with nothing selected, the module's own forward runs. The selections are tensors, so that a compiled
layer needs one graph for all of the same size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from raptr.errors import RaptrError
from raptr.model.class_swap import is_restorable, restore_class, swap_class
from raptr.model.gate.gate import Selection
from raptr.model.stacks import Stack
from raptr.model.width.locate import LayerWidth, Unsupported, What
from raptr.plan import LayerPart, Subnetwork
from raptr.plan.layer_part import WHOLE

_CHOSEN = "_raptr_chosen"


@dataclass(eq=False)
class Chosen:
    """What one layer runs of itself now; its projections ask it.

    Attributes:
        block: the layer.
        forced: whether it also holds in evaluation.
        heads: the numbers of the kept heads; None for all.
        neurons: those of the kept neurons.
        head_scale: factor on the output of the attention, before its bias; None for 1.
        neuron_scale: factor on that of the MLP.
        whole: whether all of it ran with gradients, in evaluation, since `Widths` last took note.
    """

    block: nn.Module
    forced: bool = False
    heads: torch.Tensor | None = None
    neurons: torch.Tensor | None = None
    head_scale: torch.Tensor | None = None
    neuron_scale: torch.Tensor | None = None
    whole: bool = False

    def index(self, what: What) -> torch.Tensor | None:
        """The kept heads or neurons; None for all."""
        if not (self.forced or self.block.training):
            if torch.is_grad_enabled():
                self.whole = True
            return None
        return self.heads if what == "heads" else self.neurons

    def scale(self, what: What) -> torch.Tensor | None:
        """The factor on what leads out of them."""
        if not (self.forced or self.block.training):
            return None
        return self.head_scale if what == "heads" else self.neuron_scale


class Widths:
    """The widths of an attached model: sets what each layer runs of itself, and remembers what was trained.

    Args:
        stacks: the model's.
        found: what can be chosen in the layers of each, or why nothing can.
    """

    def __init__(self, stacks: Sequence[Stack], found: Sequence[tuple[LayerWidth, ...] | Unsupported]) -> None:
        self._stacks = stacks
        self._found = found
        self._chosen: list[list[Chosen]] = [[] for _ in stacks]
        self._parts: list[list[LayerPart | None]] = [[WHOLE] * len(stack.blocks) for stack in stacks]
        self._trained: list[list[list[tuple[LayerPart, int]]]] = [[[] for _ in stack.blocks] for stack in stacks]
        self._narrowed = False

    @property
    def narrowed(self) -> bool:
        """Whether some layer was ever set to run a part of its heads or neurons: until then all that ran was whole."""
        return self._narrowed

    def check(self, subnetwork: Subnetwork) -> None:
        """Refuse factors on attention or MLP of layers in which neither can be told."""
        if not subnetwork.narrow:
            return
        for stack, found, parts in zip(self._stacks, self._found, subnetwork.parts, strict=False):
            if isinstance(found, Unsupported) and any(part.head_scale != 1 or part.neuron_scale != 1 for part in parts):
                raise RaptrError(
                    f"attention or MLP of {stack.name!r} were to be scaled, but cannot be: {found.reason}."
                )

    def choose(self, subnetwork: Subnetwork, selections: Sequence[Selection], *, forced: bool) -> None:
        """Set what each layer runs of itself from now on."""
        if not self._narrowed:
            if not subnetwork.narrow:
                return
            self._begin(selections)
        self._note(selections)
        for i, stack in enumerate(self._stacks):
            kept = dict(subnetwork.kept(i))
            self._set(i, [kept.get(layer) for layer in range(len(stack.blocks))], forced)

    @contextmanager
    def aside(self, subnetwork: Subnetwork, selections: Sequence[Selection]) -> Iterator[None]:
        """What is set inside holds inside, and only what ran inside is remembered of it."""
        if not self._narrowed:
            if not subnetwork.narrow:
                yield
                return
            self._begin(selections)
        self._note(selections)
        ran, before = [selection.ran for selection in selections], [list(parts) for parts in self._parts]
        forced = [bool(chosen and chosen[0].forced) for chosen in self._chosen]
        for selection in selections:
            selection.ran = {}
        try:
            yield
        finally:
            self._note(selections)
            for selection, earlier in zip(selections, ran, strict=True):
                selection.ran = {**earlier, **selection.ran}
            for i, parts in enumerate(before):
                self._set(i, parts, forced[i])

    def forget(self, before: int) -> None:
        """Forget what was trained before a stamp of `Runs.now`: every optimizer has stepped since."""
        if not self._narrowed:
            return
        for stack in self._trained:
            for parts in stack:
                parts[:] = [(part, stamp) for part, stamp in parts if stamp >= before]

    def trained(self, stack: int, layer: int, what: What, since: int) -> set[int] | None:
        """Return the heads or neurons of a layer that were trained since a stamp, or may be now; None for all.

        To be asked once something was `narrowed`.
        """
        assert self._narrowed
        union: set[int] = set()
        if self._chosen[stack] and self._chosen[stack][layer].whole:
            return None
        known = [part for part, stamp in self._trained[stack][layer] if stamp >= since]
        for part in (*known, self._parts[stack][layer]):
            if part is None:
                continue
            kept = part.heads if what == "heads" else part.neurons
            if kept is None:
                return None
            union.update(kept)
        return union

    @property
    def layers(self) -> Iterator[tuple[int, int, LayerWidth]]:
        """(stack, layer, what can be chosen) of every layer of which something can."""
        for i, found in enumerate(self._found):
            if not isinstance(found, Unsupported):
                yield from ((i, layer, width) for layer, width in enumerate(found))

    @property
    def releasable(self) -> bool:
        """Whether every swapped module can be given its class back."""
        return all(is_restorable(module, _CHOSEN) for module in self._swapped())

    def release(self) -> None:
        """Give every module its own class back."""
        for module in self._swapped():
            restore_class(module)

    def _swapped(self) -> Iterator[nn.Module]:
        for _, _, width in self.layers:
            yield from (module for module in width.modules if _CHOSEN in module.__dict__)

    def _begin(self, selections: Sequence[Selection]) -> None:
        """From now on remember what runs; what ran until now, or is set to, is whole."""
        self._narrowed = True
        for i, (stack, selection) in enumerate(zip(self._stacks, selections, strict=True)):
            layers = range(len(stack.blocks))
            self._parts[i] = [selection.part(layer) for layer in layers]
            self._trained[i] = [[(WHOLE, selection.ran[layer])] if layer in selection.ran else [] for layer in layers]

    def _note(self, selections: Sequence[Selection]) -> None:
        """Remember what has run with gradients as it was set until now, and when it ran last."""
        for i, selection in enumerate(selections):
            for layer, stamp in selection.ran.items():
                chosen = self._chosen[i][layer] if self._chosen[i] else None
                part, known = self._parts[i][layer], self._trained[i][layer]
                if chosen is not None and chosen.whole:
                    part, chosen.whole = WHOLE, False
                if part is not None:
                    known[:] = [*((one, at) for one, at in known if one is not part), (part, stamp)]

    def _set(self, stack: int, parts: list[LayerPart | None], forced: bool) -> None:
        self._parts[stack] = parts
        found, parts_now = self._found[stack], [part or WHOLE for part in parts]
        if isinstance(found, Unsupported) or not (self._chosen[stack] or any(map(_narrows, parts_now))):
            return
        if not self._chosen[stack]:
            self._chosen[stack] = [_swap(width) for width in found]
        for chosen, width, part in zip(self._chosen[stack], found, parts_now, strict=True):
            weight = width.projections[0].module.weight
            assert isinstance(weight, torch.Tensor)
            chosen.forced = forced
            chosen.heads = _index(part.heads, width.heads, weight)
            chosen.neurons = _index(part.neurons, width.neurons, weight)
            chosen.head_scale, chosen.neuron_scale = _scale(part.head_scale, weight), _scale(part.neuron_scale, weight)


def _narrows(part: LayerPart) -> bool:
    return part[1:5] != (None, None, 1, 1)  # heads, neurons, and the scales of both


def _index(kept: tuple[int, ...] | None, count: int, weight: torch.Tensor) -> torch.Tensor | None:
    return None if kept is None or len(kept) == count else torch.tensor(kept, device=weight.device)


def _scale(factor: float, weight: torch.Tensor) -> torch.Tensor | None:
    # A tensor without dimensions changes no dtype, so it can be more exact than what it multiplies.
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return None if factor == 1 else torch.tensor(factor, dtype=dtype, device=weight.device)


def _swap(width: LayerWidth) -> Chosen:
    """Make a layer's modules ask what is chosen; what they ask is returned."""
    chosen = Chosen(width.block)
    for projection in width.projections:
        swap_class(projection.module, _map, _CHOSEN, (chosen, projection))
    for follower in width.followers:
        swap_class(follower.module, _FOLLOWING[follower.how], _CHOSEN, (chosen, follower))
    return chosen


def _map(original: Any) -> dict[str, Any]:
    """A projection: the product with the selected rows or columns of its weight."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        chosen, projection = self.__dict__[_CHOSEN]
        index = chosen.index(projection.what)
        scale = chosen.scale(projection.what) if projection.inputs else None
        if index is None and scale is None:
            return original.forward(self, x)
        weight, bias = self.weight, self.bias
        if index is not None:
            weight = projection.weight.select(weight, index)
            if bias is not None and not projection.inputs:
                bias = projection.bias.select(bias, index)
        if scale is not None:
            weight = weight * scale
        return F.linear(x, weight.t() if projection.transposed else weight, bias)

    return {"forward": forward}


def _split(original: Any) -> dict[str, Any]:
    """GPT-2's attention: splits what its one projection made by the size of the queries."""

    def split_size(self: Any) -> int:
        whole: int = self.__dict__["split_size"]
        chosen, _ = self.__dict__[_CHOSEN]
        index = chosen.index("heads")
        return whole if index is None else index.shape[0] * self.head_dim

    return {"split_size": property(split_size)}


def _bias(original: Any) -> dict[str, Any]:
    """T5's attention: the bias of all heads comes in and goes on to the next layer; those that run use theirs."""

    def forward(
        self: Any,
        hidden_states: torch.Tensor,
        mask: Any = None,
        key_value_states: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        chosen, _ = self.__dict__[_CHOSEN]
        index = chosen.index("heads")
        if index is None:
            return original.forward(
                self, hidden_states, mask, key_value_states, position_bias, past_key_values, **kwargs
            )
        if position_bias is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length(self.layer_idx)
            queries = hidden_states.shape[1]
            keys = queries + seen if key_value_states is None else key_value_states.shape[1]
            if self.has_relative_attention_bias:
                position_bias = self.compute_bias(queries, keys, device=hidden_states.device, past_seen_tokens=seen)
            else:
                position_bias = hidden_states.new_zeros((1, self.n_heads, queries, keys))
                position_bias.requires_grad_(self.gradient_checkpointing and self.training)
        own = position_bias.index_select(1, index)
        output, _, weights = original.forward(
            self, hidden_states, mask, key_value_states, own, past_key_values, **kwargs
        )
        return output, position_bias, weights

    return {"forward": forward}


_FOLLOWING = {"split": _split, "bias": _bias}
