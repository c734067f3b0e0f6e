"""Validation loss of the full model against FLOPs, time and tokens."""

from dataclasses import dataclass

import altair as alt
import numpy as np

from raptr.report.comparison import Comparison
from raptr.report.curves import Axis, drawn, mean_curve, place_of, thin
from raptr.report.figures.common import (
    Palette,
    Row,
    chart_of,
    colour,
    dash,
    layered,
    nearest,
    rounded,
    switchable,
    value_axis,
)

CROWD = 5  # with more methods, bands and seeds are drawn fainter
END = 2 / 3  # the second chart starts at this fraction of the axis


@dataclass(frozen=True, kw_only=True)
class LossRows:
    """The data of the loss charts: mean with band, single seeds, stage boundaries."""

    mean: list[Row]
    seeds: list[Row]
    boundaries: list[Row]


def loss_rows(comparison: Comparison, axis: Axis) -> LossRows:
    """Returns what the charts draw; positions in the units of ``axis``."""
    rows = LossRows(mean=[], seeds=[], boundaries=[])
    for method in comparison.methods:
        if not method.runs:
            continue
        runs = drawn(method.runs)
        curve = mean_curve(runs, axis)
        for step, x, mean, low, high in zip(curve.step, curve.x, curve.mean, curve.low, curve.high, strict=True):
            row = {
                "m": method.name,
                "s": int(step),
                "x": rounded(x),
                "y": rounded(mean),
                "n": len(runs),
                "lo": rounded(low),
                "hi": rounded(high),
            }
            if row["x"] is not None:
                rows.mean.append(row)
        for run in method.runs if len(method.runs) > 1 else ():
            for index in thin(len(run.evals.step)).astype(int):
                x = rounded(run.evals.columns[axis.counter][index] / axis.factor)
                y = rounded(run.evals.columns["eval_loss"][index])
                if x is not None:
                    rows.seeds.append({"m": method.name, "seed": run.seed, "x": x, "y": y})
        finite = np.isfinite(curve.mean) & np.isfinite(curve.x)
        for stage in runs[0].stages[1:] if runs else ():
            places = [place_of(run, axis, stage.start) for run in runs]
            known = [place for place in places if place is not None]
            x = float(np.mean(known)) if known else np.inf
            # Not past the last number: the curve of a diverged run has ended.
            if len(known) == len(places) and finite.any() and x <= curve.x[finite][-1]:
                rows.boundaries.append(
                    {
                        "m": method.name,
                        "s": stage.start,
                        "x": rounded(x),
                        "y": rounded(float(np.interp(x, curve.x[finite], curve.mean[finite]))),
                        "k": " + ".join(str(size) for size in stage.sizes),
                    }
                )
    return rows


def _end_start(rows: LossRows) -> float:
    """Where the second chart starts: two thirds into the shortest method, so that every end is in it.

    A method that is not half as far as the longest is still running, and does not count.
    """
    lasts: dict[str, float] = {}
    for row in (*rows.mean, *rows.seeds):
        lasts[row["m"]] = max(row["x"], lasts.get(row["m"], 0.0))
    longest = max(lasts.values(), default=0.0)
    return END * min((last for last in lasts.values() if last >= longest / 2), default=0.0)


def _window(rows: list[Row], start: float) -> list[Row]:
    """The rows from ``start`` on, and of each curve the one before, so that its line comes from the left."""
    kept: list[Row] = []
    for row, after in zip(rows, [*rows[1:], None], strict=False):
        ends = after is None or (after["m"], after.get("seed")) != (row["m"], row.get("seed"))
        if row["x"] >= start or (not ends and after is not None and after["x"] > start):
            kept.append(row)
    return kept


def _clamped(rows: LossRows) -> list[Row]:
    """The mean with a drawn band (``blo``, ``bhi``) that does not blow up the axis.

    With two seeds a 95% band is 13 standard errors wide; it is drawn as far as half the range of the curves
    beyond them. The numbers in the tooltip are the real ones.
    """
    values = [row["y"] for row in (*rows.seeds, *rows.mean) if row["y"] is not None]
    if not values:
        return rows.mean
    low, high = min(values), max(values)
    room = max((high - low) / 2, 1e-3)
    floor = max(low - room, low / 2) if low > 0 else low - room
    banded = [row for row in rows.mean if row["lo"] is not None and row["hi"] is not None]
    return [
        {**row, "blo": min(max(row["lo"], floor), high), "bhi": max(min(row["hi"], high + room), low)} for row in banded
    ] + [row for row in rows.mean if row["lo"] is None or row["hi"] is None]


