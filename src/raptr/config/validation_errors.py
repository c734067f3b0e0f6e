"""What pydantic found wrong, in the words of the file that the user wrote."""

import re
import reprlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from raptr.config.data import DataConfig, SourceConfig
from raptr.config.denoising import DenoiserConfig, DenoisingConfig
from raptr.config.methods import SETTINGS, TransitionSettings
from raptr.config.schema import (
    CausalConfig,
    CheckpointConfig,
    EvaluationConfig,
    MaskedConfig,
    ModelConfig,
    RunConfig,
    StabilityConfig,
)
from raptr.messages import did_you_mean


def explained(problems: Sequence[Any]) -> list[str]:
    """A ValidationError's problems, a line for each: the key, what is wrong, what is expected.

    Where a key takes values of several types, pydantic has a problem for each of them: they are one line.
    """
    by_key: dict[tuple[str | int, ...], list[Any]] = {}
    lines = []
    for problem in problems:
        key = _key_of_several_types(problem)
        if key is None:
            lines.append(_explain(problem))
        elif key in by_key:
            by_key[key].append(problem)
        else:
            by_key[key] = [problem]
            lines.append("")  # its place, until all of its problems are there
    merged = (_explain_types(key, found) for key, found in by_key.items())
    return [line or next(merged) for line in lines]


def _explain(problem: Any) -> str:
    """One problem as one line."""
    where = _path(problem["loc"])
    name = ".".join(where)
    if problem["type"] == "extra_forbidden":
        expected = _fields_at(problem["loc"])
        if expected == ["method"]:
            return f"{name}: full training has no settings; remove it."
        hint = did_you_mean(where[-1], expected, most=1) or f"expected one of {', '.join(expected)}."
        return f"{name}: this key is not known; {hint}"
    if problem["type"] == "missing":
        return f"{name} is missing."
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        key = problem["ctx"]["discriminator"].strip("'")
        kinds = {"name": "'causal', 'masked', 'denoising'", "method": ", ".join(map(repr, SETTINGS))}[key]
        given = problem["input"].get(key) if isinstance(problem["input"], dict) else problem["input"]
        return f"{name}.{key}: expected one of {kinds}; given: {_SHORT.repr(given)}"
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # of a whole section: too long to show
        return f"{name or 'config'}: {said}"
    return f"{name or 'config'}: {said}; given: {_SHORT.repr(problem['input'])}"


def _path(where: Sequence[str | int]) -> list[str]:
    """A problem's path without the chosen kind of a section, which pydantic names, too."""
    parts = [str(part) for part in where]
    if parts[0] in _TAGGED and len(parts) > _TAGGED[parts[0]]:
        del parts[_TAGGED[parts[0]]]
    return parts


def _key_of_several_types(problem: Any) -> tuple[str | int, ...] | None:
    """The key of a value that may be of several types, if the problem is that of one of them."""
    where = problem["loc"]
    end = len(where)
    while end and isinstance(where[end - 1], int):  # of the list's parts
        end -= 1
    is_type = end > 1 and _TYPE.fullmatch(where[end - 1]) and where[end - 2] not in _NAMED
    return where[: end - 1] if is_type and problem["type"] not in ("extra_forbidden", "missing") else None


def _explain_types(key: Sequence[str | int], problems: Sequence[Any]) -> str:
    """The problems of one key, each of another type, as one line."""
    name = ".".join(_path(key))
    for problem in problems:
        if problem["type"] not in _WORDS:  # of this type it is, but cannot be right
            return f"{name}: {problem['msg'].removeprefix('Value error, ')}; given: {_SHORT.repr(problem['input'])}"
    whole = [problem for problem in problems if len(problem["loc"]) == len(key) + 1]
    given = (whole or problems)[0]["input"]
    expected = _EXPECTED.get(str(key[-1])) or " or ".join(dict.fromkeys(_WORDS[each["type"]] for each in problems))
    choices = [word for each in whole for word in re.findall(r"'(\w+)'", each.get("ctx", {}).get("expected", ""))]
    near = did_you_mean(given, choices) if isinstance(given, str) else ""
    line = f"{name} {'is' if whole else 'holds'} {_SHORT.repr(given)}; expected {expected}"
    return f"{line}; {near}" if near else f"{line}."


_TYPE = re.compile(r"int|float|str|bool|constrained-\w+|(literal|list)\[.*\]", re.DOTALL)
_NAMED = ("sources", "methods", "denoisers")  # their keys are names, which may look like types
_WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "list_type": "a list",
    "literal_error": "one of some words",
}
"""Of the problems that say that a value is of another type."""
_EXPECTED = {
    "lengths": "equal, proportional, or a list such as [0.1, 0.2, 0.7] or [100, 200, 700]",
    "warmup": "a number of steps, or a share of the run such as 0.1",
    "every": "a number of steps, or a share of the run such as 0.1",
    "fixed": "layer numbers such as [0, -1], or such a list for each stack",
    "tokenizer": "a number of entries such as 4096, or the folder, file or name of a tokenizer",
}
"""By key, of those that take values of several types."""


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
    "checkpoints": CheckpointConfig,
    "stability": StabilityConfig,
    "causal": CausalConfig,
    "masked": MaskedConfig,
    "denoising": DenoisingConfig,
    **SETTINGS,
}


def _fields_at(where: Sequence[str | int]) -> list[str]:
    """The keys that are known in the section that a problem's path leads to."""
    if len(where) == 1:
        return sorted(RunConfig.model_fields)
    if where[:2] == ("data", "sources"):
        return sorted(SourceConfig.model_fields)
    if where[0] == "objective" and "denoisers" in where[:-2]:
        return sorted(DenoiserConfig.model_fields)
    if where[-2] == "transition_lr":
        return sorted(TransitionSettings.model_fields)
    kind = where[_TAGGED[str(where[0])]] if where[0] in _TAGGED else where[0]
    return sorted(_KINDS[str(kind)].model_fields)
