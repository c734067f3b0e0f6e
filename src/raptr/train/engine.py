"""From a config to a trained model: data, model and method on Hugging Face's Trainer."""

import json
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console
from transformers.integrations import TensorBoardCallback
from transformers.loss.loss_utils import ForMaskedLMLoss

from raptr.config import dump
from raptr.data import Collator
from raptr.errors import RaptrError
from raptr.model import CONVENTION
from raptr.plan import Plan
from raptr.train.build import build_arguments, build_model
from raptr.train.callback import ProgressiveCallback
from raptr.train.environment import describe_environment
from raptr.train.metrics import MetricsCallback, to_json
from raptr.train.progress import ProgressCallback
from raptr.train.task import Task

Result = dict[str, float]
"""What a finished run did: steps, tokens, epochs, FLOPs, seconds and the full model's last validation
loss, which is NaN if the run diverged (in the file, null)."""


class _Trainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer, with raptr's totals in its logs, so that TensorBoard and others show them too."""

    metrics: MetricsCallback
    data_collator: Collator
    validation_collator: Collator

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        training_collator = self.data_collator
        self.data_collator = self.validation_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self.metrics.progress.totals()}
        super().log(logs, start_time)


def train(task: Task, folder: Path, *, console: Console, command: str = "", title: str | None = None) -> Result:
    """Train the model of a task with its config's method, and keep everything in a run folder.

    The folder holds ``config.yaml`` (resolved), ``run.json`` (the plan, the data, the environment),
    ``metrics.jsonl`` and, when the run is finished, ``model/`` (an ordinary Hugging Face checkpoint
    with its tokenizer) and ``result.json``. A finished run is not trained again; an unfinished one
    starts again from step 0.

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
    plan = method.plan(task.shape, task.steps)
    facts = _facts(task, plan, str(method), command)
    check_folder(folder, dump(config), "config.yaml")
    finished = read_result(folder)
    if finished is not None:
        _check_same(folder, facts)
        console.print(f"{title}: finished before", highlight=False, soft_wrap=True)
        return finished

    existed = folder.exists()
    model = build_model(config, task.model_config)
    uses_cache = getattr(model.config, "use_cache", None)  # the Trainer turns it off, for training
    progressive = ProgressiveCallback(method, inactive=config.settings(config.method).inactive)
    metrics = MetricsCallback(folder / "metrics.jsonl", progressive, task.costs, task.tokens_per_step)
    bar = ProgressCallback(title, console, progressive, metrics, task.costs)
    try:
        trainer = _make_trainer(task, folder, model, [progressive, metrics, bar])
    except (ValueError, RuntimeError, ImportError) as error:
        if not existed:
            with suppress(OSError):
                folder.rmdir()  # the Trainer makes its folder before it looks at its arguments
        if isinstance(error, RaptrError):
            raise
        raise RaptrError(f"training is not valid: {error}") from error

    claim_folder(folder, dump(config), "config.yaml")
    for leftover in ("model", "tensorboard"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    write_json(folder / "run.json", facts)
    try:
        trainer.train()
    finally:
        bar.close()

    assert metrics.progress.eval_loss is not None
    if uses_cache is not None:
        model.config.use_cache = uses_cache
    trainer.save_model(str(folder / "model"))
    (folder / "model" / "training_args.bin").unlink(missing_ok=True)  # a pickle, and config.yaml says it all
    result: Result = {
        "steps": task.steps,
        "epochs": task.epochs(task.steps),
        **metrics.progress.totals(),
        "eval_loss": metrics.progress.eval_loss,
    }
    write_json(folder / "result.json", result)
    return result


def _make_trainer(task: Task, folder: Path, model: Any, callbacks: list[Any]) -> _Trainer:
    config = task.config
    arguments = build_arguments(
        config,
        folder,
        max_steps=task.steps,
        eval_strategy="steps",
        eval_steps=config.evaluation.interval(task.steps),
    )
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=task.training_data(task.steps),
        eval_dataset=task.validation_data(),
        data_collator=task.collator(),
        processing_class=task.store.tokenizer,
        compute_loss_func=_masked_loss if config.objective.name == "masked" else None,
        callbacks=callbacks,
    )
    trainer.metrics = callbacks[1]
    trainer.validation_collator = task.collator(validation=True)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(folder / "tensorboard")
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.create_optimizer_and_scheduler(task.steps)  # so that what is wrong with them shows now
    return trainer


def _masked_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """The mean over all masked positions of the step.

    Masked models take the number of positions of all micro-batches but do not use it, so under
    gradient accumulation the Trainer would add up their losses instead of averaging them.
    """
    logits = outputs["logits"]
    return ForMaskedLMLoss(logits, labels, vocab_size=logits.shape[-1], num_items_in_batch=num_items_in_batch)


def read_result(folder: Path) -> Result | None:
    """What a run folder's finished run did; None if it is not finished."""
    path = folder / "result.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: math.nan if value is None else value for name, value in content.items()}


def check_folder(folder: Path, record: str, file: str) -> None:
    """Refuse a folder that holds something other than this very run, by the record in it.

    Raises:
        RaptrError: it holds something else; nothing is touched.
    """
    existing = folder / file
    if existing.exists():
        old = existing.read_text(encoding="utf-8")
        if old != record:
            raise RaptrError(
                f"{folder} holds another run: {_difference(old, record)}. "
                "Give another --output (or name=...), or remove that folder."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RaptrError(f"{folder} exists and is not a run of raptr ({file} is not in it); give another --output.")


def claim_folder(folder: Path, record: str, file: str) -> None:
    """Make a folder this run's own; see `check_folder`."""
    check_folder(folder, record, file)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(record, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _check_same(folder: Path, facts: dict[str, Any]) -> None:
    """A finished run stands for this one only if data, steps, costs and versions are the same."""
    before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for name, old, new in [
        ("data", before["data"]["key"], facts["data"]["key"]),
        ("steps", before["steps"], facts["steps"]),
        ("FLOPs of a step", before["flops"], json.loads(to_json(facts["flops"]))),
        *((name, before["environment"][name], facts["environment"][name]) for name in _VERSIONS),
    ]:
        if old != new:
            raise RaptrError(
                f"the finished run in {folder} is not the one that would be made now: its {name} "
                f"is {str(old)[:80]}, now {str(new)[:80]}. Give another --output, or remove that folder."
            )


_VERSIONS = ("raptr", "torch", "transformers")


def _difference(old: str, new: str) -> str:
    for before, after in zip(old.splitlines(), new.splitlines(), strict=False):
        if before != after:
            return f"it has {before.strip()!r} where this one has {after.strip()!r}"
    return "its config has other lines"


def _facts(task: Task, plan: Plan, label: str, command: str) -> dict[str, Any]:
    config = task.config
    return {
        "format": 1,
        "name": config.name,
        "method": config.method,
        "label": label,
        "seed": config.seed,
        "steps": task.steps,
        "plan": {
            "stacks": [{"name": stack.name, "layers": stack.layers} for stack in plan.shape.stacks],
            "stages": [
                {"start": stage.start, "stop": stage.stop, "sizes": stage.sizes, "warmup": stage.warmup}
                for stage in plan.stages
            ],
        },
        "model": {
            "architecture": config.model.architecture,
            "parameters": task.parameters,
            "layer_parameters": task.layer_parameters,
        },
        "flops": {"convention": CONVENTION, "layers": task.costs.layers, "other": task.costs.other},
        "data": task.store.description,
        "environment": describe_environment(),
        "command": command,
    }
