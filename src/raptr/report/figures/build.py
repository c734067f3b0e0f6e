"""All figures of a comparison: as specifications for the page, and as charts of fixed size for the PNG files."""

from typing import Any

import altair as alt

from raptr.report.curves import Axis, axis_of
from raptr.report.figures.boundary_loss import boundary_chart, boundary_rows
from raptr.report.figures.common import Data, Palette
from raptr.report.figures.intervals import final_points, interval_chart, saving_points
from raptr.report.figures.loss import loss_chart, loss_rows
from raptr.report.figures.path_panels import HEIGHT, LOW, Panel, compact, panel_chart
from raptr.report.figures.stage_speed import speed_chart, speed_rows
from raptr.report.figures.training import QUANTITIES, training_chart, training_rows
from raptr.results.equal_loss import MEASURES, Measure
from raptr.results.folder import Comparison

Spec = dict[str, Any]
Chart = alt.LayerChart | alt.HConcatChart | alt.ConcatChart

AXES = {"total_flops": "FLOPs", "seconds": "Wall clock", "tokens": "Tokens"}
SAVED: dict[Measure, str] = {"total_flops": "Total FLOPs saved", "seconds": "Time saved"}

LOWEST = -1.0  # savings below this (twice the cost) are drawn there


def palette_of(comparison: Comparison) -> Palette:
    """Returns the colours of the methods, grey for the baseline."""
    keys = [method.key for method in comparison.methods]
    baseline = keys.index(comparison.baseline) if comparison.baseline in keys else None
    return Palette.of([method.name for method in comparison.methods], baseline)


def axes_of(comparison: Comparison) -> tuple[Axis, ...]:
    """Returns what the loss is drawn against."""
    return tuple(axis_of(counter, comparison.runs) for counter in AXES)


def sources_of(comparison: Comparison) -> tuple[str, ...]:
    """Returns the validation sources that every run of the comparison has measured."""
    measured = [run.evals.sources for run in comparison.runs if len(run.evals.step)]
    return tuple(name for name in (measured[0] if measured else ()) if all(name in one for one in measured))


def page_specs(data: Data, comparison: Comparison, palette: Palette, panels: list[Panel]) -> dict[str, Spec]:
    """Returns the Vega-Lite specifications of the page's charts by name; their rows are in ``data``."""
    charts: dict[str, Chart] = {}
    if not comparison.single and (points := final_points(comparison)):
        charts["final"] = interval_chart(data, points, palette, title="Final validation loss", form="~g")
    for measure in MEASURES:
        if saving_points(comparison, measure):
            charts[f"saved-{measure}"] = _saved(data, comparison, palette, measure)
    for number, source in enumerate((None, *sources_of(comparison))):
        rows = loss_rows(comparison, axes_of(comparison), source)
        for axis in axes_of(comparison):
            charts[f"loss-{axis.counter}-{number}"] = loss_chart(data, rows, axis, palette, end=False)
            charts[f"end-{axis.counter}-{number}"] = loss_chart(data, rows, axis, palette, end=True)
    for number, around in enumerate(boundary_rows(comparison)):
        charts[f"boundary-{number}"] = boundary_chart(data, around, palette)
    for number, panel in enumerate(panels):
        charts[f"path-{number}"] = panel_chart(data, panel, height=LOW if compact(panels) else HEIGHT)
    for quantity in QUANTITIES:
        charts[quantity.column] = training_chart(data, training_rows(comparison, quantity), quantity, palette)
    segments, unit = speed_rows(comparison)
    if segments:
        charts["speed"] = speed_chart(data, segments, unit)
    return {name: spec_of(chart) for name, chart in charts.items()}


def png_specs(comparison: Comparison, palette: Palette, panels: list[Panel]) -> dict[str, Spec]:
    """Returns the specifications of the PNG files by file name: the page's charts at fixed sizes, with legends."""
    data = Data()
    charts: dict[str, Chart] = {}
    if not comparison.single and (points := final_points(comparison)):
        charts["result.png"] = interval_chart(
            data, points, palette, title="Final validation loss", form="~g", width=720
        )
    saved = [_saved(data, comparison, palette, one, 520) for one in MEASURES if saving_points(comparison, one)]
    if saved:
        charts["savings.png"] = alt.hconcat(*saved, spacing=40)
    rows = loss_rows(comparison, axes_of(comparison))
    for axis, name in zip(axes_of(comparison), ("flops", "time", "tokens"), strict=True):
        whole = loss_chart(data, rows, axis, palette, end=False, width=520, static=True)
        end = loss_chart(data, rows, axis, palette, end=True, width=520, static=True)
        charts[f"loss-{name}.png"] = alt.hconcat(
            whole.properties(title="Validation loss, the whole run"),
            end.properties(title="Validation loss, the last third"),
            spacing=40,
        )
    around = boundary_rows(comparison)
    if around:
        shown = [
            boundary_chart(data, one, palette, width=330, static=True).properties(title=f"Boundary {number}")
            for number, one in enumerate(around, start=1)
        ]
        charts["boundaries.png"] = alt.hconcat(*shown, spacing=32)
    many = compact(panels)
    maps = [
        panel_chart(
            data, one, width=460 if many else 960, height=LOW if many else HEIGHT, title=panel_title(one), static=True
        )
        for one in panels
    ]
    charts["path-map.png"] = alt.concat(*maps, columns=2 if many else 1, spacing=24)
    charts["training.png"] = alt.hconcat(
        *(
            training_chart(
                data, training_rows(comparison, quantity), quantity, palette, width=330, static=True
            ).properties(title=quantity.title)
            for quantity in QUANTITIES
        ),
        spacing=32,
    )
    segments, unit = speed_rows(comparison)
    if segments:
        charts["speed.png"] = speed_chart(data, segments, unit, width=720)
    specs = {name: spec_of(chart) for name, chart in charts.items()}
    return {name: {**spec, "datasets": data.used_by(spec)} for name, spec in specs.items()}


def panel_title(panel: Panel) -> str:
    """Returns the method, and the stack where there are several."""
    return f"{panel.method} · {panel.stack}" if panel.stack else panel.method


def _saved(
    data: Data, comparison: Comparison, palette: Palette, measure: Measure, width: int | str = "container"
) -> alt.LayerChart:
    return interval_chart(
        data,
        saving_points(comparison, measure),
        palette,
        title=SAVED[measure] + " at equal loss",
        form=".0%",
        zero=True,
        floor=LOWEST,
        width=width,
    )


def spec_of(chart: Chart) -> Spec:
    """Returns the specification of a chart; the theme is given when it is drawn.

    It is not validated against Vega-Lite's schema, which would take longer than everything else; a test does.
    """
    spec: Spec = chart.to_dict(validate=False)
    spec.pop("config", None)
    spec.pop("$schema", None)
    return spec
