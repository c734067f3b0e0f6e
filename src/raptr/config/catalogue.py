"""Methods and presets as they are listed: a line each, the expected cost of a method, and its card.

A card is a page of docs/methods. The wheel holds them as ``raptr/cards``; a source tree has them where they are
written.
"""

import inspect
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from raptr.config.load import load, presets
from raptr.config.method_settings import GivenModel
from raptr.config.methods import SETTINGS
from raptr.config.schema import RunConfig
from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.plan import METHODS, LayerCosts, ModelShape
from raptr.plan.cost import layer_share

SHAPE = ModelShape.of(layers=12, heads=12, neurons=3072)
"""Of a BERT-Base: the model whose layer FLOPs are listed."""

STEPS = 10_000
"""The run's; only methods whose rule counts steps depend on it (PLD)."""

_COUNT = re.compile(r"^# Parameters: ([\d,]+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method as it is listed.

    Attributes:
        key: in configs and on the command line.
        line: what it does.
        share: its expected layer FLOPs with its default settings, as a share of full training's for as many steps
            (of `SHAPE` and `STEPS`, all layers alike).
    """

    key: str
    line: str
    share: float


def entries() -> tuple[Entry, ...]:
    """Every method, and the control."""
    return tuple(Entry(key=key, line=first_line(SETTINGS[key]), share=default_share(key)) for key in SETTINGS)


def first_line(documented: Any) -> str:
    """The first line of a docstring, without its full stop and emphasis."""
    line = (inspect.getdoc(documented) or "").partition("\n")[0].removesuffix(".")
    return re.sub(r"\*(\w+)\*", r"\1", line)


def default_share(key: str, shape: ModelShape = SHAPE) -> float:
    """The expected layer FLOPs of a method's defaults, as a share of full training's."""
    if SETTINGS[key].own_model:
        costs = LayerCosts.uniform(shape)
        given = GivenModel(shape=shape, costs=costs, steps=STEPS, method=lambda label: METHODS[label]())
        return sum(SETTINGS[key](method=key).own_sizes(key, given)) / sum(shape.layers)
    method: Any = METHODS[key]()
    return layer_share(method.plan(shape, STEPS))


def card(key: str) -> str:
    """The card of a method, as Markdown.

    Raises:
        RaptrError: there is no such method, or the cards are not where they should be.
    """
    if key not in SETTINGS:
        hint = did_you_mean(key, SETTINGS) or f"there are: {', '.join(SETTINGS)}."
        raise RaptrError(f"method {key!r} is not known; {hint}")
    for folder in _folders():
        file = folder / f"{key}.md"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise RaptrError(
        f"the card of {key!r} is neither in the installed package nor in docs/methods beside its sources; "
        "install raptr again, or read docs/methods in its repository."
    )


def _folders() -> tuple[Traversable, ...]:
    package = resources.files("raptr")
    sources = (Path(str(package)).parents[1] / "docs" / "methods",) if isinstance(package, Path) else ()
    return (package / "cards", *sources)


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
