"""Validation loss against FLOPs, time and tokens: of the full model, or of what a growing method trains so far."""

from collections.abc import Mapping
from dataclasses import dataclass

import altair as alt
import numpy as np

from raptr import units
from raptr.report.curves import Axis, Mean, drawn, mean_curve, place_of, thin
from raptr.report.figures.common import (
    CROWD,
    Data,
    Palette,
    Row,
    chart_of,
    colour,
    dash,
    layered,
    nearest,
    nearest_tooltip,
    rounded,
    switchable,
    unless_crowded,
    value_axis,
)
from raptr.results.active_loss import full_loss, grows, of_part, trained_loss
from raptr.results.folder import Comparison, Method
from raptr.results.metric_arrays import Floats
from raptr.results.run_files import Run

END = 2 / 3  # the second chart starts at this fraction of the axis


@dataclass(frozen=True, kw_only=True)
class LossRows:
    """The data of the loss charts: mean with band, single seeds, stage boundaries.

    A row holds its position on every axis, under the name of the axis' counter, so that all axes share the rows.
    Where methods grow, it says in ``o`` whose loss it is: that of the trained part, with the full model's in
    brackets, which can be so high that it has no place on the axis.
    """

    mean: list[Row]
    seeds: list[Row]
    boundaries: list[Row]


def loss_rows(comparison: Comparison, axes: tuple[Axis, ...], source: str | None = None) -> LossRows:
    """Returns what the charts draw, of all validation sources together or of one; positions in the axes' units."""
    rows = LossRows(mean=[], seeds=[], boundaries=[])
    growing = any(grows(run) for run in comparison.runs)
    for method in comparison.methods:
        runs = drawn(method.runs)
        if not runs:
            continue
        curves = {axis.counter: mean_curve(runs, axis, source) for axis in axes}
        told = _whose(runs, next(iter(curves.values())).step, source) if growing else None
        rows.mean.extend(_mean_rows(method, curves, len(runs), told))
        for run in method.runs if len(method.runs) > 1 else ():
            rows.seeds.extend(_seed_rows(method, run, axes, source))
        for stage in runs[0].stages[1:]:
            row = {"m": method.name, "s": stage.start, "k": units.size(stage.sizes, stage.width)}
            for axis in axes:
                row[axis.counter], row["y"] = _boundary(runs, axis, curves[axis.counter], stage.start)
            if all(value is not None for value in row.values()):
                rows.boundaries.append(row)
    return rows


def _whose(runs: tuple[Run, ...], steps: Floats, source: str | None) -> list[str]:
    """Whose loss the mean is at each of these evaluations; the full model's too where it is that of a part."""
    rows = [np.searchsorted(run.evals.step, steps) for run in runs]
    part = np.all([of_part(run, source)[row] for run, row in zip(runs, rows, strict=True)], axis=0)
    full = np.mean([full_loss(run, source)[row] for run, row in zip(runs, rows, strict=True)], axis=0)
    return [
        f"the part trained so far (full model: {units.decimal(value)})" if partial else "the full model"
        for partial, value in zip(part, full, strict=True)
    ]


def _mean_rows(method: Method, curves: Mapping[str, Mean], seeds: int, told: list[str] | None) -> list[Row]:
    first = next(iter(curves.values()))
    rows = [
        {
            "m": method.name,
            "s": int(step),
            "y": rounded(first.mean[k]),
            "n": seeds,
            "lo": rounded(first.low[k]),
            "hi": rounded(first.high[k]),
            **({"o": told[k]} if told else {}),
            **{counter: rounded(curve.x[k]) for counter, curve in curves.items()},
        }
        for k, step in enumerate(first.step)
    ]
    return [row for row in rows if all(row[counter] is not None for counter in curves)]


def _seed_rows(method: Method, run: Run, axes: tuple[Axis, ...], source: str | None) -> list[Row]:
    losses = trained_loss(run, source)
    rows = []
    for index in thin(len(run.evals.step)).astype(int):
        row = {"m": method.name, "seed": run.seed, "y": rounded(losses[index])}
        row |= {axis.counter: rounded(run.evals.columns[axis.counter][index] / axis.factor) for axis in axes}
        if all(row[axis.counter] is not None for axis in axes):
            rows.append(row)
    return rows


def _boundary(runs: tuple[Run, ...], axis: Axis, curve: Mean, step: int) -> tuple[float | None, float | None]:
    """Where a stage begins on the mean curve; not past its last number: the curve of a diverged run has ended."""
    places = [place_of(run, axis, step) for run in runs]
    known = [place for place in places if place is not None]
    finite = np.isfinite(curve.mean) & np.isfinite(curve.x)
    if len(known) < len(places) or not finite.any() or np.mean(known) > curve.x[finite][-1]:
        return None, None
    x = float(np.mean(known))
    return rounded(x), rounded(float(np.interp(x, curve.x[finite], curve.mean[finite])))


def _end_start(rows: LossRows, x: str) -> float:
    """Where the second chart starts: two thirds into the shortest method, so that every end is in it.

    A method that is not half as far as the longest is still running, and does not count.
    """
    lasts: dict[str, float] = {}
    for row in (*rows.mean, *rows.seeds):
        lasts[row["m"]] = max(row[x], lasts.get(row["m"], 0.0))
    longest = max(lasts.values(), default=0.0)
    return END * min((last for last in lasts.values() if last >= longest / 2), default=0.0)


