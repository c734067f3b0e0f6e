"""One training step, as a plain PyTorch loop makes it: forward, backward, clipping, optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Step:
    """A step of a model on one batch, again and again.

    Args:
        model: whose output has a ``loss``.
        inputs: its keyword arguments.
        bf16: whether it runs in mixed precision.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, torch.Tensor], *, bf16: bool) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        self._inputs = inputs
        self._autocast = mixed(next(model.parameters()).device.type, bf16=bf16)

    def __call__(self) -> None:
        """Make it."""
        with self._autocast:
            loss = self.model(**self._inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def mixed(device: str, *, bf16: bool) -> Any:
    """Mixed precision, or not."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=bf16)
