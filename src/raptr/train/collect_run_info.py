"""What is known of a run before it begins, and what it did in the end: the content of run.json and result.json."""

import math
from dataclasses import replace
from typing import Any

from raptr.config import SMALLER
from raptr.model import CONVENTION
from raptr.plan import Method, Plan, fingerprint
from raptr.rundir.paths import Result
from raptr.train.callbacks.metrics import Progress
from raptr.train.environment import describe_environment
from raptr.train.ranks import world_size
from raptr.train.setup.smaller_model import is_smaller
from raptr.train.task import Task


def result_of_diverged(task: Task, progress: Progress, reached: int, skipped: int) -> Result:
    """A result in which no loss is a number, of the steps that were taken; of these, ``skipped`` made no update."""
    losses = dict.fromkeys(task.validation_data(), math.nan)
    done = replace(progress, eval_loss=math.nan, eval_losses=losses)
    return {**result_of(task, done, reached, skipped), "diverged": True}


def result_of(task: Task, progress: Progress, steps: int, skipped: int) -> Result:
    """What a run did in so many steps, of which ``skipped`` made no update."""
    assert progress.eval_loss is not None
    return {
        "steps": steps,
        "epochs": task.epochs(steps),
        "skipped_updates": skipped,
        **progress.totals(),
        "eval_loss": progress.eval_loss,
        "eval_losses": progress.eval_losses,
    }


def label_of(task: Task, method: Method) -> str:
    """What a run is called: its method, or the size of the smaller model that it trains."""
    if is_smaller(task.config):
        return f"Smaller, {'+'.join(map(str, task.shape.layers))} layers"
    return str(method)


def facts_of(task: Task, plan: Plan, label: str, command: str) -> dict[str, Any]:
    config = task.config
    return {
        "format": 1,
        "name": config.name,
        "method": config.method,
        "label": label,
        **({"control": SMALLER} if is_smaller(config) else {}),
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
            "fingerprint": fingerprint(plan, task.shape, task.steps),
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
