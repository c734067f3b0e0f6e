"""What was measured of the methods' gain, and what it says of a run that is planned.

Every point is a method of a finished comparison at equal total FLOPs, of benchmarks/evidence; docs/results.md shows all
of them. Between sizes nothing is computed: what is said of a run is what was found at the nearest size and length, and
how far away that is. The same is to be expected only of the same settings, in a model of about as many layers.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

from raptr.plan import Schedule
from raptr.results.statistics import Decision, decide
from raptr.units import decimal, quantity

if TYPE_CHECKING:
    from raptr.config.method_settings import MethodSettings
    from raptr.train.task import Planned

FILE = "measured.json"

NEAR = 2.0
"""Up to this factor in size and in length, a point is taken to speak of a run."""

NEAR_DEPTH = 1.5
"""The same of the number of layers: what a method leaves out and grows by depends on it most."""


_DEPTHS = ("schedule", "layers")
"""Settings that belong to every recipe of a method that has them, the default too."""


@dataclass(frozen=True)
class Recipe:
    """A method with its settings, by which recipes are told apart.

    Attributes:
        method: its key, as in ``raptr methods``.
        settings: (key in the config, value as JSON) of `settings_of`.
    """

    method: str
    settings: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, method: str, settings: Mapping[str, Any]) -> "Recipe":
        """Make a recipe from settings as a config, or a stored point, has them.

        Example:
            >>> same = Recipe.of("raptr", {"schedule": "50%-100%"}).in_shares(12)
            >>> same == Recipe.of("raptr", {"schedule": "6-12"}).in_shares(12)
            True
        """
        return cls(method, frozenset((key, json.dumps(value, sort_keys=True)) for key, value in settings.items()))

    def in_shares(self, layers: int) -> "Recipe":
        """Return the recipe with the sizes of its schedule as whole percents of so many layers."""
        return Recipe(self.method, frozenset((key, _in_shares(key, value, layers)) for key, value in self.settings))


def settings_of(settings: "MethodSettings") -> dict[str, Any]:
    """Return the settings that make a recipe: those that are not the defaults, and always its depths."""
    found = settings.model_dump(mode="json", exclude_defaults=True, exclude={"method"})
    found |= {key: getattr(settings, key) for key in _DEPTHS if key in type(settings).model_fields}
    if "schedule" in found:
        found["schedule"] = str(Schedule.parse(found["schedule"]))
    return found


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
        settings: of the method, see `settings_of`.
        name: of the method with its settings, as it is shown.
        architecture: of the model.
        difference: of the final validation losses in nats per token, paired by seed; below 0 is a gain.
        low: the lower end of its 95 % interval.
        high: the upper end.
        seeds: of each of both.
    """

    comparison: str
    method: str
    settings: Mapping[str, Any]
    name: str
    architecture: str
    difference: float
    low: float
    high: float
    seeds: int

    @cached_property
    def recipe(self) -> Recipe:
        """The method with its settings."""
        return Recipe.of(self.method, self.settings)

    @property
    def decision(self) -> Decision:
        """The decision that the interval supports."""
        return decide(self.difference, (self.low, self.high))

    @property
    def verdict(self) -> str:
        """The decision as text."""
        return _VERDICTS[self.decision]

    def is_of(self, setting: Setting) -> bool:
        """Whether it speaks of such a model at all, whatever its size."""
        return (self.objective, self.pre_norm) == (setting.objective, setting.pre_norm)

    def distance(self, setting: Setting) -> tuple[float, float, float]:
        """By which factors, of 1 and more, parameters, tokens for each of them, and layers differ."""
        return (
            _factor(self.parameters, setting.parameters),
            _factor(self.horizon, setting.horizon),
            _factor(self.layers, setting.layers),
        )

    def is_as_deep(self, setting: Setting) -> bool:
        """Whether it has about as many layers."""
        return _factor(self.layers, setting.layers) <= NEAR_DEPTH

    def is_near(self, setting: Setting) -> bool:
        """Whether size, length and depth are near enough for it to speak of a run."""
        wider, longer, _ = self.distance(setting)
        return max(wider, longer) <= NEAR and self.is_as_deep(setting)

    def is_recipe(self, recipe: Recipe, layers: int) -> bool:
        """Whether a recipe, in a model of so many layers, is the one that was measured.

        A schedule is the same if it is so in shares of the layers: 6-12 of 12 is 50%-100%, and 12-24 of 24.

        Example:
            >>> point = next(one for one in points() if one.name == "RaPTr 6-8-10-12")
            >>> point.is_recipe(Recipe.of("raptr", {"schedule": "50%-66.7%-83.3%-100%"}), 12)
            True
            >>> point.is_recipe(Recipe.of("raptr", {"schedule": "6-8-10-12", "fixed": []}), 12)
            False
        """
        return recipe == self.recipe or recipe.in_shares(layers) == self.in_shares

    @cached_property
    def in_shares(self) -> Recipe:
        """The recipe with its schedule in shares of the layers."""
        return self.recipe.in_shares(self.layers)


