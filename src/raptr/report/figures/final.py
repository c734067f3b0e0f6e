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


def final_chart(comparison: Comparison, palette: Palette, *, width: int | str = "container") -> alt.LayerChart:
    """Returns the chart: a method a row with its name above, lower loss to the left."""
    seeds, means = final_rows(comparison)
    known = [name for name in palette.names if any(row["m"] == name for row in (*seeds, *means))]
    scale = alt.Scale(zero=False, padding=10, nice=False)
    ticks = alt.Axis(tickCount=5, format="~g")
    x = alt.X("y:Q", title="Final validation loss", scale=scale, axis=ticks)
    y = alt.Y("m:N", sort=known, title=None, scale=alt.Scale(domain=known), axis=None)
    tint = colour(palette, False)
    tooltip = [
        alt.Tooltip("m:N", title="Method"),
        alt.Tooltip("y:Q", title="Mean", format=".4f"),
        alt.Tooltip("lo:Q", title="95% from", format=".4f"),
        alt.Tooltip("hi:Q", title="95% to", format=".4f"),
    ]
    loss = alt.Tooltip("y:Q", title="Validation loss", format=".4f")
    low = alt.X("lo:Q", title="Final validation loss", scale=scale, axis=ticks)
    base = alt.Chart(data(means))
    names = alt.Chart(data([{"m": name} for name in known])).mark_text(style="name", align="left", dy=-14)
    dots = alt.Chart(data(seeds)).mark_point(filled=True, size=50, opacity=0.8, yOffset=5)
    layers = [
        names.encode(alt.X(value=0), y, text="m:N"),
        dots.encode(x, y, color=tint, tooltip=[tooltip[0], alt.Tooltip("seed:O", title="Seed"), loss]),
        base.mark_tick(thickness=3, size=20, yOffset=5).encode(x, y, color=tint, tooltip=tooltip),
    ]
    if any(row["lo"] is not None for row in means):
        bars = base.mark_rule(strokeWidth=8, opacity=0.25, strokeCap="round", yOffset=5)
        layers.insert(0, bars.encode(low, alt.X2("hi:Q"), y, color=tint))
    return layered(*layers).properties(width=width, height=42 * len(known))
