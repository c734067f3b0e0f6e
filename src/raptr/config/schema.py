"""The sections of a configuration and their values."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from raptr.config.base import SECTION, CountOrShare, Name, Place
from raptr.config.data import DataConfig
from raptr.config.method_settings import MethodSettings
from raptr.config.methods import SETTINGS, AnySettings
from raptr.config.objective import CausalConfig, ObjectiveConfig
from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.plan import Method


class _Section(BaseModel):
    model_config = SECTION


class ModelConfig(_Section):
    """The model: an architecture of transformers and its configuration, from scratch or from what exists.

    Without ``from_config`` and ``from_pretrained``, ``config`` is the configuration of ``architecture``
    where it differs from its defaults. ``from_config`` begins with an existing configuration (a preset's
    name, a folder, a name on the Hugging Face Hub) and fresh weights; ``from_pretrained`` takes the
    weights too. ``config`` then holds what is changed in it. ``new_tokenizer`` says that weights are
    meant to be trained with other tokens than those of the tokenizer beside them.
    """

    architecture: str | None = None
    from_config: Place | None = None
    from_pretrained: Place | None = None
    config: dict[str, Any] = {}
    new_tokenizer: bool = False

    @model_serializer(mode="wrap")
    def _without_what_is_rare(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        record: dict[str, Any] = handler(self)
        if not self.new_tokenizer:
            record.pop("new_tokenizer", None)
        return record

    @model_validator(mode="before")
    @classmethod
    def _is_a_llama_unless_it_says_so(cls, data: Any) -> Any:
        if isinstance(data, dict) and all(
            data.get(key) is None for key in ("architecture", "from_config", "from_pretrained")
        ):
            return {**data, "architecture": "llama"}
        return data

    @model_validator(mode="after")
    def _has_one_origin(self) -> "ModelConfig":
        if self.from_config is not None and self.from_pretrained is not None:
            raise ValueError("give from_config (a configuration) or from_pretrained (weights too), not both")
        if self.new_tokenizer and self.from_pretrained is None:
            raise ValueError("new_tokenizer is for weights that exist; give from_pretrained, or leave it out")
        if self.architecture is not None and (self.from_config is not None or self.from_pretrained is not None):
            raise ValueError("architecture follows from from_config or from_pretrained; remove it")
        return self


def _is_count_or_share(every: int | float) -> int | float:
    if not (every >= 1 if isinstance(every, int) else 0 < every <= 1):
        raise ValueError("give a number of steps (an int from 1 on) or a share of the run (a float up to 1.0)")
    return every


def _interval(every: int | float, steps: int) -> int:
    return every if isinstance(every, int) else max(1, math.ceil(every * steps))


Interval = Annotated[CountOrShare, AfterValidator(_is_count_or_share)]


class EvaluationConfig(_Section):
    """How often, on how much and on which part of the validation text the full model's loss is measured.

    Of each validation source, the first half of the sequences is for tuning and the second for reporting
    where hyper-parameters are chosen (``raptr compare --sweep``); otherwise all of it is reported.
    """

    every: Interval = 0.05
    sequences: int = Field(default=256, ge=1)
    part: Literal["all", "tuning", "report"] = "all"

    def interval(self, steps: int) -> int:
        """Steps between two evaluations in a run of ``steps`` steps."""
        return _interval(self.every, steps)


class CheckpointConfig(_Section):
    """How often a run is kept so that it can go on: the two newest checkpoints are there until it ends.

    ``keep_last`` leaves that of the last step, with the optimizer's state, in a finished run's folder.
    """

    every: Interval = 0.05
    keep_last: bool = False

    def interval(self, steps: int) -> int:
        """Steps between two checkpoints in a run of ``steps`` steps."""
        return _interval(self.every, steps)


class StabilityConfig(_Section):
    """An update whose loss or gradient norm is not finite is not made; at so many in a row the run stops."""

    max_skipped_updates: int = Field(default=10, ge=1)


class RunConfig(_Section):
    """Everything that determines a run.

    ``method`` names an entry of ``methods``; ``training`` holds arguments of transformers'
    ``TrainingArguments``.
    """

    name: Name
    seed: int = Field(default=0, ge=0, lt=2**32)
    method: Name = "raptr"
    methods: dict[Name, AnySettings] = {}
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = CausalConfig()
    training: dict[str, Any] = {}
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    stability: StabilityConfig = StabilityConfig()

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

    def settings(self, label: str) -> MethodSettings:
        """The settings of an entry of ``methods``; a method without an entry has its defaults.

        Raises:
            RaptrError: there is neither an entry nor a method of that name.
        """
        if label in self.methods:
            return self.methods[label]
        if label in SETTINGS:
            return SETTINGS[label]()  # type: ignore[call-arg]
        known = {**SETTINGS, **self.methods}
        near = did_you_mean(label, known)
        raise RaptrError(
            f"method {label!r} is neither a method of raptr nor an entry in methods"
            + (f"; {near} An entry is added" if near else f" (there are: {', '.join(known)}); add one")
            + f" under methods.{label}, with the method it is and its settings, e.g. method: raptr and "
            "schedule: 6-8-10-12."
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