_VERDICTS = {
    Decision.UNDECIDED: "neither a gain nor a loss was decided",
    Decision.BETTER: "a gain was measured",
    Decision.WORSE: "a loss was measured",
}


@cache
def points() -> tuple[Point, ...]:
    """All that was measured."""
    text = (resources.files("raptr.cli") / FILE).read_text(encoding="utf-8")
    return tuple(Point(**point) for point in json.loads(text))


def outlook_of(run: "Planned", settings: "MethodSettings") -> list[str]:
    """`outlook` of what a config would train, by a method with these settings."""
    setting = Setting(
        objective=run.objective,
        pre_norm=run.pre_norm,
        layers=run.layers,
        parameters=run.parameters,
        tokens=run.tokens,
    )
    return outlook(Recipe.of(run.method, settings_of(settings)), setting)


def nearest(recipe: Recipe, setting: Setting, among: Iterable[Point] | None = None) -> Point | None:
    """The point that says most of a run: of its method, objective and norms, with its settings if they were measured.

    If they were not, it is the nearest in size, length and depth; of those, the one with the fewest other settings. Of
    several that are alike in that, it is the one of the most seeds, then the one that promises least (whose interval
    reaches highest), then the one of the comparison that is first in the alphabet.

    Args:
        recipe: of the run.
        setting: of the run.
        among: points to choose from; by default all.
    """
    known = points() if among is None else among
    found = [point for point in known if point.method == recipe.method and point.is_of(setting)]
    own = recipe.in_shares(setting.layers).settings

    def order(point: Point) -> tuple[bool, float, int, int, float, str, str]:
        return (
            not point.is_recipe(recipe, setting.layers),
            round(math.prod(point.distance(setting)), 6),
            len(own ^ point.in_shares.settings),
            -point.seeds,
            -point.high,
            point.comparison,
            point.name,
        )

    return min(found, key=order, default=None)


def outlook(recipe: Recipe, setting: Setting, among: Iterable[Point] | None = None) -> list[str]:
    """Whether a gain at equal total FLOPs is to be expected of a run, and how sure that is, in lines of text.

    Args:
        recipe: of the run.
        setting: of the run.
        among: points to choose from; by default all.

    Example:
        >>> run = Setting(objective="causal", pre_norm=True, layers=12, parameters=85_000_000, tokens=2e9)
        >>> outlook(Recipe.of("raptr", {"schedule": "6-8-10-12"}), run, among=())
        ['Whether it gains at equal FLOPs is not known: it was not measured in pre-norm causal models.']
    """
    if recipe.method == "full":
        return []
    known = points() if among is None else tuple(among)
    point = nearest(recipe, setting, known)
    if point is None:
        models = f"{'pre' if setting.pre_norm else 'post'}-norm {setting.objective} models"
        return [f"Whether it gains at equal FLOPs is not known: it was not measured in {models}."]
    known_recipe, near = point.is_recipe(recipe, setting.layers), point.is_near(setting)
    other = "" if point.recipe == recipe else f" ({point.name})"
    verdict = f"{point.verdict} at the nearest size{other}: {_difference(point)}"
    unknown = "Whether it gains at equal FLOPs is not known here"
    if not known_recipe:
        first = f"{unknown}: these settings were not measured. With others {verdict}."
    else:
        first = f"At equal FLOPs {verdict}." if near else f"{unknown}; {verdict}."
    lines = [f"{first} {_told(point)}, {point.objective} {point.architecture}."]
    if not near:
        how = f"{_apart(point, setting)}, so that says little of it; compare at your size before you rely on it."
        if not any(one.method == recipe.method and one.is_of(setting) and one.is_as_deep(setting) for one in known):
            how += f" The method was not measured in a model of about {setting.layers} layers."
    elif not known_recipe:
        how = "near in size, but other settings can turn a gain into a loss, so expect neither."
    elif other_way := unlike(point, setting, known):
        how = (
            f"near, but at {_number(other_way.horizon)} tokens for each of {quantity(other_way.parameters)} parameters "
            f"{other_way.verdict}, so expect neither."
        )
    elif point.decision is Decision.UNDECIDED:
        how = "near, and undecided there, so expect neither."
    else:
        how = "near enough to expect the same, as far as one text and one model tell."
    lines.append(f"This run: {_told(setting)}; {how}")
    ahead = furthest(point, known)
    if ahead is not None and ahead.recipe != point.recipe:
        tried = len({one.recipe for one in _there(point, known)})
        lines.append(
            f"The surest gain that was measured there is of another method, {ahead.name}: {_difference(ahead)}. "
            f"It is the best of {tried} that were tried there, which flatters it."
        )
    return lines


