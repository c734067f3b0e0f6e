"""From a config to a trained model: data, model and method on Hugging Face's Trainer."""

import shutil
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from raptr.config import SMALLER, RunConfig, dump
from raptr.errors import RaptrError, Stopped
from raptr.lock import locked
from raptr.rundir.paths import (
    CHECKPOINTS,
    CONFIG,
    METRICS,
    MODEL,
    RESULT,
    RUN_INFO,
    TENSORBOARD,
    check_folder,
    recorded,
    write_json,
    write_text,
)
from raptr.rundir.run_record import ChangeInfo, Result, RunInfo, read_result
from raptr.train.callback import ProgressiveCallback
from raptr.train.callbacks.metrics import MetricsCallback
from raptr.train.callbacks.nonfinite import Diverged, FiniteCallback
from raptr.train.callbacks.progress_bar import ProgressCallback
from raptr.train.callbacks.stop import Stop, StopCallback
from raptr.train.collect_run_info import facts_of, label_of, result_of, result_of_diverged
from raptr.train.hf.fsdp import check_tied
from raptr.train.hf.trainer import ProbeCallback, make_trainer
from raptr.train.ranks import check_alike, engine_of, from_main, is_main
from raptr.train.resume.checkpoint import Checkpoint, newest_checkpoint, remove_checkpoints
from raptr.train.resume.config_diff import Change, config_changes, engine_change, fact_changes, longer, refuse
from raptr.train.resume.safe_load import tensors_only
from raptr.train.setup.arguments import own_settings
from raptr.train.setup.attention_check import check_attention
from raptr.train.setup.model import build_model
from raptr.train.setup.special_tokens import said_of
from raptr.train.task import Task, own_task


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
        allowed: what may be another than when the run in the folder was begun, see
            `raptr.train.resume.config_diff.refuse`.

    Returns:
        The content of ``result.json``.

    Raises:
        RaptrError: the method does not fit, the folder holds something else, another process works in it, or
            the run in it is another one: of another config, on other data, with other versions.
        Diverged: too many updates in a row were no numbers.
        Stopped: it was to stop, and the same call goes on.
    """
    task = own_task(task)
    existed, method = folder.exists(), task.config.build_method()
    facts = facts_of(task, task.plan(method), label_of(task, method), command)
    check_alike(f"{dump(task.config)}\ndata: {facts.data['key']}")
    with ExitStack() as held:
        from_main(lambda: check_folder(folder, CONFIG))
        from_main(lambda: held.enter_context(locked(folder)))
        return _train(task, folder, existed, facts, console, title, stop or Stop(), keep_diverged, allowed)


def _train(
    task: Task,
    folder: Path,
    existed: bool,
    facts: RunInfo,
    console: Console,
    title: str | None,
    stop: Stop,
    keep_diverged: bool,
    allowed: Collection[str],
) -> Result:
    config = task.config
    title = title or folder.name
    console = console if is_main() else Console(quiet=True)
    finished, checkpoint, changes = from_main(lambda: _found(task, folder, facts, allowed))
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
        folder / METRICS,
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
        engine = engine_of(trainer)
        facts = replace(facts, environment={**facts.environment, "engine": engine})
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
        with stop.listening(), tensors_only(str(checkpoint.path) if checkpoint else "what torch was to read"):
            trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    except Diverged as error:
        if not keep_diverged:
            raise
        console.print(f"{title}: {error}", highlight=False, soft_wrap=True, markup=False)
        reached, skipped = trainer.state.global_step, finite.skipped.total
        return from_main(lambda: _end(task, folder, result_of_diverged(task, metrics.progress, reached, skipped)))
    except RaptrError:
        if not existed and is_main() and not (folder / METRICS).exists():
            shutil.rmtree(folder, ignore_errors=True)  # nothing was trained; what mends it makes another run
        raise
    finally:
        bar.close()
    if stopping.reason is not None:
        raise Stopped(f"{title}: stopped {stopping.reason}, after step {trainer.state.global_step} of {task.steps}")

    if uses_cache is not None:
        model.config.use_cache = uses_cache
    trainer.save_model(str(folder / MODEL))
    return from_main(lambda: _end(task, folder, result_of(task, metrics.progress, task.steps, finite.skipped.total)))


def _found(
    task: Task, folder: Path, facts: RunInfo, allowed: Collection[str]
) -> tuple[Result | None, Checkpoint | None, list[Change]]:
    """What a run's folder holds: the result of a finished run, a checkpoint; and what is no more as it was."""
    begun = (folder / RUN_INFO).exists()
    more = longer(folder, facts, task.plan(task.config.build_method())) if begun else set()
    changes = refuse(folder, _config_changes(folder, task.config, facts), {*allowed, *more})
    finished = read_result(folder)
    checkpoint = newest_checkpoint(folder / CHECKPOINTS, folder / METRICS)
    if begun and (finished is not None or checkpoint is not None):
        changes += refuse(folder, fact_changes(folder, facts), {*allowed, *more})
    diverged = finished is not None and finished.diverged  # after fewer steps than it was to take
    if finished is None or finished.steps >= facts.steps or (diverged and not _prolonged(changes)):
        return finished, checkpoint, changes
    if checkpoint is None:
        raise RaptrError(
            f"the run in {folder} is finished, after {finished.steps} steps, and kept no checkpoint, so it cannot "
            f"go on to {facts.steps}; give another --output. checkpoints.keep_last=true keeps one for the next time."
        )
    return None, checkpoint, changes


def _config_changes(folder: Path, config: RunConfig, facts: RunInfo) -> list[Change]:
    """How the config differs from that of the run in a folder.

    What ``methods`` says of a smaller model is in the model's config as well, and in runs of before only there.
    """
    found = config_changes(folder, config)
    if facts.control == SMALLER and (folder / RUN_INFO).exists():
        with recorded(folder / RUN_INFO) as content:
            if RunInfo.of(content).control == SMALLER:
                return [change for change in found if change.key.partition(".")[0] != "methods"]
    return found


def _prolonged(changes: Sequence[Change]) -> bool:
    return any(change.key == "steps" for change in changes)


def _begin(
    folder: Path, config: RunConfig, facts: RunInfo, checkpoint: Checkpoint | None, changes: Sequence[Change]
) -> None:
    """Make a folder this run's own, and clear it of what a stopped run left behind its last checkpoint."""
    if checkpoint is not None:
        with recorded(folder / RUN_INFO) as content:
            before = RunInfo.of(content).changes or ()
        made = [ChangeInfo(after_step=checkpoint.step, **asdict(change)) for change in changes]
        facts = replace(facts, changes=[*before, *made])
    write_text(folder / CONFIG, dump(config))
    (folder / RESULT).unlink(missing_ok=True)
    for leftover in (MODEL, *([TENSORBOARD] if checkpoint is None else [])):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    remove_checkpoints(folder / CHECKPOINTS, but=checkpoint.path if checkpoint else None)
    write_json(folder / RUN_INFO, facts)


def _end(task: Task, folder: Path, result: Result) -> Result:
    """The run is finished."""
    write_json(folder / RESULT, result)
    _clear(task, folder)
    return result


def _clear(task: Task, folder: Path) -> None:
    """A finished run needs no checkpoints; the last one may be wanted."""
    last = folder / CHECKPOINTS / f"checkpoint-{task.steps}"
    remove_checkpoints(folder / CHECKPOINTS, but=last if task.config.checkpoints.keep_last and last.exists() else None)
