"""Runs of which not every step has a record: what is drawn of the others, and what is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.synthetic_runs import write_run
from raptr.plan import ModelShape, RaPTr
from raptr.plan.methods import LayerDrop
from raptr.report.figures.boundary_loss import boundary_rows
from raptr.report.figures.path_panels import panels_of
from raptr.report.notes import boundary_note, paths_note, training_note
from raptr.report.recorded_paths import known_paths
from raptr.report.table import boundary_table
from raptr.results.folder import read_folder
from raptr.results.run_files import read_run


def planned(folder: Path, method: str, steps: int) -> None:
    """Writes into a run what a plan of the method, with a seed of 3, trains, and a config that names it."""
    spec, settings = (
        (RaPTr("6-12", sampler="bernoulli", seed=3), "schedule: 6-12, lengths: equal, warmup: 0, alpha: 1.0, ")
        if method == "raptr"
        else (LayerDrop(seed=3), "")
    )
    plan = spec.plan(ModelShape.of(layers=12), steps)
    text = f"{{method: {method}, {settings}{'sampler: bernoulli' if settings else ''}}}"
    (folder / "config.yaml").write_text(f"method: mine\nseed: 3\nmethods:\n  mine: {text}\n")
    info = json.loads((folder / "run.json").read_text())
    info["plan"]["stages"] = [
        {"start": stage.start, "stop": stage.stop, "sizes": list(stage.sizes)} for stage in plan.stages
    ]
    (folder / "run.json").write_text(json.dumps(info))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train":
            line["layers"] = plan.subnetwork(line["step"] - 1).layers
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def thin(folder: Path, every: int) -> None:
    """Leaves of the training records each first of so many."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "train" or line["step"] % every == 1]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))


@pytest.mark.parametrize("method", ["raptr", "layerdrop"])
def test_steps_without_a_record_are_those_of_the_plan(tmp_path: Path, method: str) -> None:
    folder = write_run(tmp_path / "run", steps=133)
    planned(folder, method, 133)
    whole = known_paths(read_run(folder))
    assert whole.source == "records"
    thin(folder, 6)
    found = known_paths(read_run(folder))
    assert found.source == "plan"
    np.testing.assert_array_equal(found.step, whole.step)
    np.testing.assert_array_equal(found.kept[0], whole.kept[0])
    (panel,) = panels_of(read_folder(folder))
    note = paths_note(read_folder(folder), [panel])
    assert "Of RaPTr 6-8-10-12 (23 of 133) not every step has a record: the others are drawn as the plan" in note
    assert (panel.rows[0]["a"], panel.rows[-1]["b"]) == (0, 133)
    assert not any("i" in row for row in panel.rows)


@pytest.mark.parametrize("damage", ["another seed", "no method", "an alias", "no YAML", "a record", "a stage"])
def test_a_plan_that_is_not_the_one_that_ran_is_not_drawn(tmp_path: Path, damage: str) -> None:
    """Then a recorded step is one step wide; only of stages of the whole model it is known what every step trained."""
    folder = write_run(tmp_path / "run", steps=133)
    planned(folder, "raptr", 133)
    thin(folder, 6)
    config = (folder / "config.yaml").read_text()
    changed = {
        "another seed": config.replace("seed: 3", "seed: 4"),
        "no method": config.replace("method: raptr", "method: nothing"),
        "an alias": config.replace("seed: 3", "other: &three 3\nseed: *three"),
        "no YAML": "{",
    }
    (folder / "config.yaml").write_text(changed.get(damage, config))
    metrics, facts = folder / "metrics.jsonl", folder / "run.json"
    if damage == "a record":
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        lines[1]["layers"] = [[0, 11]]
        metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if damage == "a stage":
        info = json.loads(facts.read_text())
        info["plan"]["stages"][0]["sizes"] = [7]
        facts.write_text(json.dumps(info))
    run = read_run(folder)
    found = known_paths(run)
    assert found.source == "some"
    boundary = run.stages[1].start
    recorded = [step for step in run.train.step.tolist() if step <= boundary]
    assert found.step.tolist() == [*recorded, *range(boundary + 1, 134)]
    comparison = read_folder(folder)
    (panel,) = panels_of(comparison)
    widths = {row["b"] - row["a"] for row in panel.rows if row["b"] <= boundary}
    assert widths == {1}
    assert "(23 of 133) not every step has a record, and of the white between nothing is known" in paths_note(
        comparison, [panel]
    )


def test_a_complete_run_says_nothing_of_records(tmp_path: Path) -> None:
    comparison = read_folder(write_run(tmp_path / "run", steps=133))
    assert "record" not in paths_note(comparison, panels_of(comparison)) + training_note(comparison)
    assert "–" not in boundary_note(comparison)


def test_where_the_steps_at_a_boundary_were_not_recorded_no_jump_is_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=400)
    ((train, validation), *_) = boundary_rows(read_folder(folder))
    assert any(row["y"] is not None for row in train)
    assert len(validation) == 2
    thin(folder, 10)
    comparison = read_folder(folder)
    ((train, after), *_) = boundary_rows(comparison)
    assert (train, after) == ([], validation)
    table = boundary_table(comparison)
    assert table is not None
    assert table.rows[0].cells["Boundary 1"].text == "–"
    assert table.rows[0].cells["Boundary 1"].value is None
    assert boundary_note(comparison).endswith("were not all recorded: RaPTr 6-8-10-12.")
    assert "averages are of those that have one: RaPTr 6-8-10-12 (40 of 391)." in training_note(comparison)


def test_a_recorded_jump_is_shown_without_the_steps_around_it(tmp_path: Path) -> None:
    """As in what is kept of the evidence: the boundary's line, and few steps."""
    folder = write_run(tmp_path / "run", steps=400)
    thin(folder, 10)
    lines = [
        {"kind": "boundary", "step": step, "stage": stage, "window": 10, "jump": 0.125, "peak": 0.5}
        for stage, step in enumerate((100, 200, 300), start=1)
    ]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    comparison = read_folder(folder)
    table = boundary_table(comparison)
    assert table is not None
    assert [cell.text for cell in table.rows[0].cells.values()] == ["+0.1250"] * 3
    ((train, validation), *_) = boundary_rows(comparison)
    assert train == []
    assert len(validation) == 2
    note = boundary_note(comparison)
    assert "–" not in note
    assert note.endswith("The jump was recorded, but not every step before it, so there is no line: RaPTr 6-8-10-12.")
