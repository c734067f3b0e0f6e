"""From a config to a trained model: data, model and method on Hugging Face's Trainer."""

import json
import shutil
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console
from transformers.integrations import TensorBoardCallback

from raptr.config import RunConfig, dump
from raptr.data import Collator
from raptr.errors import RaptrError
from raptr.model import CONVENTION
from raptr.plan import Plan
from raptr.train.build import build_arguments, build_model
from raptr.train.callback import ProgressiveCallback
from raptr.train.environment import describe_environment
from raptr.train.metrics import MetricsCallback
from raptr.train.progress import ProgressCallback
from raptr.train.task import Task

Result = dict[str, float]
"""What a finished run did: steps, tokens, epochs, FLOPs, seconds and the full model's last validation loss."""


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
        RaptrError: the method does not fit, or the folder holds something else.
    """
    config = task.config
    method = config.build_method()
    plan = method.plan(task.shape, task.steps)
    finished = _claim(folder, config)
    if finished is not None:
        console.print(f"{title or folder.name}: finished before", highlight=False, soft_wrap=True)
        return finished
    _write_json(folder / "run.json", _facts(task, plan, str(method), command))

    arguments = build_arguments(
        config,
        folder,
        max_steps=task.steps,
        eval_strategy="steps",
        eval_steps=config.evaluation.interval(task.steps),
    )
    model = build_model(config, task.model_config)
    uses_cache = getattr(model.config, "use_cache", None)  # the Trainer turns it off, for training
    progressive = ProgressiveCallback(method, inactive=getattr(config.settings(config.method), "inactive", "freeze"))
    metrics = MetricsCallback(folder / "metrics.jsonl", progressive, task.costs, task.tokens_per_step)
    bar = ProgressCallback(title or folder.name, console, progressive, metrics, task.costs)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=task.training_data(task.steps),
        eval_dataset=task.validation_data(),
        data_collator=task.collator(),
        processing_class=task.store.tokenizer,
        callbacks=[progressive, metrics, bar],
    )
    trainer.metrics = metrics
    trainer.validation_collator = task.collator(validation=True)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(folder / "tensorboard")
    trainer.remove_callback(transformers.PrinterCallback)
    try:
        trainer.train()
    finally:
        bar.close()

    assert metrics.progress.eval_loss is not None
    if uses_cache is not None:
        model.config.use_cache = uses_cache
    trainer.save_model(str(folder / "model"))
    (folder / "model" / "training_args.bin").unlink(missing_ok=True)
    result: Result = {
        "steps": task.steps,
        "epochs": task.epochs(task.steps),
        **metrics.progress.totals(),
        "eval_loss": metrics.progress.eval_loss,
    }
    _write_json(folder / "result.json", result)
    return result


def read_result(folder: Path) -> Result | None:
    """What a run folder's finished run did; None if it is not finished."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def claim_folder(folder: Path, record: str, file: str = "config.yaml") -> None:
    """Make a folder, or recognise it as this very run's, by the record in it.

    Raises:
        RaptrError: it holds something else; nothing is touched.
    """
    existing = folder / file
    if existing.exists():
        if existing.read_text(encoding="utf-8") != record:
            raise RaptrError(
                f"{folder} holds another run: {_difference(existing.read_text(encoding='utf-8'), record)}. "
                "Give another --output (or name=...), or remove that folder."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RaptrError(f"{folder} exists and is not a run of raptr ({file} is not in it); give another --output.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        existing.write_text(record, encoding="utf-8")


def _claim(folder: Path, config: RunConfig) -> Result | None:
    claim_folder(folder, dump(config))
    result = read_result(folder)
    if result is None:
        for leftover in ("model", "tensorboard"):
            shutil.rmtree(folder / leftover, ignore_errors=True)
    return result


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


def _write_json(path: Path, content: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
