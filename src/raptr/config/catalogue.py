"""The methods as they are listed and described: a line each, what they are expected to cost, and their cards.

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

from raptr.config.methods import SETTINGS, SMALLER
from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.plan import METHODS, ModelShape, RaPTr
from raptr.plan.cost import layer_share

SHAPE = ModelShape.of(layers=12, heads=12, neurons=3072)
"""Of a BERT-Base: the model whose layer FLOPs are listed."""

STEPS = 10_000
"""The run's; only methods whose rule counts steps depend on it (PLD)."""


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
    """Every method, and the control that is a smaller model."""
    return tuple(Entry(key=key, line=first_line(SETTINGS[key]), share=default_share(key)) for key in SETTINGS)


def first_line(documented: Any) -> str:
    """The first line of a docstring, without its full stop and emphasis."""
    line = (inspect.getdoc(documented) or "").partition("\n")[0].removesuffix(".")
    return re.sub(r"\*(\w+)\*", r"\1", line)


def default_share(key: str) -> float:
    """The expected layer FLOPs of a method's defaults, as a share of full training's."""
    if key == SMALLER:
        return smaller_share(SHAPE.layers[0])
    method: Any = METHODS[key]()
    return layer_share(method.plan(SHAPE, STEPS))


def smaller_share(layers: int) -> float:
    """The same for the smaller model: the whole number of layers nearest to the mean of RaPTr's steps."""
    mean = layers * layer_share(RaPTr().plan(ModelShape.of(layers=layers), STEPS))
    return min(range(1, layers + 1), key=lambda count: abs(count - mean)) / layers


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
