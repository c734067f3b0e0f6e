"""The Trainers of raptr, subclasses of Hugging Face's: here, and only here, its private names are used.

`TaskTrainer` is a Trainer of a task: its data, collators and loss, and a validation that weights batches by what they
predict. `RunTrainer` is the Trainer of a run: it records what the steps do, writes whole checkpoints and validates the
part that was trained. tests/train/hf/test_private_names.py pins the signature of each private name.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.loss.loss_utils import ForMaskedLMLoss

from raptr.data import Collator, WindowCollator
from raptr.model import AttachedModel
from raptr.plan import lr_factor_of
from raptr.rundir.json_record import as_record
from raptr.rundir.paths import CHECKPOINTS, TENSORBOARD
from raptr.train.callbacks.activate import ActivateCallback
from raptr.train.callbacks.metrics import ACTIVE, MetricsCallback
from raptr.train.callbacks.nonfinite import FiniteCallback
from raptr.train.callbacks.progress_bar import ProgressCallback
from raptr.train.callbacks.stop import StopCallback
from raptr.train.hf.fsdp import units_of, whole_weights
from raptr.train.hf.validation import Padded, PaddedCollator, mean_labels, weighted
from raptr.train.ranks import is_main
from raptr.train.resume.checkpoint import written
from raptr.train.resume.config_diff import OwnHyperparameters
from raptr.train.run import Run
from raptr.train.setup.arguments import build_arguments
from raptr.train.setup.objective_trial import LossRule, auxiliary_loss, token_loss
from raptr.train.task import Task


class TaskTrainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer of a task's data, with its objective.

    Args:
        task: of `prepare_task`.
        folder: of the run; checkpoints and TensorBoard's files go there.
        net: the attached model.
        callbacks: in the order in which they are called.
        steps: how many the Trainer takes.
        rule: how the model's loss comes about.
        arguments: of the Trainer, beside those of the config's ``training``.
    """

    data_collator: Collator | WindowCollator | PaddedCollator

    def __init__(
        self,
        task: Task,
        folder: Path,
        net: AttachedModel,
        callbacks: Sequence[TrainerCallback],
        steps: int,
        rule: LossRule,
        **arguments: Any,
    ) -> None:
        self._rule = rule
        self._added = list[torch.Tensor]()
        self._validation_collator = task.collator(validation=True)
        self._mean_predicted: float | None = None
        self._counted = dict[int, float]()
        self._counts_vary = task.config.objective.name == "masked"  # with the special tokens of a sequence
        self._stretch = 1.0
        arguments |= units_of(task.config, net.blocks)
        super().__init__(
            model=net.model,
            args=build_arguments(task.config, folder / CHECKPOINTS, max_steps=steps, **arguments),
            train_dataset=task.training_data(steps),
            eval_dataset=task.validation_data(),
            data_collator=task.collator(),
            processing_class=task.tokenizer,
            compute_loss_func=_loss_of(task, rule),
            callbacks=list(callbacks),
        )
        if self.pop_callback(TensorBoardCallback) is not None:
            self.add_callback(_TensorBoard(folder / TENSORBOARD))
        self.remove_callback(transformers.PrinterCallback)
        self.create_optimizer_and_scheduler(steps)  # so that what is wrong with them shows now

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        data = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset or self.eval_dataset
        self._mean_predicted, self._stretch = self._labels_of(data), 1.0
        training_collator = self.data_collator
        self.data_collator = self._validation_collator
        if self.args.world_size > 1:
            data = Padded(data, self.args.eval_batch_size * self.args.world_size)
            self._stretch, self.data_collator = data.stretch, PaddedCollator(self._validation_collator)
        try:
            return super().get_eval_dataloader(data)
        finally:
            self.data_collator = training_collator

    def _labels_of(self, data: Any) -> float | None:
        """How many labels a validation sequence has, the mean over all; None where all have as many."""
        if not self._counts_vary:
            return getattr(data, "mean_predicted", None)
        if id(data) not in self._counted:
            self._counted[id(data)] = mean_labels(data, self._validation_collator)
        return self._counted[id(data)]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Where a model adds terms to its loss, they count once a step; validation is the cross-entropy alone.

        cross-entropy over the labels of the step  +  mean over its micro-batches and ranks of the added terms
        """
        if not self._rule.adds:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels, outputs = inputs["labels"], model(**inputs)
        loss = token_loss(outputs["logits"], labels, shift=self._rule.shift, items=num_items_in_batch)
        if model.training:
            micro_steps = self.current_gradient_accumulation_steps
            if num_items_in_batch is None:
                loss = loss / micro_steps
            elif self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes  # over which gradients are averaged
            added = auxiliary_loss(outputs["loss"], outputs["logits"], labels, self._rule)
            self._added.append(added.detach())
            loss = loss + added / micro_steps
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing: the Trainer's estimate is that of the full model, and walks all of its parameters at each step.

        What really ran is counted by `MetricsCallback`.
        """
        return 0

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer averages the losses of batches by their sequences; ours are to count by what they predict."""
        labels, across_ranks = inputs["labels"], self.args.average_tokens_across_devices
        self.args.average_tokens_across_devices = False  # the mean of this rank's batch, and not its share in all
        try:
            loss, *rest = super().prediction_step(model, inputs, *args, **kwargs)
        finally:
            self.args.average_tokens_across_devices = across_ranks
        return (weighted(loss, labels, self._mean_predicted, self._stretch), *rest)


@dataclass(frozen=True, kw_only=True)
class RunCallbacks:
    """The callbacks of a run; `RunTrainer` says in which order they are called."""

    activate: ActivateCallback
    nonfinite: FiniteCallback
    metrics: MetricsCallback
    bar: ProgressCallback
    stop: StopCallback


class RunTrainer(TaskTrainer):
    """The Trainer of a run: records what it does, writes whole checkpoints, validates the part that was trained.

    Callbacks are called in this order, see `raptr.train.engine`: activate, trial, metrics, bar, stop, nonfinite.

    Args:
        run: the run.
        callbacks: of the run.
        arguments: of the Trainer, beside those of the config's ``training``.
    """

    def __init__(self, run: Run, callbacks: RunCallbacks, **arguments: Any) -> None:
        self._run = run
        self._metrics, self._nonfinite = callbacks.metrics, callbacks.nonfinite
        self._partial: Path | None = None
        ordered = (
            callbacks.activate,
            _TrialCallback(self),
            callbacks.metrics,
            callbacks.bar,
            callbacks.stop,
            callbacks.nonfinite,
        )
        super().__init__(run.task, run.folder, run.net, ordered, run.task.steps, run.rule, **arguments)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        own = OwnHyperparameters(self.optimizer, self.lr_scheduler) if self._run.changed else None
        super()._load_optimizer_and_scheduler(checkpoint)
        if own is not None:
            own.restore()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint under another name, which it gets when it is whole."""
        kept = self._metrics.snapshot() if is_main() else None
        with written(Path(self.args.output_dir), self.state.global_step, kept) as self._partial:
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._partial = None

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._partial is None else str(self._partial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save without the arguments, a pickle that only its own code reads; config.yaml holds them all."""
        super()._save(output_dir, state_dict)
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole model, also if the checkpoints of a sharded one are in shards."""
        if self.is_fsdp_enabled and not _internal_call:
            gathered = self.accelerator.get_state_dict(self.model)
            self._save(output_dir, state_dict=whole_weights(self.model, gathered))
        else:
            super().save_model(output_dir, _internal_call)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._nonfinite.saw_loss(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)
        self._nonfinite.saw_norm(norm)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the run's totals and the learning rate that the step had, so that all trackers show them."""
        if not math.isfinite(logs.get("loss", 0.0)):
            self._tr_loss.zero_()  # what the Trainer subtracted from it leaves no number in it for good
        if "loss" in logs:
            factor = lr_factor_of(self._run.plan, self.state.global_step - 1)
            logs = {**logs, "learning_rate": logs["learning_rate"] * factor}
            logs = {**logs, **as_record(self._metrics.progress.totals())}
            if self._added:
                added = self.accelerator.gather(torch.stack(self._added).mean())
                logs, self._added = {**logs, "auxiliary_loss": added.mean().item()}, []
        if "total_flos" in logs:
            logs = {**logs, "total_flos": self._metrics.progress.total_flops}
        super().log(logs, start_time)
        self.state.log_history = newest_of_each_kind(self.state.log_history)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The full model; before it, while that holds layers which were never trained, the part that was."""
        several = isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict)
        part = None if several else self._run.trained_part(self.state.global_step)
        if part is not None:
            with self._run.net.using(part):
                super().evaluate(eval_dataset, ignore_keys, f"{metric_key_prefix}{ACTIVE}")
        found: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return found

    def try_full(self, samples: Iterable[int]) -> None:
        """Run the full model once, forward and backward, on these samples; nothing is left of it.

        Raises:
            RaptrError: it does not fit into memory.
        """
        batch = self.data_collator([self.train_dataset[sample] for sample in samples])
        with self._run.net.trial():
            items = self._get_num_items_in_batch([batch], self.args.device)
            self.current_gradient_accumulation_steps = 1  # set in the Trainer's loop, and read for some models
            self.training_step(self.model_wrapped, batch, items)
        self._added.clear()

    def try_if_asked(self) -> None:
        """Try the full model if the config asks for it, or says nothing and the run is on an accelerator."""
        asked = self._run.own.probe_memory
        if asked or (asked is None and self.args.device.type != "cpu"):
            self.try_full(self._run.task.dearest(self.args.train_batch_size))


def newest_of_each_kind(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the Trainer's log, what a callback may ask for: the last entry of those that have the same keys.

    The Trainer keeps all of them, in memory and in every checkpoint; of a run they are in ``metrics.jsonl``.

    Example:
        >>> newest_of_each_kind([{"loss": 3.0, "step": 1}, {"eval_loss": 2.5, "step": 1}, {"loss": 2.0, "step": 2}])
        [{'eval_loss': 2.5, 'step': 1}, {'loss': 2.0, 'step': 2}]
    """
    last = {frozenset(entry): number for number, entry in enumerate(entries)}
    return [entries[number] for number in sorted(last.values())]


class _TrialCallback(TrainerCallback):  # type: ignore[misc]
    """Tries the full model when training begins, after the optimizer is prepared and before the clock starts."""

    def __init__(self, trainer: RunTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.try_if_asked()


class _TensorBoard(TensorBoardCallback):  # type: ignore[misc]
    """Writes to the run's folder; the Trainer's own would choose one by date and host."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.logging_dir = str(folder)


def _loss_of(task: Task, rule: LossRule) -> Any:
    """The mean over the labels of a step, of models that do not take it so by themselves."""
    if not rule.shift:
        return _masked_loss
    return _shifted_loss if rule.ours else None


def _shifted_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """The cross-entropy of a causal model whose own loss is not that of the next token."""
    return token_loss(outputs["logits"], labels, shift=True, items=num_items_in_batch)


def _masked_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """The mean over all masked positions of the step, which are all that there are logits of.

    Masked models take the number of positions of all micro-batches but do not use it, so under
    gradient accumulation the Trainer would add up their losses instead of averaging them.
    """
    logits = outputs["logits"]
    return ForMaskedLMLoss(logits, labels, vocab_size=logits.shape[-1], num_items_in_batch=num_items_in_batch)
