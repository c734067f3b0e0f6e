"""``metrics.jsonl`` as arrays.

Shapes: N training records, E evaluations, L layers of a stack.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raptr.errors import RaptrError
from raptr.rundir.json_record import numbers
from raptr.rundir.metrics_lines import BoundaryLine, EvalLine, TrainLine

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_KINDS = (TrainLine.KIND, EvalLine.KIND, BoundaryLine.KIND)
_NO_COLUMNS = ("step", "stage")


@dataclass(frozen=True, kw_only=True)
class Records:
    """Metrics of one kind, sorted by step: every column has one value a step, NaN where it has none.

    Attributes:
        step: [N] completed steps.
        columns: name -> [N].
        kept: for each stack [N, L]: which layers the step trained; evaluations have none.
        sources: name -> [E]: the loss of each validation source, where there are several.
        active_sources: the same of the part that is trained so far, of a method that grows.
    """

    step: NDArray[np.int64]
    columns: Mapping[str, Floats]
    kept: tuple[Bools, ...]
    sources: Mapping[str, Floats]
    active_sources: Mapping[str, Floats]


def read_metrics(path: Path, layers: tuple[int, ...]) -> tuple[Records, Records, dict[int, BoundaryLine]]:
    """Returns the training records, the evaluations and the boundaries (by their step) of ``metrics.jsonl``.

    A last line without a line end that is no JSON was cut off when the run was killed, and is left out.
    Where a resumed run wrote a step again, the later record counts. Records of other kinds are ignored, and so
    is what a record holds beside the columns that are known.

    Args:
        path: The file; a missing one is a run that has not measured anything yet.
        layers: The number of layers of each stack.

    Raises:
        RaptrError: A line is broken; the message names it.
    """
    train: dict[int, dict[str, Any]] = {}
    evals: dict[int, dict[str, Any]] = {}
    boundaries: dict[int, BoundaryLine] = {}
    kept: dict[int, tuple[Bools, ...]] = {}
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise _broken(path, number, f"is no JSON ({error})") from error
        try:
            kind, step = record["kind"], int(record.get("step", -1))
            if step < 0 and kind in _KINDS:
                raise ValueError("no step")
            if kind == TrainLine.KIND:
                kept[step] = tuple(_mask(one, size) for one, size in zip(record["layers"], layers, strict=True))
                train[step] = record
            elif kind == EvalLine.KIND:
                evals[step] = record
            elif kind == BoundaryLine.KIND:
                boundaries[step] = BoundaryLine.of(record)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise _broken(path, number, f"lacks or garbles {error}") from error
    try:
        return (
            _records(train, TrainLine, kept, layers),
            _records(evals, EvalLine, {}, ()),
            boundaries,
        )
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RaptrError(f"{path} holds a value that is no number ({error}).") from error


def _broken(path: Path, number: int, what: str) -> RaptrError:
    return RaptrError(
        f"{path}, line {number} {what}. Expected is one JSON object a line with kind, step and its values "
        "(only the last line may be cut off). Remove the line, or repeat the run."
    )


def _mask(kept: list[int], layers: int) -> Bools:
    mask = np.zeros(layers, dtype=np.bool_)
    for layer in kept:
        if not 0 <= layer < layers:
            raise ValueError(f"layer {layer} of a stack of {layers}")
        mask[layer] = True
    return mask


def _records(
    found: dict[int, dict[str, Any]],
    kind: type[TrainLine | EvalLine],
    kept: dict[int, tuple[Bools, ...]],
    layers: tuple[int, ...],
) -> Records:
    steps = sorted(found)
    masks = tuple(
        np.array([kept[step][stack] for step in steps], dtype=np.bool_).reshape(len(steps), size)
        for stack, size in enumerate(layers)
    )
    return Records(
        step=np.array(steps, dtype=np.int64),
        columns={
            name: _column([found[step].get(name, absent) for step in steps])
            for name, absent in numbers(kind).items()
            if name not in _NO_COLUMNS
        },
        kept=masks,
        sources=_by_source([found[step].get("eval_losses") or {} for step in steps]),
        active_sources=_by_source([found[step].get("eval_losses_active") or {} for step in steps]),
    )


def _by_source(losses: list[dict[str, Any]]) -> dict[str, Floats]:
    names = dict.fromkeys(name for one in losses for name in one)
    return {name: _column([one.get(name) for one in losses]) for name in names}


def _column(values: list[Any]) -> Floats:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
