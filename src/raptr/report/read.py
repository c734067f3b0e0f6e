"""One run folder: its files as checked values.

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

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FORMAT = 1
COUNTERS = ("tokens", "layer_flops", "total_flops", "seconds")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps ``start`` to ``stop`` (exclusive, from 0) with ``sizes`` layers kept, one size a stack."""

    start: int
    stop: int
    sizes: tuple[int, ...]
    warmup: bool


@dataclass(frozen=True, kw_only=True)
class Records:
    """Metrics of one kind, sorted by step: every column has one value a step, NaN where it has none.

    ``kept`` holds a boolean array [N, L] for each stack: which layers the step trained.
    """

    step: NDArray[np.int64]
    columns: Mapping[str, Floats]
    kept: tuple[Bools, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run folder says."""

    folder: Path
    label: str
    method: str
    seed: int
    steps: int
    stacks: tuple[tuple[str, int], ...]
    stages: tuple[Stage, ...]
    info: Mapping[str, Any]
    config: str
    train: Records
    evals: Records
    result: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether the run wrote its result."""
        return self.result is not None


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in ``path``.

    Raises:
        RaptrError: The file cannot be read, is no JSON object, or has a format this version does not know.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RaptrError(
            f"{path} cannot be read as JSON ({error}). It is written by `raptr`; repeat the command that made it."
        ) from error
    if not isinstance(value, dict):
        raise RaptrError(f"{path} holds {type(value).__name__}, but a JSON object is expected.")
    if value.get("format", FORMAT) != FORMAT:
        raise RaptrError(
            f"{path} has format {value['format']!r}, this version of raptr reads format {FORMAT}. "
            "Make the report with the version that made the run."
        )
    return value


def read_text(path: Path) -> str:
    """Returns the text of ``path``; nothing if there is no such file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def read_run(folder: Path) -> Run:
    """Returns the run in ``folder``, finished or not.

    Raises:
        RaptrError: ``run.json`` or a line of ``metrics.jsonl`` is missing something or is broken.
    """
    path = folder / "run.json"
    info = read_json(path)
    try:
        plan = info["plan"]
        stacks = tuple((str(stack["name"]), int(stack["layers"])) for stack in plan["stacks"])
        stages = tuple(
            Stage(
                start=int(stage["start"]),
                stop=int(stage["stop"]),
                sizes=tuple(int(size) for size in stage["sizes"]),
                warmup=bool(stage.get("warmup", False)),
            )
            for stage in plan["stages"]
        )
        method, seed, steps = str(info["method"]), int(info["seed"]), int(info["steps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RaptrError(
            f"{path} lacks or garbles {error}. Expected are method, seed, steps and plan "
            "(stacks with name and layers, stages with start, stop and sizes)."
        ) from error
    train, evals = read_metrics(folder / "metrics.jsonl", tuple(layers for _, layers in stacks))
    result = folder / "result.json"
    return Run(
        folder=folder,
        label=str(info.get("label") or method),
        method=method,
        seed=seed,
        steps=steps,
        stacks=stacks,
        stages=stages,
        info=info,
        config=read_text(folder / "config.yaml"),
        train=train,
        evals=evals,
        result=read_json(result) if result.is_file() else None,
    )


def read_metrics(path: Path, layers: tuple[int, ...]) -> tuple[Records, Records]:
    """Returns the training records and the evaluations of ``metrics.jsonl``.

    A last line without a line end that is no JSON was cut off when the run was killed, and is left out.
    Where a resumed run wrote a step again, the later record counts. Records of other kinds are ignored.

    Args:
        path: The file; a missing one is a run that has not measured anything yet.
        layers: The number of layers of each stack.

    Raises:
        RaptrError: A line is broken; the message names it.
    """
    train: dict[int, dict[str, Any]] = {}
    evals: dict[int, dict[str, Any]] = {}
    kept: dict[int, tuple[Bools, ...]] = {}
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise _broken(path, number, f"is no JSON ({error})") from error
        try:
            kind, step = record["kind"], int(record.get("step", -1))
            if step < 0 and kind in ("train", "eval"):
                raise ValueError("no step")
            if kind == "train":
                kept[step] = tuple(_mask(one, size) for one, size in zip(record["layers"], layers, strict=True))
                train[step] = record
            elif kind == "eval":
                evals[step] = record
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _broken(path, number, f"lacks or garbles {error}") from error
    try:
        return (
            _records(train, ("loss", "grad_norm", "learning_rate", *COUNTERS), kept, layers),
            _records(evals, ("eval_loss", *COUNTERS), {}, ()),
        )
    except (TypeError, ValueError) as error:
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
    names: tuple[str, ...],
    kept: dict[int, tuple[Bools, ...]],
    layers: tuple[int, ...],
) -> Records:
    steps = sorted(found)
    columns = {
        name: np.array(
            [np.nan if (value := found[step].get(name)) is None else float(value) for step in steps],
            dtype=np.float64,
        )
        for name in names
    }
    masks = tuple(
        np.array([kept[step][stack] for step in steps], dtype=np.bool_).reshape(len(steps), size)
        for stack, size in enumerate(layers)
    )
    return Records(step=np.array(steps, dtype=np.int64), columns=columns, kept=masks)
