"""The Trainer of raptr's own runs: its data, objective and arguments, and what is not as in Hugging Face's."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.loss.loss_utils import ForMaskedLMLoss

from raptr.data import Collator, WindowCollator
from raptr.model import attach_head, find_stacks
from raptr.plan import Subnetwork, lr_factor_of, trained_part
from raptr.rundir.json_record import as_record
from raptr.rundir.paths import CHECKPOINTS, TENSORBOARD
from raptr.train.callback import ProgressiveCallback
from raptr.train.callbacks.metrics import ACTIVE, MetricsCallback
from raptr.train.callbacks.nonfinite import FiniteCallback
from raptr.train.hf.fsdp import units_of, whole_weights
from raptr.train.hf.validation import Padded, PaddedCollator, weighted
from raptr.train.ranks import is_main
from raptr.train.resume.checkpoint import written
from raptr.train.resume.config_diff import OwnHyperparameters
from raptr.train.setup.arguments import build_arguments
from raptr.train.task import Task

"""The folder of a run's checkpoints; it is there until the run is finished."""


class Trainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer, with raptr's totals in its logs, so that TensorBoard and others show them too."""

    metrics: MetricsCallback | None = None
    progressive: ProgressiveCallback | None = None
    finite: FiniteCallback | None = None
    data_collator: Collator | WindowCollator | PaddedCollator
    validation_collator: Collator | WindowCollator
    _mean_predicted: float | None = None
    changed: bool = False
    _partial: Path | None = None
    _stretch: float = 1.0

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        data = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset or self.eval_dataset
        self._mean_predicted, self._stretch = getattr(data, "mean_predicted", None), 1.0
        training_collator = self.data_collator
        self.data_collator = self.validation_collator
        if self.args.world_size > 1:
            data = Padded(data, self.args.eval_batch_size * self.args.world_size)
            self._stretch, self.data_collator = data.stretch, PaddedCollator(self.validation_collator)
        try:
            return super().get_eval_dataloader(data)
        finally:
            self.data_collator = training_collator

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

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        own = OwnHyperparameters(self.optimizer, self.lr_scheduler) if self.changed else None
        super()._load_optimizer_and_scheduler(checkpoint)
        if own is not None:
            own.restore()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint under another name, which it gets when it is whole."""
        if self.metrics is None:
            super()._save_checkpoint(model, trial)
            return
        kept = self.metrics.snapshot() if is_main() else None
        with written(Path(self.args.output_dir), self.state.global_step, kept) as self._partial:
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._partial = None

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._partial is None else str(self._partial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.metrics is not None:  # the arguments are a pickle that only its own code reads; config.yaml says it all
            Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole model, also where the checkpoints of a sharded one are in shards."""
        if self.is_fsdp_enabled and not _internal_call:
            gathered = self.accelerator.get_state_dict(self.model)
            self._save(output_dir, state_dict=whole_weights(self.model, gathered))
        else:
            super().save_model(output_dir, _internal_call)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self.finite is not None:
            self.finite.saw_loss(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)
        if self.finite is not None:
            self.finite.saw_norm(norm)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            self._tr_loss.zero_()  # what the Trainer subtracted from it leaves no number in it for good
        if "loss" in logs and self.progressive is not None and self.progressive.plan is not None:
            factor = lr_factor_of(self.progressive.plan, self.state.global_step - 1)
            logs = {**logs, "learning_rate": logs["learning_rate"] * factor}
        if "loss" in logs and self.metrics is not None:
            logs = {**logs, **as_record(self.metrics.progress.totals())}
        if "total_flos" in logs and self.metrics is not None:
            logs = {**logs, "total_flos": self.metrics.progress.total_flops}
        super().log(logs, start_time)
        if self.metrics is not None:
            self.state.log_history = newest_of_each_kind(self.state.log_history)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The full model; before it, while that holds layers which were never trained, the part that was."""
        part = None
        if not isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            part = self._trained_part()
        if part is not None:
            assert self.progressive is not None
            assert self.progressive.net is not None
            with self.progressive.net.using(part):
                super().evaluate(eval_dataset, ignore_keys, f"{metric_key_prefix}{ACTIVE}")
        found: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return found

    def try_full(self, samples: Iterable[int]) -> None:
        """Run the full model once, forward and backward, on these samples; nothing is left of it.

        Raises:
            RaptrError: it does not fit into memory.
        """
        assert self.progressive is not None
        assert self.progressive.net is not None
        batch = self.data_collator([self.train_dataset[sample] for sample in samples])
        with self.progressive.net.trial():
            items = self._get_num_items_in_batch([batch], self.args.device)
            self.current_gradient_accumulation_steps = 1  # set in the Trainer's loop, and read for some models
            self.training_step(self.model_wrapped, batch, items)

    def _trained_part(self) -> Subnetwork | None:
        if self.progressive is None or self.progressive.plan is None:
            return None
        return trained_part(self.progressive.plan, max(self.state.global_step - 1, 0))


def newest_of_each_kind(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the Trainer's log, what a callback may ask for: the last entry of those that have the same keys.

    The Trainer keeps all of them, in memory and in every checkpoint; of a run they are in ``metrics.jsonl``.

    Example:
        >>> newest_of_each_kind([{"loss": 3.0, "step": 1}, {"eval_loss": 2.5, "step": 1}, {"loss": 2.0, "step": 2}])
        [{'eval_loss': 2.5, 'step': 1}, {'loss': 2.0, 'step': 2}]
    """
    last = {frozenset(entry): number for number, entry in enumerate(entries)}
    return [entries[number] for number in sorted(last.values())]


