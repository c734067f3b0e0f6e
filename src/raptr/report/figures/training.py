"""Training loss, learning rate and gradient norm by step: small charts of each method's first run."""

from dataclasses import dataclass

import altair as alt
import numpy as np

from raptr.report.curves import smooth
from raptr.report.figures.common import (
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
from raptr.results.folder import Comparison
from raptr.results.metric_arrays import Floats

POINTS = 300


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What one of the small charts shows: a column of the metrics."""

    column: str
    title: str
    raw: bool
    log: bool


QUANTITIES = (
    Quantity(column="loss", title="Training loss", raw=True, log=True),
    Quantity(column="learning_rate", title="Learning rate", raw=False, log=False),
    Quantity(column="grad_norm", title="Gradient norm", raw=True, log=True),
)


def training_rows(comparison: Comparison, quantity: Quantity) -> list[Row]:
    """Returns step, smoothed and raw value of the quantity for each method; at most ``POINTS`` a method."""
    rows: list[Row] = []
    for method in comparison.methods:
        if not method.runs or not len(method.runs[0].train.step):
            continue
        train = method.runs[0].train
        values = np.where(np.isfinite(train.columns[quantity.column]), train.columns[quantity.column], np.nan)
        lines = smooth(values) if quantity.raw else values
        for step, line, value in zip(*_binned(train.step.astype(np.float64), lines, values), strict=True):
            row = {"m": method.name, "x": rounded(step), "y": rounded(line, 5)}
            rows.append({**row, "r": rounded(value, 5)} if quantity.raw else row)
    return rows


def _binned(*columns: Floats) -> list[Floats]:
    """Means of neighbours, so that at most ``POINTS`` values are left; NaN only where a bin has no number."""
    width = -(-len(columns[0]) // POINTS)
    if width == 1:
        return list(columns)
    starts = np.arange(0, len(columns[0]), width)
    means = []
    for values in columns:
        known = np.isfinite(values)
        number = np.add.reduceat(known.astype(np.float64), starts)
        total = np.add.reduceat(np.where(known, values, 0.0), starts)
        means.append(np.where(number > 0, total / np.maximum(number, 1), np.nan))
    return means


def training_chart(
    data: Data,
    rows: list[Row],
    quantity: Quantity,
    palette: Palette,
    *,
    width: int | str = "container",
    height: int = 220,
    static: bool = False,
) -> alt.LayerChart:
    """Returns the chart of one quantity: the smoothed line, the raw values faint behind it."""
    values = [row[key] for row in rows for key in ("y", "r") if row.get(key) is not None]
    x = alt.X("x:Q", title="Step", scale=alt.Scale(nice=False, zero=True), axis=alt.Axis(grid=False, tickCount=5))
    scale, ticks = value_axis(values, log=True)
    if not quantity.log:
        scale, ticks = alt.Scale(zero=True, nice=False), alt.Axis(tickCount=5, format="~g")
    y = alt.Y("y:Q", title=None, scale=scale, axis=ticks)
    base = chart_of(data, rows, static)
    tint = colour(palette, static)
    tooltip = nearest_tooltip(("Method", "m", None), ("Step", "x", ",d"), (quantity.title, "y", ".4~g"))
    line = base.mark_line(strokeWidth=1.8).encode(x, y, color=tint, strokeDash=dash(palette))
    near = nearest()
    visible = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    dots = (
        base.mark_point(style="outlined", size=70, filled=True)
        .encode(x, y, color=tint, opacity=visible, tooltip=tooltip)
        .add_params(near)
    )
    faint = base.mark_line(strokeOpacity=unless_crowded(0.28, palette, static), strokeWidth=1)
    raw = faint.encode(x, alt.Y("r:Q", title=None, scale=scale), color=tint)
    layers = [*([raw] if quantity.raw else []), line, *([] if static else [dots])]
    return switchable(layered(*layers), palette, static).properties(width=width, height=height)
