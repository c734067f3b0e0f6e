"""From a config to a trained model: data, model and method on Hugging Face's Trainer."""

import json
import math
import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.loss.loss_utils import ForMaskedLMLoss

from raptr.config import SMALLER, RunConfig, dump
from raptr.data import Collator, WindowCollator
from raptr.errors import RaptrError, Stopped
from raptr.model import CONVENTION, attach_head, find_stacks
from raptr.plan import Method, Plan, Subnetwork, lr_factor_of, trained_part
from raptr.train.arguments import build_arguments
from raptr.train.attention import check_attention
from raptr.train.build import build_model
from raptr.train.callback import ProgressiveCallback
from raptr.train.changes import (
    CONFIG,
    FACTS,
    Change,
    OwnHyperparameters,
    config_changes,
    engine_change,
    fact_changes,
    longer,
    refuse,
)
from raptr.train.checkpoint import Checkpoint, newest_checkpoint, remove_checkpoints, written
from raptr.train.environment import describe_environment
from raptr.train.finite import Diverged, FiniteCallback
from raptr.train.folder import Result, check_folder, read_result, write_json, write_text
from raptr.train.lock import locked
from raptr.train.metrics import ACTIVE, MetricsCallback, Progress
from raptr.train.own import own_settings
from raptr.train.progress import ProgressCallback
from raptr.train.ranks import engine_of, from_main, is_main, world_size
from raptr.train.sharding import check_tied, units_of, whole_weights
from raptr.train.stop import Stop, StopCallback
from raptr.train.task import Task
from raptr.train.tokens import said_of
from raptr.train.validation import Padded, PaddedCollator, weighted

CHECKPOINTS = "checkpoints"
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
            logs = {**logs, **self.metrics.progress.totals()}
        super().log(logs, start_time)

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
            self.training_step(self.model_wrapped, batch, items)

    def _trained_part(self) -> Subnetwork | None:
        if self.progressive is None or self.progressive.plan is None:
            return None
        return trained_part(self.progressive.plan, max(self.state.global_step - 1, 0))


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


def train(
    task: Task,
    folder: Path,
    *,
    console: Console,
    command: str = "",
    title: str | None = None,
    stop: Stop | None = None,
    keep_diverged: bool = False,
    allowed: Collection[str] = (),
) -> Result:
    """Train the model of a task with its config's method, and keep everything in a run folder.

    The folder holds ``config.yaml`` (resolved), ``run.json`` (the plan, the data, the environment),
    ``metrics.jsonl``, ``checkpoints/`` while it is trained and, when it is finished, ``model/`` (an
    ordinary Hugging Face checkpoint with its tokenizer) and ``result.json``. A finished run is not
    trained again; an unfinished one goes on from its newest whole checkpoint.

    Args:
        task: of `prepare_task`.
        folder: the run's folder; made if it is missing.
        console: where progress is shown.
        command: the command that was given, for the record.
        title: what the progress bar calls the run; the folder's name if not given.
        stop: when to stop early; by default on SIGINT and SIGTERM, which are heard while the model is trained.
        keep_diverged: whether a run that stops because too many updates were no numbers is a finished one, with
            a validation loss that is none.
        allowed: what may be another than when the run in the folder was begun, see `raptr.train.changes.refuse`.

    Returns:
        The content of ``result.json``.

    Raises:
        RaptrError: the method does not fit, the folder holds something else, another process works in it, or
            the run in it is another one: of another config, on other data, with other versions.
        Diverged: too many updates in a row were no numbers.
        Stopped: it was to stop, and the same call goes on.
    """
    existed, method = folder.exists(), task.config.build_method()
    facts = _facts(task, task.plan(method), _label(task, method), command)
    with ExitStack() as held:
        from_main(lambda: check_folder(folder, CONFIG))
        from_main(lambda: held.enter_context(locked(folder)))
        return _train(task, folder, existed, facts, console, title, stop or Stop(), keep_diverged, allowed)


