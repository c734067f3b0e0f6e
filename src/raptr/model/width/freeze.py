"""Unselected heads and neurons and the optimizer.

The rows and columns of a projection that a step did not select have gradients of exactly zero, and still an optimizer
moves them: momentum and weight decay act on every entry of a parameter that has a gradient, and a matrix optimizer
(Muon) mixes its rows. ``freeze`` therefore keeps a copy of them and of their optimizer state over the optimizer's
step. What an optimizer counts per parameter, as Adam its steps, goes on for all of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Shard

from raptr.errors import RaptrError
from raptr.model.width.locate import Units
from raptr.model.width.part_run import Widths

Trained = Callable[[int], set[int] | None]
"""Says which heads or neurons were trained since a stamp of `Runs.now`; None for all."""

_MOMENTUM = "momentum_buffer"


@dataclass(frozen=True, eq=False)
class Place:
    """A parameter and where heads or neurons lie in it."""

    parameter: torch.Tensor
    units: Units
    trained: Trained


class FrozenSlices:
    """Keeps what was not selected as it was before an optimizer's step.

    Args:
        optimizer: the optimizer.
        widths: of the attached model.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, widths: Widths) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._optimizer = optimizer
        self._widths = widths
        self._places = [place for place in _places(widths) if id(place.parameter) in held]
        self._kept: list[_Kept] = []
        self._unmade: list[tuple[Place, torch.Tensor]] = []

    def save(self, since: int, *, closure: bool = False) -> None:
        """Before the step: copy what was not selected.

        Args:
            since: the stamp of the optimizer's last step.
            closure: whether the step itself makes the gradients; without, parameters that have none are left alone.

        Raises:
            RaptrError: a parameter is sharded in a way in which its rows cannot be told.
        """
        self._kept, self._unmade = [], []
        if not self._widths.narrowed:
            return
        for place in self._places:
            index = _unselected(place, since) if closure or place.parameter.grad is not None else None
            if index is not None:
                _refuse_other_shards(place.parameter)
                self._kept += [_Kept.of(tensor, place.units, index) for tensor in self._tensors(place)]
                if _MOMENTUM not in self._optimizer.state.get(place.parameter, {}):
                    self._unmade.append((place, index))

    def put_back(self) -> None:
        """After it: write it back."""
        for kept in self._kept:
            kept.put_back()
        for place, index in self._unmade:
            # SGD with dampening makes its first momentum in the step, from weight decay too.
            state = self._optimizer.state.get(place.parameter, {})
            if isinstance(momentum := state.get(_MOMENTUM), torch.Tensor):
                _Kept.zeros(momentum, place.units, index).put_back()
        self._kept, self._unmade = [], []

    def _tensors(self, place: Place) -> Iterator[torch.Tensor]:
        """The parameter and its state, also what is kept per row or column, as by Adafactor."""
        p, dim = place.parameter, place.units.dim
        for tensor in (p, *self._optimizer.state.get(p, {}).values()):
            alike = isinstance(tensor, torch.Tensor) and tensor.dim() == p.dim()
            if alike and tensor.shape[dim] == p.shape[dim]:
                yield tensor


def _unselected(place: Place, since: int) -> torch.Tensor | None:
    """The heads or neurons that were not trained; None if all were."""
    trained, count = place.trained(since), place.units.count
    if trained is None or len(trained) == count:
        return None
    free = torch.ones(count, dtype=torch.bool)
    free[list(trained)] = False
    return free.nonzero().flatten()


@dataclass(frozen=True, eq=False)
class _Kept:
    """A copy of some slices of a tensor."""

    view: torch.Tensor
    dim: int
    index: torch.Tensor
    copy: torch.Tensor

    @classmethod
    def of(cls, tensor: torch.Tensor, units: Units, index: torch.Tensor) -> "_Kept":
        """As they are now."""
        with torch.no_grad():
            if isinstance(tensor, DTensor):
                units, index = _local(tensor, units, index)
                tensor = tensor.to_local()
            if tensor.is_contiguous():
                view, dim = units.view(tensor.detach()), 1
            else:
                view, dim, index = tensor.detach(), units.dim, _entries(units, index)
            index = index.to(view.device)
            return cls(view, dim, index, view.index_select(dim, index))

    @classmethod
    def zeros(cls, tensor: torch.Tensor, units: Units, index: torch.Tensor) -> "_Kept":
        """The same slices as zeros."""
        kept = cls.of(tensor, units, index)
        return replace(kept, copy=torch.zeros_like(kept.copy))

    @torch.no_grad()
    def put_back(self) -> None:
        """Write it where it was."""
        if self.view.dim() == 3 and self.view.shape[2] == 1:  # single entries: three times as fast on the CPU
            view = self.view.squeeze(2)
            view.scatter_(1, self.index.expand(view.shape[0], -1), self.copy.squeeze(2))
        else:
            self.view.index_copy_(self.dim, self.index, self.copy)


def _places(widths: Widths) -> Iterator[Place]:
    for i, layer, width in widths.layers:
        for projection in width.projections:
            trained = partial(widths.trained, i, layer, projection.what)
            module: Any = projection.module
            yield Place(module.weight, projection.weight, trained)
            if module.bias is not None and projection.bias is not None:
                yield Place(module.bias, projection.bias, trained)
        if width.bias is not None:
            table: Any = width.bias
            every = [partial(widths.trained, i, other, "heads") for j, other, _ in widths.layers if j == i]
            yield Place(table.weight, Units(1, 1, width.heads, 1), _any_of(every))


def _any_of(layers: Sequence[Trained]) -> Trained:
    """What any layer of a stack trained: of a table that all of them use."""

    def trained(since: int) -> set[int] | None:
        found = [layer(since) for layer in layers]
        return None if None in found else {unit for units in found if units is not None for unit in units}

    return trained


def _entries(units: Units, index: torch.Tensor) -> torch.Tensor:
    """The entries along the dimension of these units."""
    times = torch.arange(units.times)[:, None, None] * units.count
    return ((times + index[:, None]) * units.size + torch.arange(units.size)).flatten()


def _local(tensor: DTensor, units: Units, index: torch.Tensor) -> tuple[Units, torch.Tensor]:
    """Where slices of a sharded tensor lie in the part that this rank has."""
    shards = [i for i, placement in enumerate(tensor.placements) if isinstance(placement, Shard)]
    if units.dim != 0 or not shards:
        return units, index
    (dim,) = shards
    rows, ranks = tensor.shape[0], tensor.device_mesh.size(dim)
    each = -(-rows // ranks)
    first = min(tensor.device_mesh.get_local_rank(dim) * each, rows)
    mine = tensor.to_local().shape[0]
    assert mine == min(each, rows - first)
    entries = _entries(units, index) - first
    return replace(units, times=1, count=mine, size=1), entries[(entries >= 0) & (entries < mine)]


def _refuse_other_shards(parameter: torch.Tensor) -> None:
    placements = parameter.placements if isinstance(parameter, DTensor) else ()
    shards = [placement for placement in placements if not placement.is_replicate()]
    if any(type(shard) is not Shard or shard.dim != 0 for shard in shards) or len(shards) > 1:
        raise RaptrError(
            f"a parameter is sharded as {tuple(placements)}, in which the heads and neurons that a step did not select "
            'cannot be told, so they cannot be frozen; use prepare(optimizer, inactive="zero"), or shard along the '
            "first dimension only."
        )
