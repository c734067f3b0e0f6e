"""The path map: layers by steps, one panel for each method and stack."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from raptr.plan import Stage
from raptr.report.figures.common import Data, Row, layered, rounded
from raptr.report.path_map import PathMap, path_map
from raptr.report.recorded_paths import Known, Source, known_paths
from raptr.results.folder import Comparison, Method
from raptr.results.run_files import Run
from raptr.units import size
from raptr.units import stage as stage_text

TICK_EVERY = ((12, 1), (26, 2), (52, 4), (100, 8))
MANY = 6  # with more panels, each is low
HEIGHT, LOW = 260, 120  # pixels
LABEL = 56  # pixels that a stage needs for its label; a narrower one gets the number alone
NUMBER = 22  # and one that is narrower still, nothing
WIDTH = 40  # that both need besides, if layers run a part of their heads and neurons


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The path map of one stack of one method's first run: one row of ``rows`` a column of the map.

    Attributes:
        method: its name.
        stack: its name, where there are several.
        layers: of the stack.
        steps: of the longest method.
        source: where its steps are known from.
        rows: from step ``a`` to ``b``, the share ``v`` of each layer; ``i`` where no column follows at once.
        stages: of the run.
    """

    method: str
    stack: str | None
    layers: int
    steps: int
    source: Source
    rows: list[Row]
    stages: list[Row]


def panels_of(comparison: Comparison) -> list[Panel]:
    """Returns the panels of all methods; ``steps`` is the longest method's, so that they line up."""
    longest = max((run.steps for run in comparison.runs), default=1)
    first = [(method, method.runs[0], known_paths(method.runs[0])) for method in comparison.methods if method.runs]
    return [_panel(*one, stack, longest) for one in first for stack in range(len(one[1].stacks))]


def _panel(method: Method, run: Run, known: Known, stack: int, longest: int) -> Panel:
    name, layers = run.stacks[stack]
    found = path_map(known.step, known.kept[stack], run.steps)
    return Panel(
        method=method.name,
        stack=name if len(run.stacks) > 1 else None,
        layers=layers,
        steps=longest,
        source=known.source,
        rows=_merged(found),
        stages=[
            {
                "a": one.start,
                "b": one.stop,
                "mid": (one.start + one.stop) / 2,
                **_labels(one, stack),
                "wide": rounded((one.stop - one.start) / longest, 4),
            }
            for one in run.stages
        ],
    )


def _labels(one: Stage, stack: int) -> Row:
    """What stands above a stage if there are so many pixels for it: ``k`` above ``kw`` of them, ``n`` above ``nw``."""
    sizes, narrow = one.sizes[stack : stack + 1], WIDTH if one.width < 1 else 0
    return {
        "k": "warm-up" if one.warmup else stage_text(sizes, one.width),
        "n": size(sizes, one.width),
        "kw": LABEL + narrow,
        "nw": NUMBER + narrow,
    }


def _merged(found: PathMap) -> list[Row]:
    """The columns as rows; neighbours that look the same are one, which is most of a full-model stage."""
    rows: list[Row] = []
    for start, stop, shares in zip(found.start, found.stop, found.share, strict=True):
        value = [rounded(share, 3) for share in shares]
        if rows and rows[-1]["b"] == start and rows[-1]["v"] == value:
            rows[-1]["b"] = int(stop)
        else:
            if rows and rows[-1]["b"] < start:
                rows[-1]["i"] = 1
            rows.append({"a": int(start), "b": int(stop), "v": value})
    return rows


def compact(panels: Sequence[Panel]) -> bool:
    """Whether there are so many panels that each is drawn at half the height."""
    return len(panels) > MANY


def panel_chart(
    data: Data,
    panel: Panel,
    *,
    width: int | str = "container",
    height: int = HEIGHT,
    title: str | None = None,
    static: bool = False,
) -> alt.LayerChart:
    """Returns the chart of one panel: layer 0 at the bottom, a seam and the stage's size at each stage."""
    x = alt.X(
        "a:Q",
        title="Step",
        scale=alt.Scale(domain=[0, panel.steps], nice=False),
        axis=alt.Axis(grid=False, tickCount=8 if height == HEIGHT else 5, format=",d"),
    )
    every = next((every for most, every in TICK_EVERY if panel.layers <= most), 16) * (1 if height == HEIGHT else 2)
    # Rows and the gaps between them are whole pixels: nothing else looks even.
    row = min(max(round(height / panel.layers), 3), 18)
    gap = 1 if row >= 7 else 0
    order = list(range(panel.layers - 1, -1, -1))
    y = alt.Y(
        "layer:O",
        title="Layer",
        sort=order,
        scale=alt.Scale(domain=order, paddingInner=gap / row, paddingOuter=0),
        axis=alt.Axis(values=list(range(0, panel.layers, every)), ticks=False, grid=False),
    )
    reached = panel.rows[-1]["b"] if panel.rows else 0
    share = alt.Color(
        "v:Q",
        scale=alt.Scale(domain=[0, 1]),
        legend=alt.Legend(
            title="Share of the steps shown in which the layer was trained",
            format=".0%",
            orient="top",
            titleLimit=400,
            values=[0, 0.5, 1],
        )
        if static
        else None,
    )
    cells = (
        alt.Chart(data(panel.rows))
        .transform_calculate(layer=f"sequence(0, {panel.layers})")
        .transform_flatten(["v", "layer"])
        # A little overlap: the next column is drawn over it, and no hairlines show between them. Where none follows,
        # a column is as wide as its steps, or a line that can be seen.
        .transform_calculate(
            e=f"datum.i ? max(datum.b, datum.a + {panel.steps / 1000}) : min({reached}, datum.b + {reached / 400})",
            range="datum.b - datum.a > 1 ? (datum.a + 1) + ' to ' + datum.b : '' + datum.b",
        )
        .mark_rect()
        .encode(
            x,
            alt.X2("e:Q"),
            y,
            color=share,
            tooltip=[
                alt.Tooltip("layer:O", title="Layer"),
                alt.Tooltip("range:N", title="Steps"),
                alt.Tooltip("v:Q", title="Trained in", format=".0%"),
            ],
        )
    )
    stages = alt.Chart(data(panel.stages))
    seams = stages.transform_filter("datum.a > 0").mark_rule(style="seam").encode(alt.X("a:Q"))
    labels = (
        stages.transform_calculate(
            label="datum.wide * width > datum.kw ? datum.k : datum.wide * width > datum.nw ? datum.n : ''"
        )
        .mark_text(style="label", baseline="bottom")
        .encode(alt.X("mid:Q"), alt.Y(value=-5), text="label:N")
    )
    chart = layered(cells, seams, labels).properties(width=width, height=row * panel.layers - gap)
    return chart.properties(title=title) if title else chart