class ProbeCallback(TrainerCallback):  # type: ignore[misc]
    """Tries the full model when a training begins.

    Attributes:
        trainer: the Trainer, once it is made.
        samples: what is tried on; nothing is, if there are none.
    """

    trainer: Trainer | None = None
    samples: Iterable[int] = ()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Run it once."""
        if self.samples:
            assert self.trainer is not None
            self.trainer.try_full(self.samples)


def make_trainer(task: Task, folder: Path, model: Any, callbacks: list[Any], steps: int, **arguments: Any) -> Trainer:
    """The Trainer of a task: its data, objective and arguments.

    Args:
        task: of `prepare_task`.
        folder: the run's folder.
        model: of `build_model`.
        callbacks: of the run.
        steps: how many the Trainer takes.
        arguments: of the Trainer, beside those of the config's ``training``.
    """
    config = task.config
    if task.predictions is not None:
        attach_head(model)
    blocks = [block for stack in find_stacks(model) for block in stack.blocks]
    arguments |= units_of(config, blocks)
    trainer = Trainer(
        model=model,
        args=build_arguments(config, folder / CHECKPOINTS, max_steps=steps, **arguments),
        train_dataset=task.training_data(steps),
        eval_dataset=task.validation_data(),
        data_collator=task.collator(),
        processing_class=task.tokenizer,
        compute_loss_func=_loss_of(task),
        callbacks=callbacks,
    )
    trainer.validation_collator = task.collator(validation=True)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(folder / TENSORBOARD)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.create_optimizer_and_scheduler(steps)  # so that what is wrong with them shows now
    return trainer


def _loss_of(task: Task) -> Any:
    """The mean over the labels of a step, of models that do not take it so by themselves."""
    encoder_decoder = task.denoised is not None and task.denoised.alike
    return _masked_loss if encoder_decoder or task.config.objective.name == "masked" else None


def _masked_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """The mean over all masked positions of the step, which are all that there are logits of.

    Masked models take the number of positions of all micro-batches but do not use it, so under
    gradient accumulation the Trainer would add up their losses instead of averaging them.
    """
    logits = outputs["logits"]
    return ForMaskedLMLoss(logits, labels, vocab_size=logits.shape[-1], num_items_in_batch=num_items_in_batch)
