"""A plan written out step by step: the least that ``net.activate`` must accept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import raptr


class Script:
    """``paths[step]`` is the subnetwork of a step (the last one holds on); ``copies[step]`` its copies."""

    def __init__(self, paths: Sequence[Any], copies: Mapping[int, tuple[Any, ...]] | None = None) -> None:
        self.paths = list(paths)
        self.copies = dict(copies or {})

    def subnetwork(self, step: int, micro: int = 0) -> Any:
        """What runs at this step."""
        return self.paths[min(step, len(self.paths) - 1)]

    def transition(self, step: int) -> tuple[Any, ...]:
        """What is copied before this step."""
        return self.copies.get(step, ())


def on(*path: tuple[int, ...]) -> Script:
    """A plan that always trains these layers, one tuple per stack."""
    return Script([raptr.Subnetwork.of(*path)])
