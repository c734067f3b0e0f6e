"""The sections of a configuration and their values."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from raptr.errors import RaptrError
from raptr.plan import METHODS, Full, Method, RaPTr, Schedule

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelConfig(_Section):
    """A model made from scratch: an architecture of transformers and its configuration."""

    architecture: str = "llama"
    config: dict[str, Any] = {}


class DataConfig(_Section):
    """Where the text comes from and how it becomes sequences."""

    source: str = "builtin:python"
    validation: str | None = None
    text_field: str = "text"
    max_bytes: int | None = Field(default=None, gt=0)
    validation_share: float = Field(default=0.02, gt=0, lt=1)
    tokenizer: Annotated[int, Field(gt=0)] | str = 4096
    sequence_length: int = Field(default=256, ge=2)


class CausalConfig(_Section):
    """Every token is predicted from those before it."""

    name: Literal["causal"] = "causal"


class MaskedConfig(_Section):
    """Masked tokens are predicted, as in BERT."""

    name: Literal["masked"] = "masked"
    rate: float = Field(default=0.15, gt=0, le=1)


class EvaluationConfig(_Section):
    """How often and on how much the full model's validation loss is measured."""

    every: int | float = 0.05
    sequences: int = Field(default=256, ge=1)

    @field_validator("every")
    @classmethod
    def _is_count_or_share(cls, every: int | float) -> int | float:
        if not (every >= 1 if isinstance(every, int) else 0 < every <= 1):
            raise ValueError("give a number of steps (an int from 1 on) or a share of the run (a float up to 1.0)")
        return every

    def interval(self, steps: int) -> int:
        """Steps between two evaluations in a run of ``steps`` steps."""
        return self.every if isinstance(self.every, int) else max(1, math.ceil(self.every * steps))


class FullConfig(_Section):
    """Full training: nothing to set."""

    method: Literal["full"] = "full"
    inactive: ClassVar[Literal["freeze"]] = "freeze"

    def build(self, seed: int) -> Method:
        """The method's spec."""
        return Full()


class RaPTrConfig(_Section):
    """The settings of RaPTr; see `raptr.plan.RaPTr` and `raptr.plan.Schedule`."""

    method: Literal["raptr"] = "raptr"
    schedule: str
    lengths: Literal["equal", "proportional"] | list[int] | list[float] = "equal"
    warmup: int | float = 0
    fixed: list[int] = [0, -1]
    sampler: Literal["fixed", "bernoulli"] = "fixed"
    inactive: Literal["freeze", "zero"] = "freeze"

    @field_validator("schedule", mode="before")
    @classmethod
    def _one_stage_is_a_number(cls, schedule: Any) -> Any:
        return str(schedule) if isinstance(schedule, int) else schedule

    def build(self, seed: int) -> Method:
        """The method's spec."""
        lengths = self.lengths if isinstance(self.lengths, str) else tuple(self.lengths)
        schedule = Schedule.parse(self.schedule, lengths=lengths, warmup=self.warmup)
        return RaPTr(schedule, fixed=tuple(self.fixed), sampler=self.sampler, seed=seed)


ObjectiveConfig = Annotated[CausalConfig | MaskedConfig, Field(discriminator="name")]
MethodConfig = Annotated[FullConfig | RaPTrConfig, Field(discriminator="method")]


class RunConfig(_Section):
    """Everything that determines a run.

    ``method`` names an entry of ``methods``; ``training`` holds arguments of transformers'
    ``TrainingArguments``.
    """

    name: Name
    seed: int = Field(default=0, ge=0, lt=2**32)
    method: Name = "raptr"
    methods: dict[Name, MethodConfig] = {}
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = CausalConfig()
    training: dict[str, Any] = {}
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _an_empty_section_has_its_defaults(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    @field_validator("methods", mode="before")
    @classmethod
    def _a_label_is_a_method_unless_it_says_so(cls, methods: Any) -> Any:
        if not isinstance(methods, dict):
            return methods
        return {
            label: {"method": label, **(settings or {})} if isinstance(settings, dict | None) else settings
            for label, settings in methods.items()
        }

    def settings(self, label: str) -> FullConfig | RaPTrConfig:
        """The settings of a method of this config; a method that needs none needs no entry.

        Raises:
            RaptrError: there is neither an entry nor a method of that name that needs no settings.
        """
        if label in self.methods:
            return self.methods[label]
        if label == "full":
            return FullConfig()
        known = ", ".join(sorted({"full", *self.methods}))
        raise RaptrError(
            f"method {label!r} has no entry in methods (there are: {known}); add one under methods.{label}, with "
            f"the method it is (raptr has: {', '.join(METHODS)}) and its settings, e.g. schedule: 6-8-10-12."
        )

    def build_method(self, label: str | None = None) -> Method:
        """The spec of a method of this config, by default the run's own; its seed is the run's.

        Raises:
            RaptrError: there is no such method, or its settings cannot be right.
        """
        label = self.method if label is None else label
        settings = self.settings(label)
        try:
            return settings.build(self.seed)
        except RaptrError as error:
            raise RaptrError(f"methods.{label}: {error}") from error
