"""The control that is a smaller model: what the FLOPs of RaPTr buy when they are spent on fewer layers.

All that is particular to it is here. The rest of raptr sees settings that train a model of their own
(`MethodSettings.own_model`): before a run begins, `raptr.train.setup.own_model` makes an ordinary config out of them,
with that model.
"""

import re
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from raptr.config.method_settings import GivenModel, MethodSettings, as_text
from raptr.errors import RaptrError
from raptr.plan import Full, LayerCosts, Method, ModelShape, Schedule, plan_cost
from raptr.plan.schedule import nearest

SMALLER = "smaller"
"""The key of the control."""


class SmallerSettings(MethodSettings):
    """A smaller dense model, trained by itself: what as many FLOPs buy without any method.

    ``layers`` is its depth: a count, a share of the model's ("75%"), or a count for each stack ("9+6"). If it is not
    given, it is the depth whose step costs nearest to the mean step of RaPTr as the config has it.
    """

    own_model: ClassVar[str] = "a smaller model"

    method: Literal["smaller"] = "smaller"
    layers: Annotated[str, BeforeValidator(as_text)] | None = Field(
        default=None,
        description="The number of layers: a count, or a share of the model's (75%). None: those whose step costs "
        "nearest to the mean step of RaPTr as the config has it.",
    )

    def told(self) -> str:
        """Return the control and its depth as text."""
        return self.own_model if self.layers is None else f"{self.own_model} of {self.layers} layers"

    def build(self, seed: int) -> Method:
        """Full training, of the smaller model."""
        return Full()

    def run_label(self, shape: ModelShape, seed: int) -> str:
        """Return the size of the smaller model as the label of its run."""
        return f"Smaller, {'+'.join(map(str, shape.layers))} layers"

    def own_sizes(self, label: str, model: GivenModel) -> tuple[int, ...]:
        """Return the depth of the smaller model: the given one, or that of equal cost.

        Raises:
            RaptrError: the depth is not smaller or does not fit, or RaPTr's does not, which it follows from.
        """
        return _equal_cost(label, model) if self.layers is None else _given(self.layers, label, model.shape)

    def with_sizes(self, sizes: tuple[int, ...]) -> Self:
        """Return the settings with the depth written out, as a run's ``config.yaml`` has it."""
        return self.model_copy(update={"layers": _written(sizes)})

    def is_own(self, shape: ModelShape) -> bool:
        """Return whether a model has exactly the depth that the settings say: then it is the smaller one already."""
        return self.layers == _written(shape.layers)


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


def _equal_cost(label: str, model: GivenModel) -> tuple[int, ...]:
    """The depth whose step costs nearest to the mean step of RaPTr as the config has it."""
    try:
        plan = model.method("raptr").plan(model.shape, model.steps)
    except RaptrError as error:
        raise RaptrError(
            f"the depth of the smaller model follows from RaPTr's FLOPs, but: {error} Give methods.{label}.layers=..."
        ) from error
    mean = sum(stage.total for stage in plan_cost(plan, model.costs)) / model.steps
    most = max(model.shape.layers)
    depths = [_scaled(model.shape, Fraction(layers, most)) for layers in range(1, most)] or [model.shape.layers]
    return min(depths, key=lambda sizes: abs(_step_cost(model.costs, sizes) - mean))


def _scaled(shape: ModelShape, share: Fraction) -> tuple[int, ...]:
    return tuple(max(1, nearest(share * count)) for count in shape.layers)


def _step_cost(costs: LayerCosts, sizes: tuple[int, ...]) -> float:
    return sum(sum(stack[:size]) for stack, size in zip(costs.layers, sizes, strict=True)) + costs.other
