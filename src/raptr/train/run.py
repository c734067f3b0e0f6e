"""One training, put together once: the context that every callback and the Trainer are given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from raptr.model import AttachedModel, attach, attach_head
from raptr.plan import Plan, trained_part
from raptr.plan.subnetwork import Subnetwork
from raptr.train.setup.arguments import Own
from raptr.train.setup.objective_trial import LossRule, try_objective
from raptr.train.stop_request import Stop
from raptr.train.task import Task


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: what is trained, by which plan, and where it is recorded.

    It is made once, before the Trainer, and nothing of it is replaced afterwards. What changes while a run is trained
    is kept by the callback that changes it.

    Attributes:
        task: data, objective, costs and number of steps.
        plan: the method, bound to the model's shape and the number of steps.
        folder: where the run is recorded.
        title: what messages call the run.
        console: where messages go; quiet on all ranks but the first.
        net: the attached model.
        rule: how the model's loss comes about.
        own: raptr's own settings of the config's ``training``.
        stop: says when the run is to stop early.
        changed: whether the run is resumed under other settings than those of its checkpoint.
    """

    task: Task
    plan: Plan
    folder: Path
    title: str
    console: Console
    net: AttachedModel
    rule: LossRule
    own: Own
    stop: Stop
    changed: bool = False

    @property
    def model(self) -> Any:
        """The model that is trained."""
        return self.net.model

    def stage_number(self, completed: int) -> int:
        """Return the number, from 0, of the stage of the last of so many completed steps, or of the first step."""
        return self.plan.stages.index(self.plan.stage(max(completed - 1, 0)))

    def trained_part(self, completed: int) -> Subnetwork | None:
        """Return the part of the model that was trained after so many steps; None if that is the whole model."""
        return trained_part(self.plan, max(completed - 1, 0))


def try_task(model: Any, task: Task) -> LossRule:
    """Try a task's objective on its model, which is not attached yet, and return how the loss comes about.

    Raises:
        RaptrError: as `raptr.train.setup.objective_trial.try_objective`.
    """
    config, denoised = task.config, task.denoised
    prefix = denoised is not None and denoised.settings.attention == "prefix"
    return try_objective(model, config.objective.name, config.data.sequence_length, prefix=prefix)


def attach_to_task(model: Any, task: Task, *, compile: bool) -> AttachedModel:
    """Attach a model of a task: its LM head, if that runs on masked positions only, and its layers.

    Args:
        model: of `raptr.train.setup.model.build_model`.
        task: what the model is trained on.
        compile: whether each layer is compiled.
    """
    if task.predictions is not None:
        attach_head(model)
    return attach(model, compile=compile)
