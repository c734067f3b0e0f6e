"""Validation on several ranks: every sequence counts once, however many ranks there are.

Ranks take batches in turn, so there must be as many for each, of as many sequences. Accelerate fills up with sequences
that were seen already; here what is filled up has no labels, and therefore no part in the mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raptr.objectives.masked import IGNORED


@dataclass(frozen=True)
class Padded:
    """A dataset with its last sample repeated up to a multiple; each sample comes with whether it counts.

    Args:
        data: the dataset.
        multiple: of which its length is to be one.

    Example:
        >>> data = Padded("abcd", 3)
        >>> [data[i] for i in range(len(data))]
        [('a', True), ('b', True), ('c', True), ('d', True), ('d', False), ('d', False)]
    """

    data: Any
    multiple: int

    def __len__(self) -> int:
        return -(-len(self.data) // self.multiple) * self.multiple

    def __getitem__(self, sample: int) -> tuple[Any, bool]:
        if not 0 <= sample < len(self):  # an IndexError is also what ends a plain loop over a dataset
            raise IndexError(f"sample {sample} was asked for; there are 0 to {len(self) - 1}")
        return self.data[min(sample, len(self.data) - 1)], sample < len(self.data)

    @property
    def stretch(self) -> float:
        """By how much a mean over all samples is too small, if those that were added count 0."""
        return len(self) / len(self.data)


@dataclass(frozen=True)
class PaddedCollator:
    """Collates the samples of `Padded`; those that do not count have no labels.

    Args:
        collate: of the samples without padding.
    """

    collate: Callable[[Sequence[Any]], dict[str, torch.Tensor]]

    def __call__(self, items: Sequence[tuple[Any, bool]]) -> dict[str, torch.Tensor]:
        """Tensors by name."""
        batch = self.collate([item for item, _ in items])
        dropped = torch.tensor([not counts for _, counts in items])[:, None]
        return {**batch, "labels": batch["labels"].masked_fill(dropped, IGNORED)}


def mean_labels(data: Any, collate: Callable[[Sequence[Any]], dict[str, torch.Tensor]]) -> float:
    """Return how many labels a sample has, the mean over all: what a mean loss of a batch is weighted by.

    Args:
        data: the samples.
        collate: of the samples of a batch.
    """
    counted = sum(
        int((collate([data[i] for i in range(start, min(start + 64, len(data)))])["labels"] != IGNORED).sum())
        for start in range(0, len(data), 64)
    )
    return counted / len(data)


def weighted(loss: torch.Tensor, labels: torch.Tensor, mean_predicted: float | None, stretch: float) -> torch.Tensor:
    """The mean loss of a batch, so that the mean over all batches is that over all that is predicted.

        loss * (labels of a row, the mean over the batch) / (the same over all data) * stretch

    Where all rows have as many labels, ``mean_predicted`` is None and only rows with labels are counted.

    Args:
        loss: the mean over the labels of the batch.
        labels: of the batch, shape (B, T).
        mean_predicted: labels of a row, the mean over all data.
        stretch: of `Padded`; 1 where nothing was added.
    """
    if mean_predicted is None and stretch == 1:
        return loss
    counted = labels != IGNORED
    if mean_predicted is None:
        weight = counted.any(dim=-1).float().mean()
    else:
        weight = counted.sum(dim=-1).float().mean() / mean_predicted
    return torch.where(weight > 0, loss * weight * stretch, torch.zeros_like(loss))
