"""What was measured of the methods' gain, and what it says of a run that is planned.

Every point is a method of a finished comparison at equal total FLOPs, of benchmarks/evidence; docs/results.md shows all
of them. Between sizes nothing is computed: what is said of a run is what was found at the nearest size and length, and
how far away that is.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from raptr.report.units import decimal, quantity

if TYPE_CHECKING:
    from raptr.train.task import Planned

FILE = "measured.json"

NEAR = 2.0
"""Up to this factor in size and in length, a point is taken to speak of a run."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a gain depends on, as far as it is known.

    Attributes:
        objective: causal, masked or denoising.
        pre_norm: whether the layers' norms come before attention and MLP.
        layers: of all stacks.
        parameters: in the layers.
        tokens: of full training for as many FLOPs as the run has.
    """

    objective: str
    pre_norm: bool
    layers: int
    parameters: int
    tokens: float

    @property
    def horizon(self) -> float:
        """Tokens for each parameter of the layers."""
        return self.tokens / self.parameters


@dataclass(frozen=True, kw_only=True)
class Point(Setting):
    """A method's loss against full training's, at equal total FLOPs.

    Attributes:
        comparison: in which it was measured.
        method: its key, as in ``raptr methods``.
        name: of the method with its settings.
        architecture: of the model.
        difference: of the final validation losses in nats per token, paired by seed; below 0 is a gain.
        low: the lower end of its 95 % interval.
        high: the upper end.
        seeds: of each of both.
    """

    comparison: str
    method: str
    name: str
    architecture: str
    difference: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.low <= 0 <= self.high:
            return "neither a gain nor a loss was decided"
        return f"a {'gain' if self.high < 0 else 'loss'} was measured"

    def is_of(self, setting: Setting) -> bool:
        """Whether it speaks of such a model at all, whatever its size."""
        return (self.objective, self.pre_norm) == (setting.objective, setting.pre_norm)

    def distance(self, setting: Setting) -> tuple[float, float]:
        """By which factors, of 1 and more, parameters and tokens for each of them differ."""
        return _factor(self.parameters, setting.parameters), _factor(self.horizon, setting.horizon)


@cache
def points() -> tuple[Point, ...]:
    """All that was measured."""
    text = (resources.files("raptr") / FILE).read_text(encoding="utf-8")
    return tuple(Point(**point) for point in json.loads(text))


def outlook_of(run: "Planned") -> list[str]:
    """`outlook` of what a config would train."""
    layers = sum(run.plan.shape.layers)
    setting = Setting(
        objective=run.objective, pre_norm=run.pre_norm, layers=layers, parameters=run.parameters, tokens=run.tokens
    )
    return outlook(run.method, run.name, setting)


def nearest(method: str, name: str, setting: Setting, among: Iterable[Point] | None = None) -> Point | None:
    """The point that says most of a run: of its method, objective and norms, with its settings if they were measured.

    Args:
        method: its key.
        name: of the method with its settings.
        setting: of the run.
        among: points to choose from; by default all.
    """
    known = points() if among is None else among
    found = [point for point in known if point.method == method and point.is_of(setting)]
    return min(found, key=lambda point: (point.name != name, math.prod(point.distance(setting))), default=None)


def outlook(method: str, name: str, setting: Setting, among: Iterable[Point] | None = None) -> list[str]:
    """Whether a gain at equal total FLOPs is to be expected of a run, and how sure that is, in lines of text.

    Args:
        method: its key.
        name: of the method with its settings.
        setting: of the run.
        among: points to choose from; by default all.

    Example:
        >>> run = Setting(objective="causal", pre_norm=True, layers=12, parameters=85_000_000, tokens=2e9)
        >>> outlook("raptr", "RaPTr 6-8-10-12", run, among=())
        ['Whether it gains at equal FLOPs is not known: it was not measured in causal models with norms before.']
    """
    if method == "full":
        return []
    known = points() if among is None else tuple(among)
    point = nearest(method, name, setting, known)
    if point is None:
        models = f"{setting.objective} models with norms {'before' if setting.pre_norm else 'after'}"
        return [f"Whether it gains at equal FLOPs is not known: it was not measured in {models}."]
    wider, longer = point.distance(setting)
    far = max(wider, longer) > NEAR
    other = "" if point.name == name else f" ({point.name})"
    first = (
        f"At equal FLOPs {point.verdict} at the nearest size{other}: {_difference(point)}. "
        f"{_told(point)}, {point.objective} {point.architecture}."
    )
    if far:
        how = f"{_apart(point, setting)}, so that says little of it; compare at your size before you rely on it."
    elif other_way := unlike(point, setting, known):
        how = (
            f"near, but at {other_way.horizon:.3g} tokens for each of {quantity(other_way.parameters)} parameters "
            f"{other_way.verdict}, so expect neither."
        )
    else:
        how = "near enough to expect the same, as far as one text and one model tell."
    lines = [first, f"This run has {_told(setting)}: {how}"]
    ahead = furthest(point, known)
    if ahead is not None and ahead.name != point.name:
        lines.append(
            f"The surest gain that was measured there is of another method, {ahead.name}: {_difference(ahead)}."
        )
    return lines


def unlike(point: Point, setting: Setting, among: Iterable[Point]) -> Point | None:
    """The nearest point of the same recipe that is near a run too, at another length or size, with another verdict."""
    same = (one for one in among if (one.method, one.name) == (point.method, point.name) and one.is_of(setting))
    near = [one for one in same if max(one.distance(setting)) <= NEAR and one.verdict != point.verdict]
    elsewhere = (one for one in near if max(one.distance(point)) > 1.01)
    return min(elsewhere, key=lambda one: math.prod(one.distance(setting)), default=None)


def furthest(point: Point, among: Iterable[Point]) -> Point | None:
    """Of the methods that gained at a point's size and length, the one whose interval ends lowest; None if none did."""
    there = (one for one in among if one.is_of(point) and max(one.distance(point)) < 1.01)
    return min((one for one in there if one.high < 0), key=lambda one: one.high, default=None)


def _difference(point: Point) -> str:
    difference, low, high = (decimal(value, 3, signed=True) for value in (point.difference, point.low, point.high))
    return f"{difference} nats a token ({low} to {high}, 95 % over {point.seeds} seeds)"


def _told(setting: Setting) -> str:
    parameters = f"{quantity(setting.parameters)} parameters in {setting.layers} layers"
    return f"{parameters}, {setting.horizon:.3g} tokens for each"


def _apart(point: Point, setting: Setting) -> str:
    wider, longer = point.distance(setting)
    said = []
    if wider > NEAR:
        said.append(f"{wider:.3g} times as {'large' if setting.parameters > point.parameters else 'small'}")
    if longer > NEAR:
        said.append(f"{longer:.3g} times as {'long' if setting.horizon > point.horizon else 'short'}")
    return " and ".join(said)


def _factor(one: float, other: float) -> float:
    return max(one, other) / min(one, other) if min(one, other) > 0 else math.inf
