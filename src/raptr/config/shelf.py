"""The presets as they are listed: a line each, without building a model."""

import re
from dataclasses import dataclass
from importlib import resources

from raptr.config.load import load, presets
from raptr.config.schema import RunConfig
from raptr.errors import RaptrError

_COUNT = re.compile(r"^# Parameters: ([\d,]+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A preset as it is listed.

    Attributes:
        name: on the command line.
        architecture: of transformers.
        parameters: how many the model has, as its file says (a test builds the model and compares).
        layers: of each stack.
        objective: what is predicted.
        method: the method that is trained unless another is asked for, with its schedule.
    """

    name: str
    architecture: str
    parameters: int
    layers: tuple[int, ...]
    objective: str
    method: str


def preset_text(name: str) -> str:
    """A preset's file.

    Raises:
        RaptrError: there is no such preset.
    """
    if name not in presets():
        raise RaptrError(f"preset {name!r} is not known; there are: {', '.join(presets())}.")
    return (resources.files("raptr") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def preset_entry(name: str) -> Preset:
    """A preset's line.

    Raises:
        RaptrError: there is no such preset.

    Example:
        >>> preset_entry("bert-large").layers
        (24,)
    """
    found, config = _COUNT.search(preset_text(name)), load(name)
    assert found is not None, f"{name}.yaml says how many parameters its model has"
    return Preset(
        name=name,
        architecture=str(config.model.architecture),
        parameters=int(found[1].replace(",", "")),
        layers=_layers(config),
        objective=config.objective.name,
        method=_method(config),
    )


def _layers(config: RunConfig) -> tuple[int, ...]:
    values = config.model.config
    if "num_hidden_layers" in values:
        return (values["num_hidden_layers"],)
    return (values["num_layers"], values["num_decoder_layers"])  # encoder and decoder


def _method(config: RunConfig) -> str:
    values = config.settings(config.method).model_dump()
    words = [config.method, values.get("schedule"), values.get("lengths")]
    if values.get("warmup"):
        words.append(f"after a warm-up of {values['warmup']}")
    return " ".join(str(word) for word in words if word is not None)
