"""The learning rate at stage boundaries: a factor that holds for the optimizer's step only.

The scheduler, which computes each rate from the one before, sees its own values.
"""

from typing import Any

import torch


class ScaledRate:
    """The learning rates of one optimizer, while its step runs.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        >>> rate = ScaledRate(optimizer)
        >>> rate.scale(0.5)
        >>> optimizer.param_groups[0]["lr"]
        0.25
        >>> rate.restore()
        >>> optimizer.param_groups[0]["lr"]
        0.5
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._scaled: list[tuple[dict[str, Any], Any, Any]] = []

    def scale(self, factor: float) -> None:
        """Multiply every group's rate; until `restore`."""
        self.restore()
        if factor != 1:
            for group in self._optimizer.param_groups:
                own = group["lr"]
                group["lr"] = own * factor
                self._scaled.append((group, own, group["lr"]))

    def restore(self) -> None:
        """Give every group its own rate back, unless somebody has set another one since: after a step that raised."""
        for group, own, scaled in self._scaled:
            if group["lr"] is scaled:
                group["lr"] = own
        self._scaled.clear()
