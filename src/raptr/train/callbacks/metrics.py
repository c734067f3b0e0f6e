"""Totals of a run, and its record: metrics.jsonl, one JSON object a line, append-only."""

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.plan import LayerCosts, ModelShape, Subnetwork
from raptr.rundir.json_record import to_json
from raptr.rundir.metrics_lines import COUNTERS, EvalLine, Line, Totals, TrainLine
from raptr.rundir.paths import METRICS
from raptr.train.callbacks.activate import ActivateCallback
from raptr.train.callbacks.boundary import Boundaries
from raptr.train.callbacks.nonfinite import FiniteCallback
from raptr.train.ranks import is_main
from raptr.train.run import Run

ACTIVE = "_active"
"""Ends the name of a validation that was measured with the part that was trained, not with the full model."""


@dataclass
class Progress(Totals):
    """Running totals of a run, and its last losses.

    Attributes:
        loss: the training loss of the last step; None before the first.
        eval_loss: the full model's last validation loss, the mean over validation sources; None before
            the first.
        eval_losses: the same by source.
    """

    loss: float | None = None
    eval_loss: float | None = None
    eval_losses: dict[str, float] = field(default_factory=dict)

    def totals(self) -> Totals:
        """The totals as they are recorded."""
        so_far = {name: getattr(self, name) for name in COUNTERS}
        return Totals(**{**so_far, "seconds": round(self.seconds, 4)})


def _mean(losses: Mapping[str, float]) -> float:
    return sum(losses.values()) / len(losses)


def _mean_of(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _number(value: Any) -> Any:
    """A loss that was not finite is null in a file."""
    if isinstance(value, dict):
        return {key: _number(part) for key, part in value.items()}
    return math.nan if value is None else value


def layer_flops(
    parts: Sequence[Subnetwork], shape: ModelShape, costs: LayerCosts, sequences: int | None = None, ranks: int = 1
) -> float:
    """Return the FLOPs of the layers that really ran in a step: the mean over its micro-steps.

    Args:
        parts: the subnetwork of each micro-step.
        shape: of the model.
        costs: of one step of the whole batch.
        sequences: of one micro-step of a rank, if layers run on some of them.
        ranks: how many there are.
    """
    if len(set(parts)) == 1:
        parts = parts[:1]
    return _mean_of(costs.of_layers(part, shape, sequences, ranks) for part in parts)


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, on rank 0, and keeps the totals, which are those of all ranks.

    The lines are those of `raptr.rundir.metrics_lines`: a `TrainLine` after each step, a `BoundaryLine` when a
    stage has begun (`Boundaries`), and an `EvalLine` after each validation. While the full model holds layers that were
    never trained, an evaluation also has the loss of the part that was.

    Args:
        run: the run.
        active: knows what the current step trains.
        nonfinite: counts the steps without an update.

    Attributes:
        progress: the totals so far.
    """

    def __init__(self, run: Run, active: ActivateCallback, nonfinite: FiniteCallback) -> None:
        self.progress = Progress()
        self._run = run
        self._active = active
        self._nonfinite = nonfinite
        self._path = run.folder / METRICS
        self._validations = tuple(run.task.validation_data())
        self._boundaries = Boundaries()
        self._tokens_per_second = 0.0
        self._mfu: float | None = None
        self._measured: dict[str, float] = {}
        self._measured_active: dict[str, float] = {}
        self._mark = 0.0
        self._bytes = 0

    @property
    def between_validations(self) -> bool:
        """Whether some validation sources were measured and others not yet."""
        return bool(self._measured or self._measured_active)

    def snapshot(self) -> dict[str, Any]:
        """The totals and how much of the file belongs to them, for a checkpoint; the file is on disk then."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        return {
            "bytes": self._path.stat().st_size,
            "progress": asdict(self.progress),
            "losses": self._boundaries.losses,
            "skipped": self._nonfinite.snapshot(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's snapshot; what was recorded after it is cut off when training begins."""
        self.progress = Progress(**{k: _number(v) for k, v in snapshot["progress"].items()})
        self._bytes = snapshot["bytes"]
        self._boundaries.losses = [_number(loss) for loss in snapshot["losses"]]
        self._nonfinite.restore(snapshot["skipped"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file and the clock."""
        if is_main():
            self._path.touch()
            os.truncate(self._path, self._bytes)
        self._mark = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add what the step did; ask for a validation after the last one."""
        now = time.perf_counter()
        tokens, layers, other = self._work(state.global_step - 1, args)
        seconds, peak = now - self._mark, self._run.own.peak_flops
        self._tokens_per_second = round(tokens / seconds, 1)
        if peak is not None:
            self._mfu = round((layers + other) / (seconds * args.world_size * peak), 4)
        self.progress.seconds += seconds
        self.progress.tokens += int(tokens)
        self.progress.layer_flops += layers
        self.progress.total_flops += layers + other
        self._mark = now
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the step's line."""
        if logs is None or "loss" not in logs:
            return
        self.progress.loss = logs["loss"]
        self.write(
            TrainLine(
                step=state.global_step,
                stage=self._run.stage_number(state.global_step),
                layers=self._active.drawn[0].layers,
                loss=logs["loss"],
                auxiliary_loss=logs.get("auxiliary_loss"),
                grad_norm=logs.get("grad_norm"),
                learning_rate=logs["learning_rate"],
                skipped_updates=self._nonfinite.skipped.total,
                totals=self.progress.totals(),
                tokens_per_second=self._tokens_per_second,
                mfu=self._mfu,
            )
        )
        jump = self._boundaries.add(self._run.plan, state.global_step - 1, logs["loss"])
        if jump is not None:
            self.write(jump)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the validation's line once every source was measured; its time does not count."""
        assert metrics is not None
        for name in self._validations:
            for key, measured in ((name, self._measured), (f"{name}{ACTIVE}", self._measured_active)):
                if f"eval_{key}_loss" in metrics:
                    measured[name] = metrics[f"eval_{key}_loss"]
        if len(self._measured) == len(self._validations):
            self._write_evaluation(state.global_step)
        self._mark = time.perf_counter()

    def _write_evaluation(self, step: int) -> None:
        losses, self._measured = self._measured, {}
        active, self._measured_active = self._measured_active, {}
        several = len(losses) > 1
        self.progress.eval_losses = losses
        self.progress.eval_loss = _mean(losses)
        self.write(
            EvalLine(
                step=step,
                stage=self._run.stage_number(step),
                totals=self.progress.totals(),
                eval_loss=self.progress.eval_loss,
                eval_losses=losses if several else None,
                eval_loss_active=_mean(active) if active else None,
                eval_losses_active=active if active and several else None,
            )
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Saving does not count either."""
        self._mark = time.perf_counter()

    def _work(self, step: int, args: TrainingArguments) -> tuple[float, float, float]:
        """Tokens of a step, FLOPs of its layers and FLOPs besides the layers."""
        task, shape, parts = self._run.task, self._run.plan.shape, self._active.drawn
        sequences, ranks = args.train_batch_size, args.world_size
        if task.denoised is None:
            layers = layer_flops(parts, shape, task.costs, sequences, ranks)
            return task.tokens_per_step, layers, task.costs.other
        done = [task.work(step, micro) for micro in range(len(parts))]
        layers = _mean_of(
            one.costs.of_layers(part, shape, sequences, ranks) for one, part in zip(done, parts, strict=True)
        )
        return sum(one.tokens for one in done), layers, _mean_of(one.costs.other for one in done)

    def write(self, line: Line) -> None:
        """Add a line to metrics.jsonl, on the main process."""
        if not is_main():
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")
