"""Samples -> the batch a model is called with. The only file of this room that knows torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raptr.data.samples.datasets import Item
from raptr.data.samples.windows import Window
from raptr.objectives import Denoising, Objective

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Collator:
    """A DataLoader's ``collate_fn``: stacks the samples and applies an objective.

    It can be pickled, and gives the same batch in any worker, because an objective depends on a
    sample's place only.

    Args:
        objective: ``raptr.objectives.causal``, or ``functools.partial(masked, seed=..., ...)``.

    Example:
        >>> from raptr.objectives import causal
        >>> Collator(causal)([{"tokens": np.array([4, 2]), "epoch": 0, "index": 0}])["labels"]
        tensor([[4, 2]])
    """

    objective: Objective

    def __call__(self, items: Sequence[Item]) -> "dict[str, torch.Tensor]":
        """Tensors by name, each of shape (B, T)."""
        import torch

        batch = self.objective(
            np.stack([item["tokens"] for item in items]),
            epochs=np.array([item["epoch"] for item in items]),
            indices=np.array([item["index"] for item in items]),
        )
        return {name: torch.from_numpy(array) for name, array in batch.items()}


@dataclass(frozen=True)
class WindowCollator:
    """The same for windows of several kinds (`raptr.data.samples.windows`), which may differ in length.

    Args:
        objective: ``raptr.objectives.Denoising``.
    """

    objective: Denoising

    def __call__(self, items: Sequence[Window]) -> "dict[str, torch.Tensor]":
        """Tensors by name."""
        import torch

        batch = self.objective(
            [item["tokens"] for item in items],
            epochs=np.array([item["epoch"] for item in items]),
            indices=np.array([item["index"] for item in items]),
            denoisers=np.array([item["kind"] for item in items]),
        )
        return {name: torch.from_numpy(array) for name, array in batch.items()}
