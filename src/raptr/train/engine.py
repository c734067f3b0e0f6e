"""Train one run: the context, the Trainer and the run folder put together. The loop itself is the Trainer's:

    for step in range(steps):
        on_step_begin      activate: the subnetwork of micro-step 0 is drawn, checked across ranks and activated
        for micro in range(micro_steps):
            loss = model(batch); loss.backward()
                           training_step: nonfinite sees the loss
            on_substep_end activate: the subnetwork of the next micro-step (not after the last one)
        clip gradients     _get_grad_norm: nonfinite sees the norm
        optimizer.step()   hooks: the attached model removes or zeroes the gradients of skipped layers and scales the
                           learning rate at a boundary; then nonfinite removes all gradients if one was not finite
        scheduler.step()
        on_step_end        metrics add up tokens, FLOPs and seconds, and ask for a validation after the last step;
                           stop asks for a checkpoint and the end; nonfinite ends a run that diverged
        on_log             metrics write the step's line; bar moves
        on_evaluate        metrics write the validation's line; bar prints a line
        on_save            a checkpoint is written whole, with the state of metrics and nonfinite

Each event calls the callbacks in one order, that of `RunTrainer`, and for these reasons:

1. activate   comes first: all others may ask what the step trains, and a trial needs a prepared optimizer.
2. trial      runs the full model once before step 0, so that what does not fit into memory shows at once.
3. metrics    follow the trial, whose seconds are not training; they update the totals that the bar shows.
4. bar        shows what metrics have just recorded.
5. stop       decides after metrics, so that the step that it ends with is counted.
6. nonfinite  comes last. When training begins it forgets what the trial's backward left; its optimizer hook must be
              registered after those of the attached model; and when it raises, the step is recorded.
"""

