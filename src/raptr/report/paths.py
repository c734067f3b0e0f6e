"""The path map: which layer was trained when, as shares of steps in columns.

Shapes: N training records, C columns, L layers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raptr.results.metrics import Bools, Floats

COLUMNS = 240


@dataclass(frozen=True, kw_only=True)
class PathMap:
    """Column c covers steps ``start[c]`` to ``stop[c]`` (exclusive, from 0); ``share`` is [C, L], 0 to 1."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    share: Floats


def path_map(step: NDArray[np.int64], kept: Bools, steps: int, columns: int = COLUMNS) -> PathMap:
    """Returns the share of each column's recorded steps in which each layer was trained.

    All columns are equally wide (the last may be narrower): as many steps as it takes to need at most
    ``columns`` of them, and no fewer than lie between two records. Columns without a record are left out.

    Args:
        step: [N] completed steps at each record, from 1, ascending: step s is the s-th step, drawn from s - 1 to s.
        kept: [N, L] whether the step trained the layer.
        steps: The planned number of steps.
        columns: The largest number of columns.
    """
    total = max(steps, int(step[-1]) if len(step) else 0)
    gap = int(np.median(np.diff(step))) if len(step) > 1 else 1
    width = max(math.ceil(total / columns), gap, 1)
    column = (step - 1) // width
    number = math.ceil(total / width)
    counts = np.bincount(column, minlength=number).astype(np.float64)
    trained = np.zeros((number, kept.shape[1]))
    np.add.at(trained, column, kept.astype(np.float64))
    seen = np.flatnonzero(counts)
    start = seen.astype(np.int64) * width
    return PathMap(start=start, stop=np.minimum(start + width, total), share=trained[seen] / counts[seen, None])
