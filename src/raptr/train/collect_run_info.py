"""What is known of a run before it begins, and what it did in the end: the content of run.json and result.json."""

import math
from dataclasses import replace

from raptr.config import SMALLER
from raptr.model import CONVENTION
from raptr.plan import Method, Plan, fingerprint
from raptr.rundir.run_record import Environment, FlopsInfo, ModelInfo, PlanInfo, Result, RunInfo
from raptr.train.callbacks.metrics import Progress
from raptr.train.environment import describe_environment
from raptr.train.ranks import world_size
from raptr.train.setup.smaller_model import is_smaller
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


def label_of(task: Task, method: Method) -> str:
    """What a run is called: its method, or the size of the smaller model that it trains."""
    if is_smaller(task.config):
        return f"Smaller, {'+'.join(map(str, task.shape.layers))} layers"
    return str(method)


def facts_of(task: Task, plan: Plan, label: str, command: str) -> RunInfo:
    """What is known of a run before it begins."""
    config = task.config
    flops = FlopsInfo(convention=CONVENTION, layers=task.costs.layers, other=task.costs.other)
    if task.predictions is not None:
        flops["predictions"] = task.predictions
    return RunInfo(
        name=config.name,
        method=config.method,
        label=label,
        control=SMALLER if is_smaller(config) else "",
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
        environment=Environment(**describe_environment(), processes=world_size()),
        command=command,
    )
