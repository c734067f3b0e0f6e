"""What a training step takes on the clock of this machine, by part: what a budget in seconds is made of.

Steps of three sizes are timed in turn, by the very Trainer of the runs. A step's seconds are then taken
as a + b * (FLOPs of the layers that ran): a is the head, the loss, the optimizer and what else does not
shrink with the path.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.errors import RaptrError
from raptr.plan import Copy, LayerCosts, ModelShape, Subnetwork
from raptr.rundir.paths import CLOCK, FORMAT, recorded, write_json
from raptr.train.callbacks.activate import ActivateCallback
from raptr.train.collect_run_info import describe_environment
from raptr.train.hf.trainer import TaskTrainer
from raptr.train.run import attach_to_task, try_task
from raptr.train.setup.arguments import own_settings
from raptr.train.setup.model import build_model
from raptr.train.task import Task

_NOTICEABLE = 0.01  # of a step's time: a smaller rise from fewest to most layers is noise
_WARM_UP, _ROUNDS = 3, 7  # steps that are not timed; timed steps of each size


@dataclass(frozen=True)
class Clock:
    """Seconds of a step: ``per_flop`` for each FLOP of the layers, and ``besides``."""

    per_flop: float
    besides: float

    def costs(self, flops: LayerCosts) -> LayerCosts:
        """Seconds of a step by part, from its FLOPs."""
        seconds = flops.scaled(self.per_flop)
        return replace(seconds, other=self.besides)


def read_clock(task: Task, folder: Path, console: Console) -> Clock:
    """The clock of a comparison: read from its ``clock.json``, or measured and kept there.

    They are measured once for a comparison, so that the same command always asks for the same runs.

    Raises:
        RaptrError: the times do not rise with the layers that run, so nothing can be predicted from them.
    """
    if task.denoised is not None and task.denoised.alike:
        raise RaptrError(
            "the steps of an encoder-decoder that is trained on several denoisers differ in length by more than by the "
            "layers that run, so a budget in seconds cannot be planned from a few; use --budget flops."
        )
    path = folder / CLOCK
    if not path.exists():
        with console.status("timing training steps ..."):
            measured = _measure(task)
        write_json(path, measured)
    with recorded(path) as record:
        return Clock(per_flop=float(record["seconds_per_layer_flop"]), besides=float(record["seconds_besides"]))


def _measure(task: Task) -> dict[str, Any]:
    rotation = _Rotation(_parts(task.shape))
    compiled = own_settings(task.config).torch_compile
    model, timer = build_model(task.config, task.model_config), _Timer()
    rule, net = try_task(model, task), attach_to_task(model, task, compile=compiled)
    steps = _WARM_UP + _ROUNDS * len(rotation.parts)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [ActivateCallback(net, rotation), timer]
        TaskTrainer(task, Path(folder), net, callbacks, steps, rule, eval_on_start=False, report_to="none").train()
    seconds = [
        statistics.median(timer.seconds[step] for step in range(_WARM_UP, steps) if rotation.subnetwork(step) == part)
        for part in rotation.parts
    ]
    flops = [task.costs.of_layers(part, task.shape) for part in rotation.parts]
    per_flop, besides = fit(flops, seconds)
    return {
        "format": FORMAT,
        "parts": [
            {"layers": p.sizes, "layer_flops": f, "seconds": s}
            for p, f, s in zip(rotation.parts, flops, seconds, strict=True)
        ],
        "seconds_per_layer_flop": per_flop,
        "seconds_besides": besides,
        "environment": describe_environment(),
    }


def fit(flops: list[float], seconds: list[float]) -> tuple[float, float]:
    """The (b, a) of the line seconds = a + b * FLOPs through the measured steps; a is not below 0.

    Raises:
        RaptrError: the line does not rise noticeably.

    Example:
        >>> b, a = fit([1.0, 2.0, 3.0], [1.5, 2.0, 2.5])
        >>> round(b, 6), round(a, 6)
        (0.5, 1.0)
    """
    x, y = np.array(flops), np.array(seconds)
    slope = float(np.polyfit(x, y, 1)[0]) if len(set(flops)) > 1 else 0.0
    if slope * np.ptp(x) <= _NOTICEABLE * y.mean():
        raise RaptrError(
            f"steps that run more layers are not slower here ({', '.join(f'{s:.4f} s' for s in seconds)}), so a budget "
            "in seconds cannot be planned; use a larger model or batch, or --budget flops."
        )
    besides = float(np.mean(y - slope * x))
    return (slope, besides) if besides >= 0 else (float((x * y).sum() / (x * x).sum()), 0.0)


def _parts(shape: ModelShape) -> tuple[Subnetwork, ...]:
    """About a third, two thirds and all of the layers, evenly spread, with those that must run."""
    parts = []
    for third in (1, 2, 3):
        paths = []
        for stack in shape.stacks:
            size = max(1, round(stack.layers * third / 3))
            spread = {round(i * (stack.layers - 1) / max(size - 1, 1)) for i in range(size)}
            paths.append(tuple(sorted(spread | {layer for layer, _ in stack.required})))
        parts.append(Subnetwork(tuple(paths)))
    return tuple(dict.fromkeys(parts))


@dataclass(frozen=True)
class _Rotation:
    """A plan that runs one part after the other."""

    parts: tuple[Subnetwork, ...]

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        return self.parts[step % len(self.parts)]

    def transition(self, step: int) -> tuple[Copy, ...]:
        return ()


class _Timer(TrainerCallback):  # type: ignore[misc]
    """The seconds of every step, from the end of the one before, so that loading data is in them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
