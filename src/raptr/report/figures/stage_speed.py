"""How the time of each method divides into its stages."""

import altair as alt

from raptr.report.figures.common import Data, Row, layered, rounded
from raptr.results.folder import Comparison, Method
from raptr.results.speed import StageSpeed, speeds
from raptr.units import quantity, size, time_unit

ROW = 46  # pixels
LABEL = 44  # pixels that the speed of a stage takes


def speeds_of(method: Method) -> tuple[StageSpeed, ...]:
    """Returns the stages that the method's finished runs went through; of all its runs while none is finished."""
    done = tuple(run for run in method.runs if run.finished)
    return speeds(done or method.runs)


def speed_rows(comparison: Comparison) -> tuple[list[Row], str]:
    """Returns one row a stage, from when to when it ran, and the unit of time."""
    found = {method.name: speeds_of(method) for method in comparison.methods}
    longest = max((sum(one.seconds for one in stages) for stages in found.values()), default=0.0)
    factor, unit = time_unit(longest)
    most = max((sum(size for _, size in run.stacks) for run in comparison.runs), default=1)
    rows: list[Row] = []
    for name, stages in found.items():
        start = 0.0
        for one in stages:
            rows.append(
                {
                    "m": name,
                    "a": rounded(start / factor),
                    "b": rounded((start + one.seconds) / factor),
                    "k": size(one.stage.sizes, one.stage.width),
                    "v": rounded(one.stage.width * sum(one.stage.sizes) / most, 3),
                    "share": rounded(one.share, 4),
                    "speed": f"{quantity(one.tokens_per_second)}/s",
                    "wide": rounded(one.seconds / longest, 4),
                }
            )
            start += one.seconds
    return rows, unit


def speed_chart(data: Data, rows: list[Row], unit: str, *, width: int | str = "container") -> alt.LayerChart:
    """Returns the chart: a method a row, a segment a stage; the stronger its colour, the more it trained.

    The colour is the share of the layers, times the share of their heads and neurons.
    """
    names = list(dict.fromkeys(row["m"] for row in rows))
    x = alt.X("a:Q", title=f"Training time ({unit})", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=6))
    y = alt.Y("m:N", sort=names, title=None, scale=alt.Scale(domain=names), axis=None)
    tooltip = [
        alt.Tooltip("m:N", title="Method"),
        alt.Tooltip("k:N", title="Layers trained"),
        alt.Tooltip("share:Q", title="Share of its time", format=".1%"),
        alt.Tooltip("speed:N", title="Tokens per second"),
    ]
    base = alt.Chart(data(rows))
    tint = alt.Color("v:Q", scale=alt.Scale(domain=[0, 1]), legend=None)
    bars = base.mark_bar(size=12, yOffset=6, style="segment").encode(x, alt.X2("b:Q"), y, color=tint, tooltip=tooltip)
    labels = (
        base.transform_calculate(label=f"datum.wide * width > {LABEL} ? datum.speed : ''")
        .mark_text(style="label", align="left", yOffset=6, dy=13, dx=1)
        .encode(x, y, text="label:N")
    )
    titles = alt.Chart(data([{"m": name} for name in names])).mark_text(style="name", align="left", dy=-10)
    chart = layered(titles.encode(alt.X(value=0), y, text="m:N"), bars, labels)
    return chart.properties(width=width, height=ROW * len(names))