def unlike(point: Point, setting: Setting, among: Iterable[Point]) -> Point | None:
    """The nearest point of the same recipe that is near a run too, at another length or size, with another verdict."""
    same = (one for one in among if one.recipe == point.recipe and one.is_of(setting))
    near = [one for one in same if one.is_near(setting) and one.decision is not point.decision]
    elsewhere = (one for one in near if max(one.distance(point)) > 1.01)
    return min(elsewhere, key=lambda one: (math.prod(one.distance(setting)), -one.high, one.comparison), default=None)


def furthest(point: Point, among: Iterable[Point]) -> Point | None:
    """Of the methods that gained at a point's size and length, the one whose interval ends lowest; None if none did.

    The best of many flatters: by chance alone it looks better than it is.
    """
    gained = (one for one in _there(point, among) if one.high < 0)
    return min(gained, key=lambda one: (one.high, one.comparison, one.name), default=None)


def _there(point: Point, among: Iterable[Point]) -> list[Point]:
    """All that was measured at a point's size, length and depth."""
    return [one for one in among if one.is_of(point) and max(one.distance(point)) < 1.01]


@cache
def _in_shares(key: str, value: str, layers: int) -> str:
    """A setting's value as JSON; that of a schedule with its sizes in whole percents of the layers."""
    if key != "schedule":
        return value
    sizes = Schedule.parse(json.loads(value)).sizes
    shares = (100 * (size / layers if isinstance(size, int) else float(size)) for size in sizes)
    return json.dumps("-".join(f"{share:.0f}%" for share in shares))


def _difference(point: Point) -> str:
    difference, low, high = (decimal(value, 3, signed=True) for value in (point.difference, point.low, point.high))
    token = "masked token" if point.objective == "masked" else "token"
    return f"{difference} nats a {token} ({low} to {high}, 95 % over {point.seeds} seeds)"


def _told(setting: Setting) -> str:
    parameters = f"{quantity(setting.parameters)} parameters in {setting.layers} layers"
    return f"{parameters}, FLOPs of full training on {_number(setting.horizon)} tokens for each"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _apart(point: Point, setting: Setting) -> str:
    wider, longer, deeper = point.distance(setting)
    said = []
    if wider > NEAR:
        said.append(f"{_number(wider)} times as {'large' if setting.parameters > point.parameters else 'small'}")
    if longer > NEAR:
        said.append(f"{_number(longer)} times as {'long' if setting.horizon > point.horizon else 'short'}")
    if deeper > NEAR_DEPTH:
        said.append(f"{_number(deeper)} times as {'deep' if setting.layers > point.layers else 'shallow'}")
    return " and ".join(said)


def _factor(one: float, other: float) -> float:
    return max(one, other) / min(one, other) if min(one, other) > 0 else math.inf
