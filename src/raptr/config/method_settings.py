"""The settings that all methods have in common, and what they say of the model that a run trains."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel

from raptr.config.base import SECTION
from raptr.plan import METHODS, LayerCosts, Method, ModelShape, Schedule, TransitionLR

Inactive = Literal["freeze", "zero"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenModel:
    """The model of a config, as settings with a model of their own need to know it.

    Attributes:
        shape: of the model.
        costs: FLOPs of one step.
        steps: of the run.
        method: returns the method of a label, as the config has it.
    """

    shape: ModelShape
    costs: LayerCosts
    steps: int
    method: Callable[[str], Method]


class MethodSettings(BaseModel):
    """The settings of a method; its subclasses are made from the specs."""

    model_config = SECTION

    own_model: ClassVar[str] = ""
    """The model that is trained instead of the config's, in words; empty for the config's. Not empty in a control."""

    method: str

    @property
    def control(self) -> str:
        """The control that a run is recorded as: the key of settings with a model of their own, else empty."""
        return self.method if self.own_model else ""

    def own_sizes(self, label: str, model: GivenModel) -> tuple[int, ...]:
        """Return the number of layers of each stack of the model that is trained: by default those of the config's.

        Args:
            label: of the entry that has these settings, for messages.
            model: of the config.

        Raises:
            RaptrError: a control's settings do not fit the model.
        """
        return model.shape.layers

    def with_sizes(self, sizes: tuple[int, ...]) -> Self:
        """Return the settings with the depth of the trained model written out, where they have it."""
        return self

    def is_own(self, shape: ModelShape) -> bool:
        """Return whether a config's model is the trained one: always, except for a control that changes it first."""
        return True

    def run_label(self, shape: ModelShape, seed: int) -> str:
        """Return the label of a run that trains a model of this shape."""
        return str(self.build(seed))

    @property
    def policy(self) -> Inactive:
        """What the optimizer does with skipped layers: ``inactive``, of a method that skips any."""
        found: Inactive = getattr(self, "inactive", "freeze")
        return found

    def told(self) -> str:
        """The method as text, with all of its settings that are not the defaults.

        Raises:
            RaptrError: as `build`.

        Example:
            >>> from raptr.config import SETTINGS
            >>> SETTINGS["raptr"](schedule="6-8-10-12", lengths="equal", inactive="zero").told()
            'RaPTr 6-8-10-12, inactive zero'
            >>> SETTINGS["raptr"](schedule="6-12", lengths="equal", transition_lr={"rewarm": 50}).told()
            'RaPTr 6-12, transition_lr rewarm 50'
        """
        others = self.model_dump(exclude_defaults=True, exclude={"method", "schedule"})
        return ", ".join([str(self.build(0)), *(f"{name} {_told(value)}" for name, value in others.items())])

    def build(self, seed: int) -> Method:
        """The method's spec, with the run's seed.

        Raises:
            RaptrError: the settings cannot be right for any model.
        """
        spec: Any = METHODS[self.method]
        fields = {field.name for field in dataclasses.fields(spec)}
        given = {name: _frozen(getattr(self, name)) for name in type(self).model_fields if name in fields}
        if "schedule" in fields:
            shape = {name: _frozen(getattr(self, name)) for name in ("lengths", "warmup", "alpha")}
            given["schedule"] = Schedule.parse(given["schedule"], **shape)
        if given.get("transition_lr") is not None:
            given["transition_lr"] = TransitionLR(**given["transition_lr"].model_dump())
        if "seed" in fields:
            given["seed"] = seed
        found: Method = spec(**given)
        return found


def _told(value: Any) -> str:
    """A setting's value as text: of settings within it, each with its name."""
    return " ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def as_text(value: Any) -> Any:
    """YAML reads a schedule of one stage as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
