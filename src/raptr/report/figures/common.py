"""What all figures share: the colour of a method, the switch of methods, numbers that are safe in JSON."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from raptr.report import theme
from raptr.units import usable

Row = dict[str, Any]
SHOWN = "shown"
CROWD = 5  # while more methods are switched on, what is behind the lines (bands, single values) is left out

# Round ticks for a logarithmic axis whose ends are at most so many times apart.
ROUND = (
    (1.6, tuple(one / 10 for one in range(10, 100))),
    (4.0, (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)),
    (20.0, (1, 1.5, 2, 3, 4, 6, 8)),
    (200.0, (1, 2, 5)),
    (math.inf, (1,)),
)


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The methods in their order, each with its colour and its dashes."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    dashes: tuple[Sequence[int], ...]

    @staticmethod
    def of(names: Sequence[str], baseline: int | None) -> "Palette":
        """Returns the palette of ``names``; the one at index ``baseline`` is grey."""
        return Palette(
            names=tuple(names),
            colours=theme.colours(len(names), baseline),
            dashes=theme.dashes(len(names), baseline),
        )

    def part(self, indices: Sequence[int], names: Sequence[str]) -> "Palette":
        """Returns the colours and dashes at ``indices``, under other names."""
        return Palette(
            names=tuple(names),
            colours=tuple(self.colours[index] for index in indices),
            dashes=tuple(self.dashes[index] for index in indices),
        )


def rounded(value: object, digits: int = 7) -> float | None:
    """Returns ``value`` to ``digits`` significant digits; None (a gap) for what is no finite number."""
    number = usable(float(value) if hasattr(value, "__float__") else value)
    return None if number is None else float(f"{number:.{digits}g}")


class Data:
    """The rows of charts under names made of their content: charts of the same rows share them.

    Charts hold the names only, so that Altair neither checks nor copies thousands of rows.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}

    def __call__(self, rows: list[Row]) -> alt.NamedData:
        """Returns ``rows`` as data of a chart."""
        name = hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
        self.rows[name] = rows
        return alt.NamedData(name)

    def used_by(self, part: object) -> dict[str, list[Row]]:
        """Returns the rows that a specification names."""
        if isinstance(part, list):
            return {name: rows for one in part for name, rows in self.used_by(one).items()}
        if not isinstance(part, dict):
            return {}
        name = part.get("name")
        own = {name: self.rows[name]} if isinstance(name, str) and name in self.rows else {}
        return {**own, **{name: rows for one in part.values() for name, rows in self.used_by(one).items()}}


def colour(palette: Palette, legend: bool, title: str | None = None) -> alt.Color:
    """Returns the colour of field ``m``, the method's name, with a legend where the page has none."""
    scale = alt.Scale(domain=list(palette.names), range=list(palette.colours))
    shown = (
        alt.Legend(orient="top", columns=3, title=title, symbolType="stroke", symbolOpacity=1, symbolSize=220)
        if legend
        else None
    )
    return alt.Color("m:N", scale=scale, legend=shown)


def dash(palette: Palette) -> alt.StrokeDash:
    """Returns the dashes of field ``m``; they have no legend of their own."""
    scale = alt.Scale(domain=list(palette.names), range=[list(one) for one in palette.dashes])
    return alt.StrokeDash("m:N", scale=scale, legend=None)


def chart_of(data: Data, rows: list[Row], static: bool) -> alt.Chart:
    """Returns a chart of ``rows``; in the page, of those whose method (field ``m``) is switched on."""
    chart = alt.Chart(data(rows))
    return chart if static else chart.transform_filter(f"indexof({SHOWN}, datum.m) >= 0")


def layered(*layers: alt.Chart) -> alt.LayerChart:
    """Returns ``layers`` on top of each other."""
    chart = alt.layer(*layers)
    assert isinstance(chart, alt.LayerChart)
    return chart


def switchable(chart: alt.LayerChart, palette: Palette, static: bool) -> alt.LayerChart:
    """Returns ``chart`` with the parameter by which the page says which methods are switched on."""
    return chart if static else chart.add_params(alt.param(name=SHOWN, value=list(palette.names)))


def nearest(x: str = "x") -> alt.Parameter:
    """Returns the selection of the value nearest to the pointer; ``x`` is the field of its position."""
    return alt.selection_point(
        name="near", nearest=True, on="pointermove", clear="pointerout", fields=[x, "m"], empty=False
    )


def nearest_tooltip(*entries: tuple[str, str, str | None]) -> Any:
    """Returns the tooltip of what is `nearest`: title, field and number format (None for words) of each entry.

    What has no value is left out. Of the areas around points Vega-Lite reads formatted fields only, and showed
    the method as "undefined": therefore one expression for all.
    """
    row = "(datum.datum || datum)"
    parts = []
    for title, field, form in entries:
        value = f"{row}[{json.dumps(field)}]"
        shown = value if form is None else f"format({value}, {json.dumps(form)})"
        parts.append(f"isValid({value}) ? {{{json.dumps(title)}: {shown}}} : {{}}")
    return alt.value(alt.expr(f"merge({', '.join(parts)})"))


def value_axis(values: Sequence[float], log: bool) -> tuple[alt.Scale, alt.Axis]:
    """Returns scale and axis for ``values``: a logarithmic one gets round ticks, also within one decade."""
    if not log or not values or min(values) <= 0:
        return alt.Scale(zero=False, nice=False, padding=8), alt.Axis(tickCount=6, format="~g")
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = next(steps for reach, steps in ROUND if high / low <= reach)
    ticks = [float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps]
    return alt.Scale(type="log", nice=False, padding=8), alt.Axis(values=ticks, format="~g")


def unless_crowded(opacity: float, palette: Palette, static: bool) -> Any:
    """Returns the opacity of what would hide the curves of many methods; in the page, of those that are switched on."""
    if static:
        return opacity if len(palette.names) <= CROWD else 0.0
    return alt.expr(f"length({SHOWN}) > {CROWD} ? 0 : {opacity}")
