"""From a config to a trained model: data, model and method on Hugging Face's Trainer."""

import shutil
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console
from transformers.integrations import TensorBoardCallback
from transformers.loss.loss_utils import ForMaskedLMLoss

from raptr.config import SMALLER, dump
from raptr.data import Collator, WindowCollator
from raptr.errors import RaptrError
from raptr.model import CONVENTION, attach_head
from raptr.objectives.masked import IGNORED
from raptr.plan import Method, Plan, Subnetwork, lr_factor_of, trained_part
from raptr.train.arguments import build_arguments
from raptr.train.attention import check_attention
from raptr.train.build import build_model
from raptr.train.callback import ProgressiveCallback
from raptr.train.checkpoint import KEPT, CheckpointCallback, newest_checkpoint, remove_checkpoints
from raptr.train.environment import describe_environment
from raptr.train.folder import Result, check_folder, check_same, read_result, write_json, write_text
from raptr.train.metrics import ACTIVE, MetricsCallback, Progress
from raptr.train.progress import ProgressCallback
from raptr.train.task import Task
from raptr.train.tokens import said_of

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints; it is there until the run is finished."""


class Trainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer, with raptr's totals in its logs, so that TensorBoard and others show them too."""

    metrics: MetricsCallback | None = None
    progressive: ProgressiveCallback | None = None
    data_collator: Collator | WindowCollator
    validation_collator: Collator | WindowCollator
    _mean_predicted: float | None = None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        named = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        self._mean_predicted = getattr(self.eval_dataset if named is None else named, "mean_predicted", None)
        training_collator = self.data_collator
        self.data_collator = self.validation_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing: the Trainer's estimate is that of the full model, and walks all of its parameters at each step.

        What really ran is counted by `MetricsCallback`.
        """
        return 0

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer averages the losses of batches by their sequences; ours are to count by what they predict."""
        predicted = (inputs["labels"] != IGNORED).sum(dim=-1).float().mean()
        loss, *rest = super().prediction_step(model, inputs, *args, **kwargs)
        return (loss if self._mean_predicted is None else loss * predicted / self._mean_predicted, *rest)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.progressive is not None and self.progressive.plan is not None:
            factor = lr_factor_of(self.progressive.plan, self.state.global_step - 1)
            logs = {**logs, "learning_rate": logs["learning_rate"] * factor}
        if "loss" in logs and self.metrics is not None:
            logs = {**logs, **self.metrics.progress.totals()}
        if "total_flos" in logs and self.metrics is not None:
            logs = {**logs, "total_flos": self.metrics.progress.total_flops}
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

    def _trained_part(self) -> Subnetwork | None:
        if self.progressive is None or self.progressive.plan is None:
            return None
        return trained_part(self.progressive.plan, max(self.state.global_step - 1, 0))


def train(task: Task, folder: Path, *, console: Console, command: str = "", title: str | None = None) -> Result:
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

    Returns:
        The content of ``result.json``.

    Raises:
        RaptrError: the method does not fit, the folder holds something else, or the run in it was
            made from other data or with other versions.
    """
    config = task.config
    title = title or folder.name
    method = config.build_method()
    plan = task.plan(method)
    facts = _facts(task, plan, _label(task, method), command)
    check_folder(folder, dump(config), "config.yaml")
    checkpoint = newest_checkpoint(folder / CHECKPOINTS, folder / "metrics.jsonl")
    finished = read_result(folder)
    if finished is not None or checkpoint is not None:
        check_same(folder, facts)
    if finished is not None:
        remove_checkpoints(folder / CHECKPOINTS)
        console.print(f"{title}: finished before", highlight=False, soft_wrap=True)
        return finished

    existed = folder.exists()
    if task.added:
        console.print(f"{title}: {said_of(task.added)}", highlight=False, soft_wrap=True, markup=False)
    model = build_model(config, task.model_config)
    if task.denoised is not None and not task.denoised.alike:
        check_attention(model, prefix=task.denoised.settings.attention == "prefix")
    uses_cache = getattr(model.config, "use_cache", None)  # the Trainer turns it off, for training
    progressive = ProgressiveCallback(method, inactive=config.settings(config.method).policy)
    metrics = MetricsCallback(
        folder / "metrics.jsonl",
        progressive,
        task.costs,
        task.tokens_per_step,
        list(task.validation_data()),
        task.work if task.denoised else None,
    )
    bar = ProgressCallback(title, console, progressive, metrics, task.costs)
    try:
        trainer = make_trainer(
            task,
            folder,
            model,
            [progressive, metrics, bar, CheckpointCallback(metrics)],
            task.steps,
            eval_strategy="steps",
            eval_steps=config.evaluation.interval(task.steps),
            eval_on_start=checkpoint is None,
            save_strategy="steps",
            save_steps=config.checkpoints.interval(task.steps),
            save_total_limit=KEPT,
        )
        trainer.metrics, trainer.progressive = metrics, progressive
    except (ValueError, RuntimeError, ImportError) as error:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)  # the Trainer makes its folder before it looks at its arguments
        if isinstance(error, RaptrError):
            raise
        raise RaptrError(f"training is not valid: {error}") from error

    write_text(folder / "config.yaml", dump(config))
    for leftover in ("model", *(["tensorboard"] if checkpoint is None else [])):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    remove_checkpoints(folder / CHECKPOINTS, but=checkpoint)
    write_json(folder / "run.json", facts)
    if checkpoint is not None:
        metrics.restore(checkpoint.metrics)
        console.print(f"{title}: goes on after step {checkpoint.step}", highlight=False, soft_wrap=True)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    finally:
        bar.close()

    if uses_cache is not None:
        model.config.use_cache = uses_cache
    trainer.save_model(str(folder / "model"))
    (folder / "model" / "training_args.bin").unlink(missing_ok=True)  # a pickle, and config.yaml says it all
    result = _result(task, metrics.progress)
    write_json(folder / "result.json", result)
    remove_checkpoints(folder / CHECKPOINTS)
    return result


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
        "environment": describe_environment(),
        "command": command,
    }
