"""The map: each method's difference from full training against the length of the run, a panel for each model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import altair as alt

from raptr.cli.outlook import Recipe
from raptr.report.figures.common import Palette, Row, colour, layered
from raptr.report.write import png_of

NAMES = {
    Recipe.of("raptr", {"schedule": "6-8-10-12"}): "RaPTr 6-8-10-12",
    Recipe.of("gradual_stacking", {"schedule": "6-9-12"}): "Gradual stacking 6-9-12",
    Recipe.of("smaller", {"layers": None}): "Smaller dense model",
}
"""The recipes that the map shows, with their names there."""

REACH = 0.6
"""Differences up to this are shown."""

BESIDE = 1.05
"""Methods of one length stand beside each other, apart by this factor."""


def draw_map(points: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the map of points as `points.of` makes them, of which the first one of each method, model and length."""
    _write(map_chart(rows_of(points)), path)


def draw_lengths(points: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the same of the decoder-only models, a panel for each method, against all tokens of full training."""
    _write(lengths_chart(rows_of(points)), path)


def _write(chart: alt.VConcatChart, path: Path) -> None:
    spec = chart.to_dict()
    del spec["config"]  # Altair's; the report's takes its place
    path.write_bytes(png_of(spec))


def rows_of(points: Iterable[dict[str, Any]]) -> list[Row]:
    """What is drawn: one row for each method, model and length.

    Example:
        >>> rows_of([])
        []
    """
    found: dict[tuple[str, str, float], Row] = {}
    for point in points:
        recipe = Recipe.of(point["method"], point["settings"])
        if recipe not in NAMES:
            continue
        size = f"{point['parameters'] / 1e3:,.0f} k parameters in the layers"
        model = f"{point['architecture']}, {point['objective']}, {size}"
        length = point["tokens"] / point["parameters"]
        turn = list(NAMES).index(recipe) - 1
        row = {
            "m": NAMES[recipe],
            "panel": model,
            "size": size,
            "causal": point["objective"] == "causal",
            "x": length * BESIDE**turn,
            "tokens": point["tokens"] / 1e6,
            **{"y": point["difference"], "lo": point["low"], "hi": point["high"]},
        }
        found.setdefault((model, NAMES[recipe], length), row)
    return list(found.values())


def map_chart(rows: list[Row]) -> alt.VConcatChart:
    """A panel for each model: dots with their intervals, cut off at `REACH`."""
    title = "Tokens of full training for each parameter of the layers (dots of one length are moved apart)"
    x = _log_axis(title, rows, [1, 2, 5, 10, 20, 50, 100])
    palette = Palette.of(list(NAMES.values()), None)
    return _panels(rows, x, colour(palette, legend=True))


def lengths_chart(rows: list[Row]) -> alt.VConcatChart:
    """A panel for each method: dots of all decoder-only models, by width."""
    causal = sorted((row for row in rows if row["causal"]), key=lambda row: list(NAMES.values()).index(row["m"]))
    sizes = list(dict.fromkeys(row["size"] for row in rows if row["causal"]))
    found = [
        {**row, "panel": row["m"], "m": row["size"], "x": row["tokens"] * BESIDE ** sizes.index(row["size"])}
        for row in causal
    ]
    title = "Tokens of full training, millions (dots of wider models are moved to the right a little)"
    x = _log_axis(title, found, [0.2, 0.5, 1, 2, 5, 10])
    palette = Palette.of(sizes, None)
    return _panels(found, x, colour(palette, legend=True))


def _log_axis(title: str, rows: list[Row], values: list[float]) -> alt.X:
    lengths = [row["x"] for row in rows]
    return alt.X(
        "x:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[min(lengths) / 1.2, max(lengths) * 1.2], nice=False),
        axis=alt.Axis(values=values, format="~g"),
    )


def _panels(rows: list[Row], x: alt.X, tint: alt.Color) -> alt.VConcatChart:
    y = alt.Scale(domain=[-REACH, REACH], nice=False)
    panels = []
    for panel in dict.fromkeys(row["panel"] for row in rows):
        base = alt.Chart(alt.Data(values=[row for row in rows if row["panel"] == panel]))
        zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(style="zero").encode(alt.Y("zero:Q", scale=y))
        title = "Loss against full training"
        bars = base.mark_rule(clip=True, strokeWidth=8, strokeOpacity=0.25, strokeCap="round")
        dots = base.mark_point(clip=True, filled=True, size=60, fillOpacity=1)
        chart = layered(
            zero,
            bars.encode(x, alt.Y("lo:Q", title=title, scale=y), alt.Y2("hi:Q"), color=tint),
            dots.encode(x, alt.Y("y:Q", title=title, scale=y), color=tint),
        )
        panels.append(chart.properties(width=640, height=200, title=panel))
    return alt.vconcat(*panels, spacing=24)
