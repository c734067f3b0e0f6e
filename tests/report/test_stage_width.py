"""Methods that train a part of the heads and neurons: their stages are shown with their width."""

from pathlib import Path
from typing import Any

import pytest

from helpers.synthetic_runs import stages_of, write_run
from raptr import units
from raptr.report.curves import axis_of
from raptr.report.figures.boundary_loss import boundary_rows
from raptr.report.figures.loss import loss_rows
from raptr.report.figures.path_panels import panels_of
from raptr.report.figures.stage_speed import speed_rows
from raptr.report.notes import paths_note
from raptr.report.table import boundary_table, speed_table
from raptr.results.folder import Comparison, read_folder
from raptr.results.run_files import read_run


def plan_of(sizes: list[float], widths: list[float], steps: int) -> dict[str, Any]:
    """The plan of run.json, with a width for each stage."""
    stages = [{**stage, "width": width} for stage, width in zip(stages_of(sizes, steps), widths, strict=True)]
    return {"stacks": [{"name": "model.layers", "layers": 12}], "stages": stages}


def comparison_of(folder: Path, sizes: list[float], widths: list[float]) -> Comparison:
    write_run(folder, label="Width", sizes=tuple(sizes), steps=90, plan=plan_of(sizes, widths, 90))
    return read_folder(folder)


def test_the_reader_keeps_the_width(tmp_path: Path) -> None:
    comparison_of(tmp_path / "run", [12, 12, 12], [0.5, 0.75, 1.0])
    run = read_run(tmp_path / "run")
    assert [(stage.sizes, stage.width, stage.label) for stage in run.stages] == [
        ((12,), 0.5, "12 x 50%"),
        ((12,), 0.75, "12 x 75%"),
        ((12,), 1.0, "12"),
    ]


def test_every_place_that_shows_a_stage_shows_its_width(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path / "run", [12, 12, 12], [0.5, 0.75, 1.0])
    boundaries, speeds = boundary_table(comparison), speed_table(comparison)
    assert boundaries is not None
    assert speeds is not None
    cells = boundaries.rows[0].cells
    assert cells["Boundary 1"].note.splitlines()[0] == "12 layers × 50 % to 12 layers × 75 %"
    assert cells["Boundary 2"].note.splitlines()[0] == "12 layers × 75 % to 12 layers"
    notes = [speeds.rows[0].cells[f"Stage {number}"].note.splitlines()[0] for number in (1, 2, 3)]
    assert notes == ["12 layers × 50 %", "12 layers × 75 %", "12 layers"]
    (panel,) = panels_of(comparison)
    assert [(stage["k"], stage["n"]) for stage in panel.stages] == [
        ("12 layers × 50 %", "12 × 50 %"),
        ("12 layers × 75 %", "12 × 75 %"),
        ("12 layers", "12"),
    ]
    assert [stage["kw"] > panel.stages[2]["kw"] for stage in panel.stages] == [True, True, False]
    assert "how many layers each step of the stage trained (× 50 %:" in paths_note(comparison, [panel])
    bars, _ = speed_rows(comparison)
    assert [(bar["k"], bar["v"]) for bar in bars] == [("12 × 50 %", 0.5), ("12 × 75 %", 0.75), ("12", 1.0)]
    tooltips = {row["k"] for train, validation in boundary_rows(comparison) for row in (*train, *validation)}
    assert tooltips == {"12 × 50 % to 12 × 75 %", "12 × 75 % to 12"}
    assert [row["k"] for row in loss_rows(comparison, (axis_of("total_flops", comparison.runs),)).boundaries] == [
        "12 × 75 %",
        "12",
    ]


def test_stages_of_whole_layers_are_shown_without_a_width(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path / "run", [6, 12], [1.0, 1.0])
    boundaries, (panel,) = boundary_table(comparison), panels_of(comparison)
    assert boundaries is not None
    assert boundaries.rows[0].cells["Boundary 1"].note.splitlines()[0] == "6 to 12 layers"
    assert [stage["k"] for stage in panel.stages] == ["6 layers", "12 layers"]
    assert "×" not in paths_note(comparison, [panel])


@pytest.mark.parametrize(
    ("sizes", "width", "short", "words"),
    [
        ((6,), 1.0, "6", "6 layers"),
        ((8.7,), 0.5, "8.7 × 50 %", "8.7 layers × 50 %"),
        ((6, 3), 0.25, "6 + 3 × 25 %", "6 + 3 layers × 25 %"),
    ],
)
def test_the_size_of_a_stage_as_text(sizes: tuple[float, ...], width: float, short: str, words: str) -> None:
    assert units.size(sizes, width) == short
    assert units.stage(sizes, width) == words
