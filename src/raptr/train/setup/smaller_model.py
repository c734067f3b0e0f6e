"""The control that is a smaller model: what the FLOPs of RaPTr buy when they are spent on fewer layers."""

import re
from fractions import Fraction
from typing import Any

from raptr.config import SMALLER, RunConfig, SmallerSettings
from raptr.errors import RaptrError
from raptr.model import find_stacks
from raptr.model.stacks import depth_settings
from raptr.plan import LayerCosts, ModelShape, Schedule, plan_cost
from raptr.plan.schedule import nearest
from raptr.train.setup.model import build_model


def is_smaller(config: RunConfig, label: str | None = None) -> bool:
    """Whether an entry of a config, by default the run's own method, is this control."""
    return config.settings(config.method if label is None else label).method == SMALLER


def is_to_shrink(config: RunConfig, shape: ModelShape) -> bool:
    """Whether a run's method is this control, and its model still the larger one.

    A config whose model has exactly the layers that the method is given is that of the smaller model: what
    `smaller_config` makes, and what a run's ``config.yaml`` holds.
    """
    settings = config.settings(config.method)
    return isinstance(settings, SmallerSettings) and settings.layers != _written(shape.layers)


def smaller_config(
    config: RunConfig, label: str, *, model_config: Any, shape: ModelShape, costs: LayerCosts, steps: int
) -> RunConfig:
    """The config with the smaller model; its depth is written out in the method's entry, too.

    Args:
        config: of the larger model.
        label: of the entry, which may give the depth.
        model_config: the transformers configuration of the larger model.
        shape: of the larger model.
        costs: FLOPs of one of its steps.
        steps: of the run.

    Raises:
        RaptrError: the depth is not smaller, does not fit, or cannot be changed in this model.
    """
    settings = config.settings(label)
    assert isinstance(settings, SmallerSettings)
    if config.model.from_pretrained is not None:
        raise RaptrError(
            f"{label} is a smaller model, which model.from_pretrained {config.model.from_pretrained!r} has no weights "
            "for; leave it out, or give model.from_config for fresh ones."
        )
    if settings.layers is None:
        sizes = _equal_cost(config, label, shape, costs, steps)
    else:
        sizes = _given(settings.layers, label, shape)
    model = build_model(config, model_config, device="meta")
    changed = {**config.model.config, **depth_settings(model, find_stacks(model), sizes)}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"config": changed}),
            "methods": {**config.methods, label: settings.model_copy(update={"layers": _written(sizes)})},
        }
    )


def _written(sizes: tuple[int, ...]) -> str:
    """A depth as a config has it: one count, or one for each stack where they differ."""
    return str(sizes[0]) if len(set(sizes)) == 1 else "+".join(map(str, sizes))


def _given(layers: str, label: str, shape: ModelShape) -> tuple[int, ...]:
    if re.fullmatch(r"\d{1,6}(\+\d{1,6})+", layers):
        sizes = tuple(map(int, layers.split("+")))
        fits = len(sizes) == len(shape.layers) and all(map(int.__le__, sizes, shape.layers)) and min(sizes) > 0
    else:
        schedule = Schedule.parse(layers)
        sizes = tuple(int(size) for size in schedule.bind(shape, len(schedule.sizes))[0].sizes)
        fits = len(schedule.sizes) == 1
    if not fits or sizes == shape.layers:
        raise RaptrError(
            f"methods.{label}.layers is {layers!r}; give one depth that is smaller than the model's "
            f"({_written(shape.layers)}), a count such as 9 or a share such as 75%."
        )
    return sizes


def _equal_cost(config: RunConfig, label: str, shape: ModelShape, costs: LayerCosts, steps: int) -> tuple[int, ...]:
    """The depth whose step costs nearest to the mean step of RaPTr as the config has it."""
    try:
        plan = config.build_method("raptr").plan(shape, steps)
    except RaptrError as error:
        raise RaptrError(
            f"the depth of the smaller model follows from RaPTr's FLOPs, but: {error} Give methods.{label}.layers=..."
        ) from error
    mean = sum(stage.total for stage in plan_cost(plan, costs)) / steps
    most = max(shape.layers)
    depths = [_scaled(shape, Fraction(layers, most)) for layers in range(1, most)] or [shape.layers]
    return min(depths, key=lambda sizes: abs(_step_cost(costs, sizes) - mean))


def _scaled(shape: ModelShape, share: Fraction) -> tuple[int, ...]:
    return tuple(max(1, nearest(share * count)) for count in shape.layers)


def _step_cost(costs: LayerCosts, sizes: tuple[int, ...]) -> float:
    return sum(sum(stack[:size]) for stack, size in zip(costs.layers, sizes, strict=True)) + costs.other
