"""What pydantic found wrong, in the words of the file that the user wrote."""

import difflib
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


def explain(problem: Any) -> str:
    """One of a ValidationError's problems as one line: the key, what is wrong, what is expected."""
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
        kinds = {"name": "'causal', 'masked', 'denoising'", "method": ", ".join(map(repr, SETTINGS))}[key]
        given = problem["input"].get(key) if isinstance(problem["input"], dict) else problem["input"]
        return f"{name}.{key}: expected one of {kinds}; given: {_SHORT.repr(given)}"
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # of a whole section: too long to show
        return f"{name or 'config'}: {said}"
    return f"{name or 'config'}: {said}; given: {_SHORT.repr(problem['input'])}"


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
