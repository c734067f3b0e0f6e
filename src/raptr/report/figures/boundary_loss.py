"""The loss around each stage boundary: the first boundary of all methods, the second, and so on."""

import itertools
from collections.abc import Sequence

import altair as alt
import numpy as np

from raptr.report.figures.common import CROWD, Data, Palette, Row, chart_of, colour, dash, layered, rounded, switchable
from raptr.results.boundaries import Boundary, boundaries, mean_loss
from raptr.results.folder import Comparison, Method
from raptr.results.metric_arrays import Floats
from raptr.results.run_files import Run
from raptr.rundir.boundary_jump import windows
from raptr.units import size

AROUND = 0.05  # of the run, on either side
POINTS = 30  # on either side
FEW_POINTS = 8  # the same in a crowd, whose noise would hide every line
MOST = 6  # charts


def boundaries_of(method: Method) -> tuple[Boundary, ...]:
    """Returns the boundaries that the method's finished runs have passed; of all its runs while none is finished."""
    done = tuple(run for run in method.runs if run.finished)
    return boundaries(done or method.runs)


def boundary_rows(comparison: Comparison) -> list[tuple[list[Row], list[Row]]]:
    """Returns, for the first boundary, the second and so on, the rows of training and of validation loss.

    ``x`` is the distance from the boundary as a share of the run. ``y`` is the change of the training loss from
    its mean just before the boundary, mean over seeds and over neighbouring steps (more of them where there are
    many methods); or that of the validation loss from the last evaluation up to the boundary. Where the steps just
    before the boundary were not all recorded there is no training loss, and where others were not, it has a gap.
    """
    found: list[tuple[list[Row], list[Row]]] = []
    points = POINTS if len(comparison.methods) <= CROWD else FEW_POINTS
    for method in comparison.methods:
        runs = [run for run in method.runs if run.finished] or list(method.runs)
        for number, one in enumerate(boundaries_of(method)[:MOST]):
            if number == len(found):
                found.append(([], []))
            train, validation = found[number]
            sizes = (size(stage.sizes, stage.width) for stage in (one.before, one.after))
            name = {"m": method.name, "k": " to ".join(sizes)}
            train += [{**name, **row} for row in _training(runs, one, points)]
            if one.validation is not None and one.evaluated is not None:
                for step, loss in zip(one.evaluated, one.validation, strict=True):
                    x = rounded((step - one.step) / runs[0].steps, 5)
                    validation.append(
                        {**name, "x": x, "y": rounded(loss - one.validation[0], 5), "loss": rounded(loss)}
                    )
    return found


def _training(runs: list[Run], boundary: Boundary, points: int) -> list[Row]:
    run = runs[0]
    reach = max(round(AROUND * run.steps), boundary.window)
    lengths = [stage.stop - stage.start for stage in run.stages if boundary.step in (stage.start, stage.stop)]
    reach = min(reach, *lengths)
    width = max(1, reach // points)
    # Bins end and begin at the boundary itself, so that none mixes the two stages.
    edges = boundary.step + width * np.arange(-(reach // width), reach // width + 1)
    start = levels_of(runs, boundary)
    if None in start:
        return []
    lines, level = np.array([_binned(one, edges) for one in runs]), np.mean(np.array(start, dtype=np.float64))
    middle = (edges[:-1] + edges[1:]) / 2
    return [
        {"x": rounded((at - boundary.step) / run.steps, 5), "y": rounded(value - level, 5)}
        for at, value in zip(middle, lines.mean(axis=0), strict=True)
    ]


def levels_of(runs: Sequence[Run], boundary: Boundary) -> list[float | None]:
    """Returns the mean training loss of each run just before a boundary; None where these steps were not recorded."""
    before, _ = windows(boundary.after)
    return [mean_loss(run.train, before) for run in runs]


def _binned(run: Run, edges: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Floats:
    means = [mean_loss(run.train, range(int(start), int(stop))) for start, stop in itertools.pairwise(edges)]
    return np.array(means, dtype=np.float64)  # None is NaN


def _extent(values: list[float | None]) -> list[float]:
    known = [value for value in values if value is not None]
    return [min(known, default=0.0), max(known, default=1.0)]


def boundary_chart(
    data: Data,
    rows: tuple[list[Row], list[Row]],
    palette: Palette,
    *,
    width: int | str = "container",
    height: int = 220,
    static: bool = False,
) -> alt.LayerChart:
    """Returns the chart of one boundary: a line for the training loss, diamonds for validation."""
    train, validation = rows
    # Ends of their own: a boundary whose methods are all switched off still has axes.
    across, up = (_extent([row[name] for row in (*train, *validation)]) for name in ("x", "y"))
    x = alt.X(
        "x:Q",
        title="Share of the run, from the boundary",
        scale=alt.Scale(domain=across, nice=False),
        axis=alt.Axis(
            grid=False,
            tickCount=5,
            labelExpr="datum.value == 0 ? 'boundary' : format(datum.value, '+.0%')",
        ),
    )
    y = alt.Y("y:Q", title=None, scale=alt.Scale(domain=up, nice=False, padding=8), axis=alt.Axis(tickCount=5))
    tint = colour(palette, static)
    tooltip = [
        alt.Tooltip("m:N", title="Method"),
        alt.Tooltip("k:N", title="Layers"),
        alt.Tooltip("x:Q", title="Share of the run", format="+.1%"),
        alt.Tooltip("y:Q", title="Change", format="+.4f"),
    ]
    rule = alt.Chart(data([{"zero": 0}])).mark_rule(style="zero").encode(alt.X("zero:Q"))
    line = chart_of(data, train, static).mark_line(strokeWidth=1.8).encode(x, y, color=tint, strokeDash=dash(palette))
    spots = chart_of(data, validation, static).mark_point(
        shape="diamond", size=90, filled=True, opacity=1, style="outlined" if len(palette.names) <= CROWD else "point"
    )
    loss = alt.Tooltip("loss:Q", title="Validation loss", format=".4f")
    layers = [rule, line.encode(tooltip=tooltip), spots.encode(x, y, color=tint, tooltip=[*tooltip, loss])]
    return switchable(layered(*layers), palette, static).properties(width=width, height=height)