import shutil
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from raptr.config import RunConfig, dump
from raptr.errors import RaptrError, Stopped
from raptr.lock import locked
from raptr.plan import Plan
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
from raptr.train.callbacks.activate import ActivateCallback
from raptr.train.callbacks.metrics import MetricsCallback
from raptr.train.callbacks.nonfinite import Diverged, FiniteCallback
from raptr.train.callbacks.progress_bar import ProgressCallback
from raptr.train.callbacks.stop import StopCallback
from raptr.train.collect_run_info import result_of, result_of_diverged, run_info_of
from raptr.train.hf.fsdp import check_tied
from raptr.train.hf.trainer import RunCallbacks, RunTrainer
from raptr.train.ranks import check_alike, engine_of, from_main, is_main
from raptr.train.resume.checkpoint import Checkpoint, newest_checkpoint, remove_checkpoints
from raptr.train.resume.config_diff import (
    Change,
    check_allowed,
    config_changes,
    fact_changes,
    longer,
    rate_change,
    refuse,
)
from raptr.train.resume.safe_load import tensors_only
from raptr.train.run import Run, attach_to_task, try_task
from raptr.train.setup.arguments import own_settings
from raptr.train.setup.model import build_model
from raptr.train.setup.objective_trial import unbalanced
from raptr.train.setup.special_tokens import said_of
from raptr.train.stop_request import Stop
from raptr.train.task import Task, own_task


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Content of a run's folder.

    Attributes:
        finished: the result of a finished run.
        checkpoint: from which a stopped run is resumed.
        changes: what differs from the run that the folder holds, all of it allowed.
    """

    finished: Result | None
    checkpoint: Checkpoint | None
    changes: list[Change]


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
    existed, plan = folder.exists(), task.plan(task.config.build_method())
    info = run_info_of(task, plan, command)
    check_alike(f"{dump(task.config)}\ndata: {info.data['key']}")
    title, console = title or folder.name, console if is_main() else Console(quiet=True)
    with ExitStack() as held:
        from_main(lambda: check_folder(folder, CONFIG))
        from_main(lambda: held.enter_context(locked(folder)))
        found = from_main(lambda: _found(task, plan, folder, info, allowed))
        if found.finished is not None:
            from_main(lambda: _clear(task, folder))
            console.print(f"{title}: finished before", highlight=False, soft_wrap=True)
            return found.finished

        if task.added:
            console.print(f"{title}: {said_of(task.added)}", highlight=False, soft_wrap=True, markup=False)
        model, own = build_model(task.config, task.model_config), own_settings(task.config)
        rule = try_task(model, task)
        for said in (rule.told, unbalanced(task.model_config, rule)):
            if said:
                console.print(f"{title}: {task.model_config.model_type}: {said}", highlight=False, soft_wrap=True)
        uses_cache = getattr(model.config, "use_cache", None)  # the Trainer turns it off, for training
        if own.torch_compile:
            console.print(f"{title}: each layer is compiled by itself, one graph for all paths", highlight=False)
        try:
            run = Run(
                task=task,
                plan=plan,
                folder=folder,
                title=title,
                console=console,
                net=attach_to_task(model, task, compile=own.torch_compile),
                rule=rule,
                own=own,
                stop=stop or Stop(),
                changed=found.checkpoint is not None and bool(found.changes),
            )
            callbacks = callbacks_of(run)
            trainer = make_trainer(run, callbacks, resumes=found.checkpoint is not None)
            if engine_of(trainer) == "fsdp2":
                check_tied(model)
        except (ValueError, RuntimeError, ImportError) as error:
            if not existed and is_main():
                shutil.rmtree(folder, ignore_errors=True)  # the Trainer makes it before it looks at its arguments
            if isinstance(error, RaptrError):
                raise
            raise RaptrError(f"training is not valid: {error}") from error

        from_main(lambda: _begin(run, info, found))
        result = _fit(run, trainer, callbacks, found, existed=existed, keep_diverged=keep_diverged)
        if not result.diverged:
            if uses_cache is not None:
                model.config.use_cache = uses_cache
            trainer.save_model(str(folder / MODEL))
        return from_main(lambda: _end(task, folder, result))


def callbacks_of(run: Run) -> RunCallbacks:
    """Return the callbacks of a run; each gets the run, and the callbacks whose state it reads."""
    inactive = run.task.config.settings(run.task.config.method).policy
    activate, nonfinite = ActivateCallback(run.net, run.plan, inactive), FiniteCallback(run)
    metrics = MetricsCallback(run, activate, nonfinite)
    return RunCallbacks(
        activate=activate,
        nonfinite=nonfinite,
        metrics=metrics,
        bar=ProgressCallback(run, activate, metrics),
        stop=StopCallback(run.stop),
    )


def make_trainer(run: Run, callbacks: RunCallbacks, *, resumes: bool) -> RunTrainer:
    """Return the Trainer of a run, which validates and saves as the config says."""
    config, steps = run.task.config, run.task.steps
    return RunTrainer(
        run,
        callbacks,
        eval_strategy="steps",
        eval_steps=config.evaluation.interval(steps),
        eval_on_start=not resumes,
        save_strategy="steps",
        save_steps=config.checkpoints.interval(steps),
    )


def _fit(
    run: Run, trainer: RunTrainer, callbacks: RunCallbacks, found: _Found, *, existed: bool, keep_diverged: bool
) -> Result:
    """Train to the end, from the checkpoint if there is one."""
    checkpoint, metrics, nonfinite = found.checkpoint, callbacks.metrics, callbacks.nonfinite
    if checkpoint is not None:
        metrics.restore(checkpoint.metrics)
        said = f" with {'; '.join(map(str, found.changes))}" if found.changes else ""
        run.console.print(f"{run.title}: goes on after step {checkpoint.step}{said}", highlight=False, soft_wrap=True)
    path = None if checkpoint is None else str(checkpoint.path)
    try:
        with run.stop.listening(), tensors_only(path or "what torch was to read"):
            trainer.train(resume_from_checkpoint=path)
    except Diverged as error:
        if not keep_diverged:
            raise
        run.console.print(f"{run.title}: {error}", highlight=False, soft_wrap=True, markup=False)
        return result_of_diverged(run.task, metrics.progress, trainer.state.global_step, nonfinite.skipped.total)
    except RaptrError:
        if not existed and is_main() and not (run.folder / METRICS).exists():
            shutil.rmtree(run.folder, ignore_errors=True)  # nothing was trained; what mends it makes another run
        raise
    finally:
        callbacks.bar.close()
    if callbacks.stop.reason is not None:
        done = f"after step {trainer.state.global_step} of {run.task.steps}"
        raise Stopped(f"{run.title}: stopped {callbacks.stop.reason}, {done}")
    return result_of(run.task, metrics.progress, run.task.steps, nonfinite.skipped.total)


def _found(task: Task, plan: Plan, folder: Path, info: RunInfo, allowed: Collection[str]) -> _Found:
    """Read what a run's folder holds, and check that it is this run.

    Raises:
        RaptrError: it is another one, it is damaged, or it is finished and cannot be prolonged; all reasons are in one
            message. Or ``allowed`` has an unknown name.
    """
    check_allowed(folder, task.config, allowed)
    begun = (folder / RUN_INFO).exists()
    more = longer(folder, info, plan) if begun else set()
    changes = _config_changes(folder, task.config, info)
    finished = read_result(folder)
    checkpoint = newest_checkpoint(folder / CHECKPOINTS, folder / METRICS)
    if begun and (finished is not None or checkpoint is not None):
        facts = fact_changes(folder, info)
        changes += [change for change in facts if checkpoint is not None or change.key != "engine"]
    diverged = finished is not None and finished.diverged  # after fewer steps than it was to take
    done = finished is not None and (finished.steps >= info.steps or (diverged and not _prolonged(changes)))
    stuck = ""
    if finished is not None and not done and checkpoint is None:
        stuck = f"is finished, after {finished.steps} steps, and kept no checkpoint, so it cannot go on to {info.steps}"
    if begun and checkpoint is not None and not done:
        changes += rate_change(folder, task.config, info, checkpoint.step)
    refuse(folder, changes, {*allowed, *more}, stuck)
    return _Found(finished=finished if done else None, checkpoint=checkpoint, changes=changes)


def _config_changes(folder: Path, config: RunConfig, info: RunInfo) -> list[Change]:
    """How the config differs from that of the run in a folder.

    The depth of a control's own model is in the model's config; older runs do not have it in ``methods``, too.
    """
    found = config_changes(folder, config)
    if info.control and (folder / RUN_INFO).exists():
        with recorded(folder / RUN_INFO) as content:
            if RunInfo.of(content).control == info.control:
                return [change for change in found if change.key.partition(".")[0] != "methods"]
    return found


def _prolonged(changes: Sequence[Change]) -> bool:
    return any(change.key == "steps" for change in changes)


def _begin(run: Run, info: RunInfo, found: _Found) -> None:
    """Make a folder this run's own, and clear it of what a stopped run left behind its last checkpoint."""
    folder, checkpoint = run.folder, found.checkpoint
    if checkpoint is not None:
        with recorded(folder / RUN_INFO) as content:
            before = RunInfo.of(content).changes or ()
        made = [ChangeInfo(after_step=checkpoint.step, **asdict(change)) for change in found.changes]
        info = replace(info, changes=[*before, *made])
    write_text(folder / CONFIG, dump(run.task.config))
    (folder / RESULT).unlink(missing_ok=True)
    for leftover in (MODEL, *([TENSORBOARD] if checkpoint is None else [])):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    remove_checkpoints(folder / CHECKPOINTS, but=checkpoint.path if checkpoint else None)
    write_json(folder / RUN_INFO, info)


def _end(task: Task, folder: Path, result: Result) -> Result:
    """The run is finished."""
    write_json(folder / RESULT, result)
    _clear(task, folder)
    return result


def _clear(task: Task, folder: Path) -> None:
    """A finished run needs no checkpoints; the last one may be wanted."""
    last = folder / CHECKPOINTS / f"checkpoint-{task.steps}"
    remove_checkpoints(folder / CHECKPOINTS, but=last if task.config.checkpoints.keep_last and last.exists() else None)
