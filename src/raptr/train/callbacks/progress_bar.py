"""The progress bar of a run: stage, path length, loss, and the time that is left.

Later stages of a growing schedule are dearer than earlier ones, so the time left is predicted from
the FLOPs left, not from the steps left.
"""

from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.plan import LayerCosts, plan_cost
from raptr.train.callback import ProgressiveCallback
from raptr.train.callbacks.metrics import MetricsCallback


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Shows a run on the console: a bar on a terminal, a line per validation elsewhere."""

    def __init__(
        self,
        title: str,
        console: Console,
        progressive: ProgressiveCallback,
        metrics: MetricsCallback,
        costs: LayerCosts,
    ) -> None:
        self._title = title
        self._console = console
        self._progressive = progressive
        self._metrics = metrics
        self._costs = costs
        self._expected = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _TimeLeft(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task(title, total=None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        assert self._progressive.plan is not None
        self._expected = sum(cost.total for cost in plan_cost(self._progressive.plan, self._costs))
        self._bar.update(self._task, total=self._expected)
        self._bar.start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar to the FLOPs done."""
        if state.global_step:
            self._bar.update(
                self._task,
                completed=min(self._metrics.progress.total_flops, self._expected),
                description=self._describe(state),
                left=self.seconds_left(),
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Without a terminal, print a line."""
        if not (self._console.is_terminal or self._metrics.between_validations) and state.global_step:
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
        plan = self._progressive.plan
        assert plan is not None
        step = max(state.global_step - 1, 0)
        stage = plan.stage(step)
        kept = "+".join(map(str, plan.subnetwork(step).sizes))
        loss, eval_loss = self._metrics.progress.loss, self._metrics.progress.eval_loss
        parts = [
            f"{self._title}: step {state.global_step}/{state.max_steps}",
            f"stage {plan.stages.index(stage) + 1}/{len(plan.stages)}",
            f"{kept} of {'+'.join(map(str, plan.shape.layers))} layers",
            *([] if loss is None else [f"loss {loss:.3f}"]),
            *([] if eval_loss is None else [f"validation {eval_loss:.3f}"]),
        ]
        return ", ".join(parts)


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return Text("" if left is None else f"{timedelta(seconds=round(left))} left", style="cyan")
