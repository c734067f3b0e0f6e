"""One run folder: its files as checked values."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError
from raptr.results.metrics import Records, read_metrics

FORMAT = 1

SMALLER = "smaller"  # the control that is a dense model of fewer layers


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps ``start`` to ``stop`` (exclusive, from 0) with ``sizes`` layers kept, one size a stack.

    A size that changes from step to step is its mean, which need not be whole.
    """

    start: int
    stop: int
    sizes: tuple[float, ...]
    warmup: bool


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
    def control(self) -> str:
        """What the run is a control for, such as `SMALLER`; empty for a method."""
        return str(self.info.get("control") or "")

    @property
    def finished(self) -> bool:
        """Whether the run wrote its result."""
        return self.result is not None

    @property
    def reached(self) -> int:
        """The number of steps that were recorded."""
        return int(self.train.step[-1]) if len(self.train.step) else 0


def _size(value: Any) -> float:
    """A number of layers: whole, or the mean of a stage in which it changes."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a stage of {value} layers")
    return number


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in ``path``.

    Raises:
        RaptrError: The file cannot be read, is no JSON object, or has a format this version does not know.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # halves of characters can be written in JSON
    except (OSError, ValueError, RecursionError) as error:
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
                sizes=tuple(_size(size) for size in stage["sizes"]),
                warmup=bool(stage.get("warmup", False)),
            )
            for stage in plan["stages"]
        )
        method, seed, steps = str(info["method"]), int(info["seed"]), int(info["steps"])
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
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
