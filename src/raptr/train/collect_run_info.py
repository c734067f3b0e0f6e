"""Collect the facts of a run before it begins, and its result: the content of run.json and result.json."""

import math
import os
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

import raptr
from raptr.model import CONVENTION
from raptr.plan import Plan, fingerprint
from raptr.rundir.run_record import Environment, FlopsInfo, ModelInfo, PlanInfo, Result, RunInfo
from raptr.train.callbacks.metrics import Progress
from raptr.train.ranks import engine_asked, world_size
from raptr.train.task import Task


def result_of_diverged(task: Task, progress: Progress, reached: int, skipped: int) -> Result:
    """A result in which no loss is a number, of the steps that were taken; of these, ``skipped`` made no update."""
    losses = dict.fromkeys(task.validation_data(), math.nan)
    done = replace(progress, eval_loss=math.nan, eval_losses=losses)
    return replace(result_of(task, done, reached, skipped), diverged=True)


def result_of(task: Task, progress: Progress, steps: int, skipped: int) -> Result:
    """What a run did in so many steps, of which ``skipped`` made no update."""
    assert progress.eval_loss is not None
    return Result(
        steps=steps,
        epochs=task.epochs(steps),
        skipped_updates=skipped,
        totals=progress.totals(),
        eval_loss=progress.eval_loss,
        eval_losses=progress.eval_losses,
    )


def run_info_of(task: Task, plan: Plan, command: str) -> RunInfo:
    """Return the facts of a run that are known before it begins."""
    config, settings = task.config, task.config.settings(task.config.method)
    flops = FlopsInfo(convention=CONVENTION, layers=task.costs.layers, other=task.costs.other)
    if task.predictions is not None:
        flops["predictions"] = task.predictions
    return RunInfo(
        name=config.name,
        method=config.method,
        label=settings.run_label(plan.shape, config.seed),
        control=settings.control,
        seed=config.seed,
        steps=task.steps,
        plan=PlanInfo.of_plan(plan, fingerprint(plan, task.shape, task.steps)),
        model=ModelInfo(
            architecture=task.model_config.model_type,
            from_pretrained=config.model.from_pretrained,
            parameters=task.parameters,
            layer_parameters=task.layer_parameters,
        ),
        flops=flops,
        data=task.store.description,
        validation=list(task.validation_data()),
        environment=Environment(
            **describe_environment(), processes=world_size(), engine=engine_asked(config.training.get("fsdp"))
        ),
        command=command,
    )


def describe_environment() -> Environment:
    """Versions, processor, threads and accelerator, as plain data."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return Environment(
        python=platform.python_version(),
        raptr=raptr.__version__,
        torch=version("torch"),
        transformers=version("transformers"),
        accelerate=version("accelerate"),
        numpy=version("numpy"),
        platform=platform.platform(terse=True),
        cpu=_processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        device=device,
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