def _train(
    task: Task,
    folder: Path,
    existed: bool,
    facts: dict[str, Any],
    console: Console,
    title: str | None,
    stop: Stop,
    keep_diverged: bool,
    allowed: Collection[str],
) -> Result:
    config = task.config
    title = title or folder.name
    console = console if is_main() else Console(quiet=True)
    finished, checkpoint, changes = from_main(lambda: _found(folder, config, facts, allowed))
    if finished is not None:
        from_main(lambda: _clear(task, folder))
        console.print(f"{title}: finished before", highlight=False, soft_wrap=True)
        return finished

    if task.added:
        console.print(f"{title}: {said_of(task.added)}", highlight=False, soft_wrap=True, markup=False)
    model = build_model(config, task.model_config)
    if task.denoised is not None and not task.denoised.alike:
        check_attention(model, prefix=task.denoised.settings.attention == "prefix")
    uses_cache = getattr(model.config, "use_cache", None)  # the Trainer turns it off, for training
    own = own_settings(config)
    if own.torch_compile:
        console.print(f"{title}: each layer is compiled by itself, one graph for all paths", highlight=False)
    inactive = config.settings(config.method).policy
    progressive = ProgressiveCallback(config.build_method(), inactive=inactive, compile=own.torch_compile)
    probe = ProbeCallback()
    metrics = MetricsCallback(
        folder / "metrics.jsonl",
        progressive,
        task.costs,
        task.tokens_per_step,
        list(task.validation_data()),
        task.work if task.denoised else None,
        own.peak_flops,
    )
    finite = FiniteCallback(config.stability.max_skipped_updates, progressive)
    metrics.finite, stopping = finite, StopCallback(stop)
    bar = ProgressCallback(title, console, progressive, metrics, task.costs)
    try:
        trainer = make_trainer(
            task,
            folder,
            model,
            [progressive, probe, metrics, bar, stopping, finite],
            task.steps,
            eval_strategy="steps",
            eval_steps=config.evaluation.interval(task.steps),
            eval_on_start=checkpoint is None,
            save_strategy="steps",
            save_steps=config.checkpoints.interval(task.steps),
        )
        trainer.metrics, trainer.progressive, trainer.finite = metrics, progressive, finite
        on_accelerator = trainer.args.device.type != "cpu"
        if own.probe_memory or (own.probe_memory is None and on_accelerator):
            probe.trainer, probe.samples = trainer, task.dearest(trainer.args.train_batch_size)
        facts["environment"]["engine"] = engine = engine_of(trainer)
        if engine == "fsdp2":
            check_tied(model)
        if checkpoint is not None:
            from_main(lambda: refuse(folder, engine_change(folder, facts), allowed))
    except (ValueError, RuntimeError, ImportError) as error:
        if not existed and is_main():
            shutil.rmtree(folder, ignore_errors=True)  # the Trainer makes its folder before it looks at its arguments
        if isinstance(error, RaptrError):
            raise
        raise RaptrError(f"training is not valid: {error}") from error

    from_main(lambda: _begin(folder, config, facts, checkpoint, changes))
    if checkpoint is not None:
        metrics.restore(checkpoint.metrics)
        said = f" with {'; '.join(map(str, changes))}" if changes else ""
        console.print(f"{title}: goes on after step {checkpoint.step}{said}", highlight=False, soft_wrap=True)
        trainer.changed = bool(changes)
    try:
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    except Diverged as error:
        if not keep_diverged:
            raise
        console.print(f"{title}: {error}", highlight=False, soft_wrap=True, markup=False)
        return from_main(lambda: _end(task, folder, _diverged(task, metrics.progress)))
    except RaptrError:
        if not existed and is_main() and not (folder / "metrics.jsonl").exists():
            shutil.rmtree(folder, ignore_errors=True)  # nothing was trained; what mends it makes another run
        raise
    finally:
        bar.close()
    if stopping.reason is not None:
        raise Stopped(f"{title}: stopped {stopping.reason}, after step {trainer.state.global_step} of {task.steps}")

    if uses_cache is not None:
        model.config.use_cache = uses_cache
    trainer.save_model(str(folder / "model"))
    return from_main(lambda: _end(task, folder, _result(task, metrics.progress)))


