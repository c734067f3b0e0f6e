"""Several comparisons side by side: what each was, and what came out."""

from collections.abc import Sequence

import altair as alt

from raptr import units
from raptr.report.figures.common import Data, Palette
from raptr.report.figures.intervals import Point, interval_chart
from raptr.report.table import Cell, Row, Table, difference_cell, loss_cell, saving_cell
from raptr.report.verdict import budget_text
from raptr.results.folder import Comparison, Method
from raptr.results.outcome import final_loss, verdict_text
from raptr.units import usable

COLUMNS = (
    "Method",
    "Difference",
    "Verdict",
    "FLOPs saved",
    "Time saved",
    "Baseline",
    "Budget",
    "Parameters",
    "Data",
)


def overview_table(comparisons: Sequence[Comparison]) -> Table:
    """Returns one row for each method of each comparison that is not its baseline."""
    rows = [
        Row(method=method.key, name=comparison.name, cells=_cells(comparison, method))
        for comparison in comparisons
        for method in _compared(comparison)
    ]
    return Table(columns=COLUMNS, words=("Method", "Data", "Verdict"), rows=rows, first="Comparison")


def _compared(comparison: Comparison) -> Sequence[Method]:
    """The methods that are compared; the only one where nothing is."""
    others = [method for method in comparison.methods if method.key != comparison.baseline]
    return others or comparison.methods


def _cells(comparison: Comparison, method: Method) -> dict[str, Cell]:
    info = (method.runs or comparison.runs)[0].info
    model, data = info.model, info.data
    baseline = next((one for one in comparison.methods if one.key == comparison.baseline), None)
    flops = baseline.outcome.costs["total_flops"] if baseline else None
    parameters = usable(model.get("parameters"))
    compared = baseline is not None and baseline is not method
    return {
        "Method": Cell(text=method.name, note="tuned" if comparison.sweep else "not tuned" if compared else ""),
        "Parameters": Cell(
            text=units.quantity(parameters), note=str(model.get("architecture") or ""), value=parameters
        ),
        "Data": Cell(text=str(data.get("source") or units.MISSING), note=str(data.get("content_hash") or "")[:12]),
        "Budget": Cell(
            text=units.quantity(flops, "FLOP"),
            note=budget_text(comparison.budget) if comparison.budget else "",
            value=flops,
        ),
        "Baseline": _baseline(baseline) if compared and baseline else loss_cell(method.outcome.loss),
        "Difference": difference_cell(method.outcome.loss),
        "FLOPs saved": saving_cell(method, "total_flops"),
        "Time saved": saving_cell(method, "seconds"),
        "Verdict": Cell(
            text=verdict_text(method.outcome) if compared else units.MISSING,
            note=f"n = {method.outcome.pairs}" if method.outcome.pairs else "",
            kind=method.outcome.decision.value if compared else "",
        ),
    }


def _baseline(baseline: Method) -> Cell:
    loss = baseline.outcome.loss
    return Cell(text=units.decimal(loss.mean), note=baseline.name, value=loss.mean)


def overview_chart(
    data: Data, comparisons: Sequence[Comparison], palette: Palette, *, width: int | str = "container"
) -> alt.LayerChart | None:
    """Returns the chart of paired differences, a row a method of a comparison; None where there is none."""
    points = []
    for comparison in comparisons:
        baseline = {
            run.seed: loss
            for method in comparison.methods
            if method.key == comparison.baseline
            for run in method.runs
            if (loss := final_loss(run)) is not None
        }
        for method in comparison.methods:
            outcome = method.outcome
            if outcome.loss.difference is None:
                continue
            gaps = [
                (seed, loss - baseline[seed])
                for seed, loss in zip(outcome.seeds, outcome.loss.values, strict=True)
                if loss is not None and seed in baseline
            ]
            points.append(
                Point(
                    label=f"{comparison.name}: {method.name}",
                    method=method.key,
                    value=outcome.loss.difference,
                    interval=outcome.loss.difference_interval,
                    seeds=gaps,
                )
            )
    if not points:
        return None
    title = "Final validation loss, method minus baseline"
    return interval_chart(data, points, palette, title=title, form="~g", zero=True, width=width)