def _window(rows: list[Row], x: str, start: float) -> list[Row]:
    """The rows from ``start`` on, each curve beginning at ``start`` itself: between two rows, on their line."""
    kept: list[Row] = []
    for before, row in zip([None, *rows], rows, strict=False):
        if row[x] < start:
            continue
        same = before is not None and (before["m"], before.get("seed")) == (row["m"], row.get("seed"))
        if before is not None and same and before[x] < start < row[x]:
            share = (start - before[x]) / (row[x] - before[x])
            between = {
                name: rounded(before[name] + share * (row[name] - before[name]))
                for name in ("y", "lo", "hi")
                if before.get(name) is not None and row.get(name) is not None
            }
            if "y" in between:
                kept.append({**before, "lo": None, "hi": None, **between, x: rounded(start)})
        kept.append(row)
    return kept


def clamped(rows: LossRows) -> list[Row]:
    """The mean with a drawn band (``blo``, ``bhi``) that does not blow up the axis.

    With two seeds a 95% band is 13 standard errors wide; it is drawn as far as half the range of the curves
    beyond them, and of many methods, whose bands are seldom shown, not beyond them at all. The numbers in the
    tooltip are the real ones.
    """
    values = [row["y"] for row in (*rows.seeds, *rows.mean) if row["y"] is not None]
    if not values:
        return rows.mean
    low, high = min(values), max(values)
    crowded = len({row["m"] for row in rows.mean}) > CROWD
    room = 0.0 if crowded else max((high - low) / 2, 1e-3)
    floor = max(low - room, low / 2) if low > 0 else low - room
    return [
        row
        if row["lo"] is None or row["hi"] is None
        else {**row, "blo": min(max(row["lo"], floor), high), "bhi": max(min(row["hi"], high + room), low)}
        for row in rows.mean
    ]


def loss_chart(
    data: Data,
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

    With ``static`` it has a legend, and nothing that only a page can use. Nothing is clipped, and marks are made
    faint by the opacity of their strokes and fills: both are why drawing it as PNG takes a tenth of a second, not ten.
    """
    x = axis.counter
    last = max((row[x] for row in (*rows.mean, *rows.seeds)), default=0.0) or 1.0
    start = _end_start(rows, x) if end else 0.0
    if end:
        rows = LossRows(
            mean=_window(rows.mean, x, start),
            seeds=_window(rows.seeds, x, start),
            boundaries=[row for row in rows.boundaries if row[x] >= start],
        )
    values = [row["y"] for row in (*rows.mean, *rows.seeds) if row["y"] is not None]
    place = alt.X(
        f"{x}:Q",
        title=axis.title,
        scale=alt.Scale(domain=[start, last], nice=False),
        axis=alt.Axis(grid=False, tickCount=6),
    )
    scale, ticks = value_axis(values, log=not end)
    y = alt.Y("y:Q", title=None, scale=scale, axis=ticks)
    layers = [*_curves(data, rows, palette, place, y, static)]
    if rows.boundaries:
        layers.append(_boundaries(data, rows, palette, place, y, axis, static))
    if not static:
        layers.append(_nearest(data, rows, palette, place, y, axis))
    return switchable(layered(*layers), palette, static).properties(width=width, height=height)


def _curves(data: Data, rows: LossRows, palette: Palette, x: alt.X, y: alt.Y, static: bool) -> list[alt.Chart]:
    """The band, the single seeds (faint) and the mean."""
    mean = chart_of(data, clamped(rows), static)
    tint = colour(palette, static)
    low = alt.Y("blo:Q", title=None, scale=y["scale"])
    layers = [mean.mark_line(strokeWidth=2.4).encode(x, y, color=tint, strokeDash=dash(palette))]
    if rows.seeds:
        faint = chart_of(data, rows.seeds, static).mark_line(
            strokeOpacity=unless_crowded(0.35, palette, static), strokeWidth=1
        )
        layers.insert(0, faint.encode(x, y, color=tint, detail="seed:N"))
    if any(row["lo"] is not None for row in rows.mean):
        band = mean.transform_filter("isValid(datum.blo)").mark_area(fillOpacity=unless_crowded(0.16, palette, static))
        layers.insert(0, band.encode(x, low, alt.Y2("bhi:Q"), color=tint))
    return layers


def _where(axis: Axis) -> list[alt.Tooltip]:
    return [
        alt.Tooltip(f"{axis.counter}:Q", title=axis.title, format=",.4~g"),
        alt.Tooltip("s:Q", title="Step", format=",d"),
    ]


def _boundaries(
    data: Data, rows: LossRows, palette: Palette, x: alt.X, y: alt.Y, axis: Axis, static: bool
) -> alt.Chart:
    tooltip = [
        alt.Tooltip("m:N", title="Method"),
        alt.Tooltip("k:N", title="Layers trained from here on"),
        *_where(axis),
    ]
    marks = chart_of(data, rows.boundaries, static).mark_point(
        shape="diamond",
        filled=True,
        opacity=1,
        **({"style": "outlined", "size": 110} if len(palette.names) <= CROWD else {"size": 60}),
    )
    marked: alt.Chart = marks.encode(x, y, color=colour(palette, False), tooltip=tooltip)
    return marked


def _nearest(data: Data, rows: LossRows, palette: Palette, x: alt.X, y: alt.Y, axis: Axis) -> alt.Chart:
    """The dot and the tooltip of the evaluation nearest to the pointer."""
    near = nearest(axis.counter)
    tooltip = nearest_tooltip(
        ("Method", "m", None),
        ("Validation loss", "y", ".4f"),
        ("Of", "o", None),
        ("95% from", "lo", ".4f"),
        ("95% to", "hi", ".4f"),
        ("Seeds", "n", ",d"),
        (axis.title, axis.counter, ",.4~g"),
        ("Step", "s", ",d"),
    )
    visible = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    dots = chart_of(data, clamped(rows), static=False).mark_point(style="outlined", size=90, filled=True)
    dots = dots.encode(x, y, color=colour(palette, False), opacity=visible, tooltip=tooltip)
    pointed: alt.Chart = dots.add_params(near)
    return pointed
