"""All figures of a report: as specifications for the page, and as charts of fixed size for the PNG files."""

from typing import Any

import altair as alt

from raptr.report.comparison import Comparison
from raptr.report.curves import Axis, axis_of
from raptr.report.figures.common import Palette
from raptr.report.figures.final import final_chart, final_rows
from raptr.report.figures.loss import LossRows, loss_chart, loss_rows
from raptr.report.figures.paths import Panel, panel_chart
from raptr.report.figures.training import QUANTITIES, training_chart, training_rows

Spec = dict[str, Any]
AXES = {"total_flops": "FLOPs", "seconds": "Wall clock", "tokens": "Tokens"}


def palette_of(comparison: Comparison) -> Palette:
    """Returns the colours of the methods, grey for the baseline."""
    keys = [method.key for method in comparison.methods]
    baseline = keys.index(comparison.baseline) if comparison.baseline in keys else None
    return Palette.of([method.name for method in comparison.methods], baseline)


def has_final(comparison: Comparison) -> bool:
    """Returns whether there is a final loss to draw: several methods, and one of them with a number."""
    return not comparison.single and any(final_rows(comparison))


def page_specs(comparison: Comparison, palette: Palette, panels: list[Panel]) -> dict[str, Spec]:
    """Returns the Vega-Lite specifications of the page's charts by name."""
    charts: dict[str, alt.LayerChart] = {}
    if has_final(comparison):
        charts["final"] = final_chart(comparison, palette)
    for counter in AXES:
        axis, rows = _loss(comparison, counter)
        charts[f"loss-{counter}"] = loss_chart(rows, axis, palette, end=False)
        charts[f"end-{counter}"] = loss_chart(rows, axis, palette, end=True)
    for number, panel in enumerate(panels):
        charts[f"path-{number}"] = panel_chart(panel)
    for quantity in QUANTITIES:
        rows_of = training_rows(comparison, quantity)
        charts[quantity.column] = training_chart(rows_of, quantity, palette)
    return {name: _spec(chart) for name, chart in charts.items()}


def png_specs(comparison: Comparison, palette: Palette, panels: list[Panel]) -> dict[str, Spec]:
    """Returns the specifications of the PNG files by file name: the page's charts at fixed sizes, with legends."""
    charts: dict[str, alt.LayerChart | alt.VConcatChart | alt.HConcatChart] = {}
    if has_final(comparison):
        charts["result.png"] = final_chart(comparison, palette, width=720)
    for counter, name in zip(AXES, ("flops", "time", "tokens"), strict=True):
        axis, rows = _loss(comparison, counter)
        whole = loss_chart(rows, axis, palette, end=False, width=520, static=True)
        end = loss_chart(rows, axis, palette, end=True, width=520, static=True)
        charts[f"loss-{name}.png"] = alt.hconcat(
            whole.properties(title="Validation loss, the whole run"),
            end.properties(title="Validation loss, the last third"),
            spacing=40,
        )
    charts["path-map.png"] = alt.vconcat(
        *(panel_chart(panel, width=960, title=panel_title(panel), static=True) for panel in panels), spacing=24
    )
    charts["training.png"] = alt.hconcat(
        *(
            training_chart(training_rows(comparison, quantity), quantity, palette, width=330, static=True).properties(
                title=quantity.title
            )
            for quantity in QUANTITIES
        ),
        spacing=32,
    )
    return {name: _spec(chart) for name, chart in charts.items()}


def panel_title(panel: Panel) -> str:
    """Returns the method, and the stack where there are several."""
    return f"{panel.method} · {panel.stack}" if panel.stack else panel.method


def _loss(comparison: Comparison, counter: str) -> tuple[Axis, LossRows]:
    axis = axis_of(counter, comparison.runs)
    return axis, loss_rows(comparison, axis)


def _spec(chart: alt.LayerChart | alt.VConcatChart | alt.HConcatChart) -> Spec:
    spec: Spec = chart.to_dict()
    spec.pop("config", None)  # the theme is given when it is drawn
    spec.pop("$schema", None)
    return spec
