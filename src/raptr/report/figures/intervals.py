"""Numbers of methods with their seeds and intervals, a row each: final losses, savings, differences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import altair as alt

from raptr.report.figures.common import Data, Palette, Row, colour, layered, rounded
from raptr.results.equal_loss import Ends, Measure
from raptr.results.folder import Comparison
from raptr.units import interval as interval_text
from raptr.units import share_interval

ROW = 42  # pixels


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row: ``value`` with its interval and those of the seeds; drawn in the colour of ``method``.

    The interval's upper end is None where it is open.
    """

    label: str
    method: str
    value: float | None
    interval: Ends | None
    seeds: Sequence[tuple[int, float | None]]


def final_points(comparison: Comparison) -> list[Point]:
    """Returns the final validation loss of each method that has one."""
    return _known(
        Point(
            label=method.name,
            method=method.name,
            value=method.outcome.loss.mean,
            interval=method.outcome.loss.interval,
            seeds=list(zip(method.outcome.seeds, method.outcome.loss.values, strict=True)),
        )
        for method in comparison.methods
    )


def saving_points(comparison: Comparison, measure: Measure) -> list[Point]:
    """Returns the share saved at equal loss by each method for which it is defined."""
    return _known(
        Point(
            label=method.name,
            method=method.name,
            value=method.outcome.savings[measure].saving,
            interval=method.outcome.savings[measure].interval,
            seeds=list(enumerate(method.outcome.savings[measure].seeds)),
        )
        for method in comparison.methods
        if measure in method.outcome.savings
    )


def _known(points: Iterable[Point]) -> list[Point]:
    """The points with something to draw."""
    return [one for one in points if one.value is not None or any(value is not None for _, value in one.seeds)]


def interval_chart(
    data: Data,
    points: Sequence[Point],
    palette: Palette,
    *,
    title: str,
    form: str,
    zero: bool = False,
    floor: float | None = None,
    width: int | str = "container",
) -> alt.LayerChart:
    """Returns the chart: a row a point, its label above; a dot a seed, a tick for the value, a bar for the interval.

    The bar of an interval whose upper end is open runs to the edge of the chart.

    Args:
        data: keeps the rows.
        points: what is drawn, from the top.
        palette: the colours of the methods.
        title: of the axis.
        form: how numbers are written, for Vega.
        zero: whether the axis has a line at 0.
        floor: what lies below is drawn at this value; the tooltip has the real one.
        width: in pixels, or that of the container.
    """
    seeds: list[Row] = []
    means: list[Row] = []
    for point in points:
        own = {"l": point.label, "m": point.method}
        seeds += [{**own, "seed": seed, "y": rounded(value)} for seed, value in point.seeds if value is not None]
        if point.value is not None:
            means.append({**own, "y": rounded(point.value), **_ends(point.interval, form)})
    labels = [point.label for point in points]
    values = [row[key] for row in (*seeds, *means) for key in ("y", "lo", "hi") if row.get(key) is not None]
    scale = alt.Scale(zero=zero, padding=10, nice=False)
    if floor is not None and values and min(values) < floor:
        scale = alt.Scale(domain=[floor, max(*values, 0.0)], clamp=True, padding=10, nice=False)
    ticks = alt.Axis(tickCount=5, format=form, labelFlush=8)
    x = alt.X("y:Q", title=title, scale=scale, axis=ticks)
    y = alt.Y("l:N", sort=labels, title=None, scale=alt.Scale(domain=labels), axis=None)
    tint = colour(palette, False)
    digits = ".4f" if form == "~g" else ".1%"
    tooltip = [
        alt.Tooltip("l:N", title="Method"),
        alt.Tooltip("y:Q", title="Mean", format=digits),
    ]
    if any(row["lo"] is not None for row in means):
        tooltip.append(alt.Tooltip("ci:N", title="95%"))
    of_seed = [tooltip[0], alt.Tooltip("seed:O", title="Seed"), alt.Tooltip("y:Q", title=title, format=digits)]
    base = alt.Chart(data(means))
    named = alt.Chart(data([{"l": label} for label in labels])).encode(alt.X(value=0), y, text="l:N")
    dots = alt.Chart(data(seeds)).mark_point(filled=True, size=50, fillOpacity=0.8, yOffset=5)
    layers = [
        named.mark_text(style="halo", align="left", dy=-14),  # so that no line crosses the name
        named.mark_text(style="name", align="left", dy=-14),
        dots.encode(x, y, color=tint, tooltip=of_seed),
        base.mark_tick(thickness=3, size=20, yOffset=5).encode(x, y, color=tint, tooltip=tooltip),
    ]
    for end, known in ((alt.X2("hi:Q"), True), (alt.value("width"), False)):
        if any(row["lo"] is not None and (row["hi"] is not None) == known for row in means):
            bars = base.transform_filter(f"isValid(datum.lo) && isValid(datum.hi) == {str(known).lower()}").mark_rule(
                strokeWidth=8, strokeOpacity=0.25, strokeCap="round" if known else "butt", yOffset=5
            )
            layers.insert(0, bars.encode(alt.X("lo:Q", title=title, scale=scale, axis=ticks), y, x2=end, color=tint))
    if zero:
        rule = alt.Chart(data([{"zero": 0}])).mark_rule(style="zero").encode(alt.X("zero:Q", title=title, scale=scale))
        layers.insert(0, rule)
    return layered(*layers).properties(width=width, height=ROW * len(labels))


def _ends(interval: Ends | None, form: str) -> Row:
    """The ends of an interval and how they are told; an end that is open is none."""
    if interval is None:
        return {"lo": None, "hi": None, "ci": "none"}
    low, high = interval
    told = interval_text((low, high)) if form == "~g" and high is not None else share_interval(interval)
    return {"lo": rounded(low), "hi": rounded(high), "ci": told}
