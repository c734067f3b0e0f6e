"""The control that is a smaller model: what the FLOPs of RaPTr buy when they are spent on fewer layers."""

from fractions import Fraction

from raptr.config import SMALLER, RunConfig, SmallerSettings
from raptr.errors import RaptrError
from raptr.model import find_stacks
from raptr.model.stacks import depth_settings
from raptr.plan import LayerCosts, ModelShape, Schedule, plan_cost
from raptr.plan.schedule import nearest
from raptr.train.build import build_model
from raptr.train.task import Task, with_config


def is_smaller(config: RunConfig, label: str) -> bool:
    """Whether an entry of a comparison is this control."""
    return config.settings(label).method == SMALLER


def smaller_task(task: Task, label: str) -> Task:
    """The task with the smaller model: its own depth, initial weights, FLOPs and checkpoint, on the same data.

    Args:
        task: of the comparison.
        label: of the entry, which may give the depth.

    Raises:
        RaptrError: the depth is not smaller, does not fit, or cannot be changed in this model.
    """
    config = task.config
    settings = config.settings(label)
    assert isinstance(settings, SmallerSettings)
    if config.model.from_pretrained is not None:
        raise RaptrError(
            f"{label} is a smaller model, which model.from_pretrained {config.model.from_pretrained!r} has no weights "
            "for; leave it out, or give model.from_config for fresh ones."
        )
    sizes = _equal_cost(task) if settings.layers is None else _given(settings.layers, label, task)
    model = build_model(config, task.model_config, device="meta")
    changed = {**config.model.config, **depth_settings(model, find_stacks(model), sizes)}
    return with_config(task, config.model_copy(update={"model": config.model.model_copy(update={"config": changed})}))


def _given(layers: str, label: str, task: Task) -> tuple[int, ...]:
    schedule = Schedule.parse(layers)
    sizes = tuple(int(size) for size in schedule.bind(task.shape, len(schedule.sizes))[0].sizes)
    if len(schedule.sizes) != 1 or sizes == task.shape.layers:
        raise RaptrError(
            f"methods.{label}.layers is {layers!r}; give one depth that is smaller than the model's, "
            "a count such as 9 or a share such as 75%."
        )
    return sizes


def _equal_cost(task: Task) -> tuple[int, ...]:
    """The depth whose step costs nearest to the mean step of RaPTr as the config has it."""
    try:
        plan = task.config.build_method("raptr").plan(task.shape, task.steps)
    except RaptrError as error:
        raise RaptrError(
            f"the depth of the smaller model follows from RaPTr's FLOPs, but: {error} Give methods.{SMALLER}.layers=..."
        ) from error
    mean = sum(stage.total for stage in plan_cost(plan, task.costs)) / task.steps
    most = max(task.shape.layers)
    depths = [_scaled(task.shape, Fraction(layers, most)) for layers in range(1, most)] or [task.shape.layers]
    return min(depths, key=lambda sizes: abs(_step_cost(task.costs, sizes) - mean))


def _scaled(shape: ModelShape, share: Fraction) -> tuple[int, ...]:
    return tuple(max(1, nearest(share * count)) for count in shape.layers)


def _step_cost(costs: LayerCosts, sizes: tuple[int, ...]) -> float:
    return sum(sum(stack[:size]) for stack, size in zip(costs.layers, sizes, strict=True)) + costs.other
