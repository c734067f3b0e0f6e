"""The path map: which layer was trained when, as shares of steps in columns.

Shapes: N steps, C columns, L layers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raptr.results.metric_arrays import Bools, Floats

COLUMNS = 240


@dataclass(frozen=True, kw_only=True)
class PathMap:
    """Column c covers steps ``start[c]`` to ``stop[c]`` (exclusive, from 0); ``share`` is [C, L], 0 to 1."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    share: Floats


def path_map(step: NDArray[np.int64], kept: Bools, steps: int, columns: int = COLUMNS) -> PathMap:
    """Returns the share of each column's known steps in which each layer was trained.

    All columns are equally wide (the last may be narrower, it ends with the last step): as many steps as it takes to
    need at most ``columns`` of them. Where steps are missing, each known one is a column by itself, one step wide; if
    that makes too many, a column reaches from its first known step to its last. There is none without a known step.

    Args:
        step: [N] the completed steps that are known, from 1, ascending: step s is the s-th, drawn from s - 1 to s.
        kept: [N, L] whether the step trained the layer.
        steps: The planned number of steps.
        columns: The largest number of columns, and of columns of one step.
    """
    if not len(step):
        return PathMap(start=step, stop=step, share=np.zeros((0, kept.shape[1])))
    last = int(step[-1])
    width = math.ceil(max(steps, last) / columns)
    column = (step - 1) // width
    _, first, counts = np.unique(column, return_index=True, return_counts=True)
    filled = counts == np.minimum(width, last - column[first] * width)
    single = np.repeat(~filled, counts)
    if single.sum() <= columns:
        first = np.flatnonzero(single | np.isin(np.arange(len(step)), first))
    ends = np.append(first[1:], len(step))
    share = np.add.reduceat(kept.astype(np.float64), first, axis=0) / (ends - first)[:, None]
    return PathMap(start=step[first] - 1, stop=step[ends - 1], share=share)
