"""The validated configuration of a run.

A config is a YAML file; `load` reads one (or a preset by its name), applies ``key=value`` overrides
and validates the whole. Unknown keys are errors. Nothing here imports torch or transformers: the
parts that they own (``model.config``, ``training``) are checked where they are used.
"""

import difflib
import math
import re
import reprlib
from collections.abc import Hashable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

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


def load(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file, or a preset by its name, and apply overrides.

    Args:
        source: the path of a YAML file, or a preset's name.
        overrides: ``key=value`` texts; dots lead into sections, values are YAML
            (``training.learning_rate=1e-3``).

    Raises:
        RaptrError: no such file or preset, not safe YAML, or keys or values that are not valid.
    """
    data = _read(source)
    data = {} if data is None and overrides else data
    for override in overrides:
        _apply(data, override)
    return parse(data, str(source))


def parse(data: Any, source: str) -> RunConfig:
    """Validate a config given as plain data; ``source`` names it in messages."""
    if not isinstance(data, dict):
        held = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise RaptrError(f"{source} {held}; expected sections such as 'model:' and 'training:'.")
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems = error.errors()
        lines = [_explain(problem) for problem in problems[:20]]
        if len(problems) > 20:
            lines.append(f"... and {len(problems) - 20} more")
        raise RaptrError(f"{source} is not valid:\n  " + "\n  ".join(lines)) from error


def dump(config: BaseModel) -> str:
    """A config as YAML, every value written out."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def presets() -> list[str]:
    """The names of the presets."""
    folder = resources.files("raptr") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number; a repeated key and an alias are errors."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few of them make a file of a hundred bytes as large as memory."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read; write the value out", mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: a text that looks like 1e-3 is quoted."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def _read(source: str | Path) -> Any:
    path = Path(source)
    if not str(source):
        raise RaptrError(f"config '' has no name; give a .yaml file or one of: {', '.join(presets())}.")
    if path.suffix in (".yaml", ".yml") or _is_there(path, folder=str(source) not in presets()):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RaptrError(f"config {source} cannot be read: {error}.") from error
    elif str(source) in presets():
        text = (resources.files("raptr") / "presets" / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise RaptrError(
            f"config {str(source)!r} is neither a file nor a preset; "
            f"give a .yaml file or one of: {', '.join(presets())}."
        )
    return _parse_yaml(text, str(source))


def _is_there(path: Path, folder: bool) -> bool:
    try:
        return path.exists() if folder else path.is_file()
    except OSError:  # e.g. a name that is too long
        return False


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RaptrError(f"{source} is not safe, plain YAML: {error}") from error
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:  # from PyYAML's constructors
        raise RaptrError(f"{source} holds a value that is not what its form says: {error!r}.") from error
    except RecursionError as error:
        raise RaptrError(f"{source} is nested too deeply to be a config.") from error


def _apply(data: Any, override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise RaptrError(f"override {override!r} is not of the form key=value, e.g. training.max_steps=100.")
    for depth, key in enumerate(keys[:-1]):
        if not isinstance(data, dict):
            raise RaptrError(f"override {override!r}: {'.'.join(keys[:depth])} is a value and has no keys.")
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
    if not isinstance(data, dict):
        raise RaptrError(f"override {override!r}: {'.'.join(keys[:-1])} is a value and has no keys.")
    data[keys[-1]] = _parse_yaml(text, f"the value of override {override!r}")


def _explain(problem: Any) -> str:
    where = [str(part) for part in problem["loc"]]
    if where[0] in _TAGGED and len(where) > _TAGGED[where[0]]:
        del where[_TAGGED[where[0]]]  # pydantic's path also names the chosen kind
    name = ".".join(where)
    if problem["type"] == "extra_forbidden":
        expected = _fields_at(problem["loc"])
        if expected == ["method"]:
            return f"{name}: full training has no settings; remove it."
        near = difflib.get_close_matches(where[-1], expected, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(expected)}."
        return f"{name}: this key is not known; {hint}"
    if problem["type"] == "missing":
        return f"{name} is missing."
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        key = problem["ctx"]["discriminator"].strip("'")
        kinds = {"name": "'causal', 'masked'", "method": ", ".join(map(repr, METHODS))}[key]
        given = problem["input"].get(key) if isinstance(problem["input"], dict) else problem["input"]
        return f"{name}.{key}: expected one of {kinds}; given: {_SHORT.repr(given)}"
    return f"{name or 'config'}: {problem['msg']}; given: {_SHORT.repr(problem['input'])}"


class _Short(reprlib.Repr):
    """Values as they are shown in messages: never long."""

    maxstring = maxother = 80

    def repr_int(self, value: int, level: int) -> str:
        """Python refuses to print integers of more than 4300 digits."""
        return repr(value) if abs(value) < 10**40 else "an integer of more than 40 digits"


_SHORT = _Short()


_TAGGED = {"objective": 1, "methods": 2}
_KINDS: dict[str, type[BaseModel]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "evaluation": EvaluationConfig,
    "causal": CausalConfig,
    "masked": MaskedConfig,
    "full": FullConfig,
    "raptr": RaPTrConfig,
}


def _fields_at(where: Sequence[str | int]) -> list[str]:
    """The keys that are known in the section that a problem's path leads to."""
    if len(where) == 1:
        return sorted(RunConfig.model_fields)
    kind = where[_TAGGED[str(where[0])]] if where[0] in _TAGGED else where[0]
    return sorted(_KINDS[str(kind)].model_fields)