def _found(
    folder: Path, config: RunConfig, facts: dict[str, Any], allowed: Collection[str]
) -> tuple[Result | None, Checkpoint | None, list[Change]]:
    """What a run's folder holds: the result of a finished run, a checkpoint; and what is no more as it was."""
    begun = (folder / FACTS).exists()
    more = longer(folder, facts) if begun else set()
    changes = refuse(folder, config_changes(folder, config), {*allowed, *more})
    finished = read_result(folder)
    checkpoint = newest_checkpoint(folder / CHECKPOINTS, folder / "metrics.jsonl")
    if begun and (finished is not None or checkpoint is not None):
        changes += refuse(folder, fact_changes(folder, facts), {*allowed, *more})
    if finished is None or finished["steps"] >= facts["steps"]:
        return finished, checkpoint, changes
    if checkpoint is None:
        raise RaptrError(
            f"the run in {folder} is finished, after {finished['steps']} steps, and kept no checkpoint, so it cannot "
            f"go on to {facts['steps']}; give another --output. checkpoints.keep_last=true keeps one for the next time."
        )
    return None, checkpoint, changes


def _begin(
    folder: Path, config: RunConfig, facts: dict[str, Any], checkpoint: Checkpoint | None, changes: Sequence[Change]
) -> None:
    """Make a folder this run's own, and clear it of what a stopped run left behind its last checkpoint."""
    if checkpoint is not None:
        before = json.loads((folder / FACTS).read_text(encoding="utf-8")).get("changes", [])
        facts["changes"] = [*before, *({"after_step": checkpoint.step, **asdict(change)} for change in changes)]
    write_text(folder / CONFIG, dump(config))
    (folder / "result.json").unlink(missing_ok=True)
    for leftover in ("model", *(["tensorboard"] if checkpoint is None else [])):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    remove_checkpoints(folder / CHECKPOINTS, but=checkpoint.path if checkpoint else None)
    write_json(folder / FACTS, facts)


def _end(task: Task, folder: Path, result: Result) -> Result:
    """The run is finished."""
    (folder / "model" / "training_args.bin").unlink(missing_ok=True)  # a pickle, and config.yaml says it all
    write_json(folder / "result.json", result)
    _clear(task, folder)
    return result


def _clear(task: Task, folder: Path) -> None:
    """A finished run needs no checkpoints; the last one may be wanted."""
    last = folder / CHECKPOINTS / f"checkpoint-{task.steps}"
    remove_checkpoints(folder / CHECKPOINTS, but=last if task.config.checkpoints.keep_last and last.exists() else None)


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
            callback.logging_dir = str(folder / "tensorboard")
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


def _diverged(task: Task, progress: Progress) -> Result:
    """A result in which no loss is a number."""
    losses = dict.fromkeys(task.validation_data(), math.nan)
    return _result(task, replace(progress, eval_loss=math.nan, eval_losses=losses))


def _result(task: Task, progress: Progress) -> Result:
    assert progress.eval_loss is not None
    return {
        "steps": task.steps,
        "epochs": task.epochs(task.steps),
        **progress.totals(),
        "eval_loss": progress.eval_loss,
        "eval_losses": progress.eval_losses,
    }


def _label(task: Task, method: Method) -> str:
    """What a run is called: its method, or the size of the smaller model that it trains."""
    if task.config.settings(task.config.method).method == SMALLER:
        return f"Smaller, {'+'.join(map(str, task.shape.layers))} layers"
    return str(method)


def _facts(task: Task, plan: Plan, label: str, command: str) -> dict[str, Any]:
    config = task.config
    return {
        "format": 1,
        "name": config.name,
        "method": config.method,
        "label": label,
        **({"control": SMALLER} if config.settings(config.method).method == SMALLER else {}),
        "seed": config.seed,
        "steps": task.steps,
        "plan": {
            "stacks": [{"name": stack.name, "layers": stack.layers} for stack in plan.shape.stacks],
            "stages": [
                {
                    "start": stage.start,
                    "stop": stage.stop,
                    "sizes": stage.sizes,
                    "warmup": stage.warmup,
                    "width": stage.width,
                }
                for stage in plan.stages
            ],
        },
        "model": {
            "architecture": task.model_config.model_type,
            "from_pretrained": config.model.from_pretrained,
            "parameters": task.parameters,
            "layer_parameters": task.layer_parameters,
        },
        "flops": {"convention": CONVENTION, "layers": task.costs.layers, "other": task.costs.other}
        | ({} if task.predictions is None else {"predictions": task.predictions}),
        "data": task.store.description,
        "validation": list(task.validation_data()),
        "environment": {**describe_environment(), "processes": world_size()},
        "command": command,
    }
