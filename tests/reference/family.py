"""A family: one kind of model, how it is built, fed and compared with its smaller self."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from reference.handwritten import loss_of
from reference.shallow import shallow

Path = tuple[tuple[int, ...], ...]
"""The kept layers, one tuple per stack: the arguments of ``raptr.Subnetwork.of``."""

# What is kept, by the numbers of layers of the stacks; the first is the one that most tests use.
PATHS: dict[tuple[int, ...], tuple[Path, ...]] = {
    (6,): (((0, 2, 5),), ((0, 2, 3, 5),), ((1, 4),), ((3,),), ((0, 1, 2, 3, 4, 5),)),
    (3, 4): (
        ((0, 2), (0, 1, 3)),
        ((1,), (2, 3)),
        ((0, 1, 2), (3,)),
        ((2,), (0, 1, 2, 3)),
        ((0, 1, 2), (0, 1, 2, 3)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the matrix.

    Attributes:
        name: of the row.
        model: the model's class.
        construct: makes a model; takes entries of its configuration, and ``layers``.
        stacks: name of a stack -> its number of layers.
        batch: seed -> the model's inputs.
        required: name of a stack -> the layers that no path may leave out.
        dropout: the entries of its configuration that are dropout rates.
        by_hand: whether its layers must be named to `attach`.
        with_inputs: whether `attach` is given inputs to record a run with.
    """

    name: str
    model: str
    construct: Callable[..., nn.Module]
    stacks: Mapping[str, int]
    batch: Callable[..., dict[str, Any]]
    required: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dropout: tuple[str, ...] = ()
    by_hand: bool = False
    with_inputs: bool = False

    __hash__ = object.__hash__  # rows are compared by identity, so that models can be cached by row

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Paths of this family, required layers included; the last is the whole model."""
        needed = [set(self.required.get(stack, ())) for stack in self.stacks]
        return tuple(
            tuple(tuple(sorted({*layers, *more})) for layers, more in zip(path, needed, strict=True))
            for path in PATHS[tuple(self.stacks.values())]
        )

    @property
    def path(self) -> Path:
        """The path that most tests use."""
        return self.paths[0]

    @property
    def full(self) -> Path:
        """Every layer."""
        return self.paths[-1]

    @property
    def stack(self) -> str:
        """The name of the only stack, or of the first."""
        return next(iter(self.stacks))

    def make(self, layers: int | None = None, dropout: float = 0.0, **options: Any) -> nn.Module:
        """A model as its constructor makes it."""
        more = {} if layers is None else {"layers": layers}
        return self.construct(**more, **dict.fromkeys(self.dropout, dropout), **options)

    def build(self, layers: int | None = None, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any):
        """A model in training mode whose weights depend on the seed only; every tensor is random."""
        return copy.deepcopy(_built(self, layers, seed, dtype, tuple(sorted(options.items()))))

    def arguments(self, model: nn.Module) -> dict[str, Any]:
        """What `attach` must be given beside the model: nothing where it has to find the layers by itself."""
        found: dict[str, Any] = {}
        if self.by_hand:
            stacks = {name: model.get_submodule(name) for name in self.stacks}
            found["blocks"] = stacks if len(stacks) > 1 else next(iter(stacks.values()))
        if self.with_inputs:
            found["inputs"] = self.batch()
        return found

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """The model's layers, of all stacks."""
        return [layer for stack in self.stacks for layer in model.get_submodule(stack)]

    def named_layers(self, path: Path) -> tuple[str, ...]:
        """The names of the layers that a path keeps, with a dot at the end."""
        return tuple(f"{stack}.{i}." for stack, layers in zip(self.stacks, path, strict=True) for i in layers)

    def kept(self, path: Sequence[Sequence[int]]) -> dict[str, Sequence[int]]:
        """A path with the names of its stacks."""
        return dict(zip(self.stacks, path, strict=True))

    def run(self, model: nn.Module, seed: int = 5, **options: Any) -> Any:
        """The model's output for the batch of this seed."""
        return model(**self.batch(seed), **options)

    def loss(self, model: nn.Module, seed: int = 5) -> Tensor:
        """The loss of the batch of this seed; of a model without one, the mean square of its output."""
        if self.by_hand:
            return loss_of(model, **self.batch(seed))
        output = self.run(model, seed)
        return output.loss if getattr(output, "loss", None) is not None else output[0].square().mean()

    def logits(self, model: nn.Module, seed: int = 5) -> Tensor:
        """The model's output for the batch of this seed, without a graph."""
        with torch.no_grad():
            output = self.run(model, seed)
        return output if self.by_hand else output.get("logits", output[0])

    def shallow(self, model: nn.Module, *path: Sequence[int]) -> nn.Module:
        """The reference made of the kept layers, one sequence of them per stack."""
        return shallow(model, self.kept(path))


@cache
def _built(
    family: Family, layers: int | None, seed: int, dtype: torch.dtype, options: tuple[tuple[str, Any], ...]
) -> nn.Module:
    """Made once, and copied for every test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.make(layers, **dict(options)).to(dtype).train()
        with torch.no_grad():  # biases and norms too, or a mix-up of layers could go unseen
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model