def loss_chart(
    rows: LossRows,
    axis: Axis,
    palette: Palette,
    *,
    end: bool,
    width: int | str = "container",
    height: int = 340,
    static: bool = False,
) -> alt.LayerChart:
    """Returns the chart of the whole run (logarithmic), or of its last third (``end``, linear).

    With ``static`` it has a legend, and nothing that only a page can use.
    """
    last = max((row["x"] for row in (*rows.mean, *rows.seeds)), default=0.0) or 1.0
    start = _end_start(rows) if end else 0.0
    if end:
        rows = LossRows(
            mean=_window(rows.mean, start),
            seeds=_window(rows.seeds, start),
            boundaries=[row for row in rows.boundaries if row["x"] >= start],
        )
    values = [row["y"] for row in (*rows.mean, *rows.seeds) if row["y"] is not None]
    x = alt.X(
        "x:Q",
        title=axis.title,
        scale=alt.Scale(domain=[start, last], nice=False),
        axis=alt.Axis(grid=False, tickCount=6),
    )
    scale, ticks = value_axis(values, log=not end)
    y = alt.Y("y:Q", title=None, scale=scale, axis=ticks)
    layers = [
        *_curves(rows, palette, x, y, static),
    ]
    if rows.boundaries:
        layers.append(_boundaries(rows, palette, x, y, axis, static))
    if not static:
        layers.append(_nearest(rows, palette, x, y, axis))
    return switchable(layered(*layers), palette, static).properties(width=width, height=height)


def _curves(rows: LossRows, palette: Palette, x: alt.X, y: alt.Y, static: bool) -> list[alt.Chart]:
    """The band, the single seeds (faint) and the mean."""
    mean = chart_of(_clamped(rows), static)
    seeds = chart_of(rows.seeds, static)
    tint, crowded = colour(palette, static), len(palette.names) > CROWD
    low = alt.Y("blo:Q", title=None, scale=y["scale"])
    layers = [mean.mark_line(strokeWidth=2.4, clip=True).encode(x, y, color=tint, strokeDash=dash(palette))]
    if rows.seeds:
        faint = seeds.mark_line(opacity=0.18 if crowded else 0.35, strokeWidth=1, clip=True)
        layers.insert(0, faint.encode(x, y, color=tint, detail="seed:N"))
    if any(row["lo"] is not None for row in rows.mean):
        band = mean.mark_area(opacity=0.06 if crowded else 0.16, clip=True)
        layers.insert(0, band.encode(x, low, alt.Y2("bhi:Q"), color=tint))
    return layers


def _where(axis: Axis) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("x:Q", title=axis.title, format=",.4~g"),
        alt.Tooltip("s:Q", title="Step", format=",d"),
    ]


def _boundaries(rows: LossRows, palette: Palette, x: alt.X, y: alt.Y, axis: Axis, static: bool) -> alt.Chart:
    tooltip = [
        alt.Tooltip("m:N", title="Method"),
        alt.Tooltip("k:N", title="Layers trained from here on"),
        *_where(axis),
    ]
    marks = chart_of(rows.boundaries, static).mark_point(
        style="outlined", shape="diamond", size=110, filled=True, opacity=1, clip=True
    )
    marked: alt.Chart = marks.encode(x, y, color=colour(palette, False), tooltip=tooltip)
    return marked


def _nearest(rows: LossRows, palette: Palette, x: alt.X, y: alt.Y, axis: Axis) -> alt.Chart:
    """The dot and the tooltip of the evaluation nearest to the pointer."""
    near = nearest()
    tooltip = [
        alt.Tooltip("m:N", title="Method"),
        alt.Tooltip("y:Q", title="Validation loss", format=".4f"),
        alt.Tooltip("lo:Q", title="95% from", format=".4f"),
        alt.Tooltip("hi:Q", title="95% to", format=".4f"),
        alt.Tooltip("n:Q", title="Seeds"),
        *_where(axis),
    ]
    visible = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    dots = chart_of(rows.mean, static=False).mark_point(style="outlined", size=90, filled=True, clip=True)
    dots = dots.encode(x, y, color=colour(palette, False), opacity=visible, tooltip=tooltip)
    pointed: alt.Chart = dots.add_params(near)
    return pointed
