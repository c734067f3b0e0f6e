"""From a config to a trained model: data, model and method on Hugging Face's Trainer."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.loss.loss_utils import ForMaskedLMLoss

from raptr.config import SMALLER, dump
from raptr.data import Collator, WindowCollator
from raptr.errors import RaptrError
from raptr.model import CONVENTION, attach_head, find_stacks
from raptr.plan import Method, Plan, Subnetwork, lr_factor_of, trained_part
from raptr.train.arguments import build_arguments
from raptr.train.attention import check_attention
from raptr.train.build import build_model
from raptr.train.callback import ProgressiveCallback
from raptr.train.checkpoint import KEPT, Checkpoint, CheckpointCallback, newest_checkpoint, remove_checkpoints
from raptr.train.environment import describe_environment
from raptr.train.folder import Result, check_engine, check_folder, check_same, read_result, write_json, write_text
from raptr.train.metrics import ACTIVE, MetricsCallback, Progress
from raptr.train.own import own_settings
from raptr.train.progress import ProgressCallback
from raptr.train.ranks import check_alike, engine_of, from_main, is_main, world_size
from raptr.train.sharding import check_tied, units_of, whole_weights
from raptr.train.task import Task
from raptr.train.tokens import said_of
from raptr.train.validation import Padded, PaddedCollator, weighted

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints; it is there until the run is finished."""


class Trainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer, with raptr's totals in its logs, so that TensorBoard and others show them too."""

    metrics: MetricsCallback | None = None
    progressive: ProgressiveCallback | None = None
    data_collator: Collator | WindowCollator | PaddedCollator
    validation_collator: Collator | WindowCollator
    _mean_predicted: float | None = None
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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole model, also where the checkpoints of a sharded one are in shards."""
        if self.is_fsdp_enabled and not _internal_call:
            gathered = self.accelerator.get_state_dict(self.model)
            self._save(output_dir, state_dict=whole_weights(self.model, gathered))
        else:
            super().save_model(output_dir, _internal_call)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
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
    console = console if is_main() else Console(quiet=True)
    method = config.build_method()
    plan = task.plan(method)
    facts = _facts(task, plan, _label(task, method), command)
    check_alike(f"{dump(config)}\ndata: {facts['data']['key']}")
    finished, checkpoint, existed = from_main(lambda: _found(folder, dump(config), facts))
    if finished is not None:
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
    progressive = ProgressiveCallback(method, inactive=inactive, compile=own.torch_compile)
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
    bar = ProgressCallback(title, console, progressive, metrics, task.costs)
    try:
        trainer = make_trainer(
            task,
            folder,
            model,
            [progressive, probe, metrics, bar, CheckpointCallback(metrics)],
            task.steps,
            eval_strategy="steps",
            eval_steps=config.evaluation.interval(task.steps),
            eval_on_start=checkpoint is None,
            save_strategy="steps",
            save_steps=config.checkpoints.interval(task.steps),
            save_total_limit=KEPT,
        )
        trainer.metrics, trainer.progressive = metrics, progressive
        on_accelerator = trainer.args.device.type != "cpu"
        if own.probe_memory or (own.probe_memory is None and on_accelerator):
            probe.trainer, probe.samples = trainer, task.dearest(trainer.args.train_batch_size)
        facts["environment"]["engine"] = engine = engine_of(trainer)
        if engine == "fsdp2":
            check_tied(model)
        from_main(lambda: check_engine(folder, facts) if checkpoint is not None else None)
    except (ValueError, RuntimeError, ImportError) as error:
        if not existed and is_main():
            shutil.rmtree(folder, ignore_errors=True)  # the Trainer makes its folder before it looks at its arguments
        if isinstance(error, RaptrError):
            raise
        raise RaptrError(f"training is not valid: {error}") from error

    from_main(lambda: _begin(folder, dump(config), facts, checkpoint))
    if checkpoint is not None:
        metrics.restore(checkpoint.metrics)
        console.print(f"{title}: goes on after step {checkpoint.step}", highlight=False, soft_wrap=True)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    except RaptrError:
        if not existed and is_main() and not (folder / "metrics.jsonl").exists():
            shutil.rmtree(folder, ignore_errors=True)  # nothing was trained; what mends it makes another run
        raise
    finally:
        bar.close()

    if uses_cache is not None:
        model.config.use_cache = uses_cache
    trainer.save_model(str(folder / "model"))
    return from_main(lambda: _end(folder, _result(task, metrics.progress)))


def _found(folder: Path, record: str, facts: dict[str, Any]) -> tuple[Result | None, Checkpoint | None, bool]:
    """What a run's folder holds: the result of a finished run, a checkpoint; and whether it is there."""
    check_folder(folder, record, "config.yaml")
    checkpoint = newest_checkpoint(folder / CHECKPOINTS, folder / "metrics.jsonl")
    finished = read_result(folder)
    if finished is not None or checkpoint is not None:
        check_same(folder, facts)
    if finished is not None:
        remove_checkpoints(folder / CHECKPOINTS)
    return finished, checkpoint, folder.exists()


def _begin(folder: Path, record: str, facts: dict[str, Any], checkpoint: Checkpoint | None) -> None:
    """Make a folder this run's own, and clear it of what a stopped run left behind its last checkpoint."""
    write_text(folder / "config.yaml", record)
    for leftover in ("model", *(["tensorboard"] if checkpoint is None else [])):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    remove_checkpoints(folder / CHECKPOINTS, but=checkpoint)
    write_json(folder / "run.json", facts)


def _end(folder: Path, result: Result) -> Result:
    """The run is finished."""
    (folder / "model" / "training_args.bin").unlink(missing_ok=True)  # a pickle, and config.yaml says it all
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
