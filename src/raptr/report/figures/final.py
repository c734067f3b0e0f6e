"""The result as a picture: the final validation loss of each method, with its seeds and its interval."""

import altair as alt

from raptr.report.comparison import Comparison
from raptr.report.figures.common import Palette, Row, colour, data, layered, rounded


def final_rows(comparison: Comparison) -> tuple[list[Row], list[Row]]:
    """Returns one row a seed, and one a method with mean and interval; methods without a number have none."""
    seeds: list[Row] = []
    means: list[Row] = []
    for method in comparison.methods:
        outcome = method.outcome
        known = [run.seed for run in method.runs if run.finished]
        named = known if len(known) == len(outcome.losses) else list(range(len(outcome.losses)))
        for seed, loss in zip(named, outcome.losses, strict=True):
            if loss is not None:
                seeds.append({"m": method.name, "seed": seed, "y": rounded(loss)})
        if outcome.mean is not None:
            low, high = outcome.interval or (None, None)
            means.append({"m": method.name, "y": rounded(outcome.mean), "lo": rounded(low), "hi": rounded(high)})
    return seeds, means


def final_chart(
    comparison: Comparison, palette: Palette, *, width: int | str = "container", labels: bool = True
) -> alt.LayerChart:
    """Returns the chart: a method a row, lower loss to the left."""
    seeds, means = final_rows(comparison)
    scale, axis = alt.Scale(zero=False), alt.Axis(tickCount=7)
    x = alt.X("y:Q", title="Validation loss of the full model at the end", scale=scale, axis=axis)
    rows = alt.Axis(ticks=False, grid=True, labelLimit=200, labelFontSize=12)
    order = alt.Scale(domain=list(palette.names))
    y = alt.Y("m:N", sort=list(palette.names), title=None, scale=order, axis=rows if labels else None)
    tint = colour(palette, False)
    base = alt.Chart(data(means))
    tooltip = [
        alt.Tooltip("m:N", title="Method"),
        alt.Tooltip("y:Q", title="Mean", format=".4f"),
        alt.Tooltip("lo:Q", title="95 % from", format=".4f"),
        alt.Tooltip("hi:Q", title="95 % to", format=".4f"),
    ]
    bars = base.mark_rule(strokeWidth=7, opacity=0.25, strokeCap="round").encode(
        alt.X("lo:Q", scale=scale), alt.X2("hi:Q"), y, color=tint
    )
    dots = (
        alt.Chart(data(seeds))
        .mark_point(filled=True, size=45, opacity=0.75)
        .encode(x, y, color=tint, tooltip=[tooltip[0], "seed:O", alt.Tooltip("y:Q", format=".4f")])
    )
    ticks = base.mark_tick(thickness=3, size=22).encode(x, y, color=tint, tooltip=tooltip)
    return layered(bars, dots, ticks).properties(width=width, height=34 * len(palette.names))
