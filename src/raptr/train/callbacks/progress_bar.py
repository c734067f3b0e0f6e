"""The progress bar of a run: stage, path length, loss, and the time that is left.

Later stages of a growing schedule are dearer than earlier ones, so the time left is predicted from
the FLOPs left, not from the steps left.
"""

from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.plan import plan_cost
from raptr.train.callbacks.activate import ActivateCallback
from raptr.train.callbacks.metrics import MetricsCallback
from raptr.train.run import Run


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Shows a run on the console: a bar on a terminal, a line per validation elsewhere.

    Args:
        run: the run.
        active: knows what the current step trains.
        metrics: knows the totals and the losses.
    """

    def __init__(self, run: Run, active: ActivateCallback, metrics: MetricsCallback) -> None:
        self._title = run.title
        self._console = run.console
        self._run = run
        self._active = active
        self._metrics = metrics
        self._expected = sum(cost.total for cost in plan_cost(run.plan, run.task.costs))
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _TimeLeft(),
            console=run.console,
            disable=not run.console.is_terminal,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task(run.title, total=None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        self._bar.update(self._task, total=self._expected)
        self._bar.start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar to the FLOPs done."""
        if state.global_step and self._active.drawn:  # a run that was killed after its last step has none
            self._bar.update(
                self._task,
                completed=min(self._metrics.progress.total_flops, self._expected),
                description=self._describe(state),
                left=self.seconds_left(),
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Without a terminal, print a line."""
        if not (self._console.is_terminal or self._metrics.between_validations) and self._active.drawn:
            left = self.seconds_left()
            hint = "" if left is None else f", {timedelta(seconds=round(left))} left"
            self._console.print(self._describe(state) + hint, highlight=False, soft_wrap=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave one line behind."""
        self._bar.stop()
        done = self._metrics.progress
        self._console.print(
            f"{self._title}: {state.global_step} steps in {timedelta(seconds=round(done.seconds))}, "
            f"validation {done.eval_loss:.4f}",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Take the bar away, also after an interruption."""
        self._bar.stop()

    def seconds_left(self) -> float | None:
        """The predicted time left: the time so far times the FLOPs left over the FLOPs done."""
        done = self._metrics.progress
        if not done.total_flops:
            return None
        return done.seconds * max(self._expected - done.total_flops, 0.0) / done.total_flops

    def _describe(self, state: TrainerState) -> str:
        plan = self._run.plan
        kept = "+".join(map(str, self._active.drawn[0].sizes))
        loss, eval_loss = self._metrics.progress.loss, self._metrics.progress.eval_loss
        parts = [
            f"{self._title}: step {state.global_step}/{state.max_steps}",
            f"stage {self._run.stage_number(state.global_step) + 1}/{len(plan.stages)}",
            f"{kept} of {'+'.join(map(str, plan.shape.layers))} layers",
            *([] if loss is None else [f"loss {loss:.3f}"]),
            *([] if eval_loss is None else [f"validation {eval_loss:.3f}"]),
        ]
        return ", ".join(parts)


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return Text("" if left is None else f"{timedelta(seconds=round(left))} left", style="cyan")
