"""Methods that grow: whose loss is read, whose counts; and the control that is a smaller model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.synthetic_runs import METHODS, write_comparison, write_run
from raptr.report.figures.build import axes_of
from raptr.report.figures.loss import loss_rows
from raptr.results.active_loss import full_loss, grows, of_part, trained_loss
from raptr.results.boundaries import boundaries
from raptr.results.folder import read_folder
from raptr.results.run_files import read_run
from raptr.results.summary import summarise

SHORT = {key: {**options, "steps": options["steps"] // 3} for key, options in METHODS.items()}
STACKING = {"label": "Stacking 6-9-12", "sizes": (6, 9, 12), "steps": 150, "offset": -0.3, "eval_every": 5}
SMALLER = {
    "label": "Smaller",
    "sizes": (9,),
    "layers": 9,
    "steps": 150,
    "control": "smaller",
    "model": {"architecture": "llama", "parameters": 2_100_000},
    "flops": {"layers": [[1.0] * 9], "other": 1.0},
}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "eval"]


def test_until_the_last_boundary_it_is_the_loss_of_the_part(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=90, sizes=(6, 9, 12), grows=True, sources=("wiki", "code"))
    run = read_run(folder)
    told = evaluations(folder)
    assert [line["step"] for line in told if "eval_loss_active" in line] == [0, 15, 30, 45, 60]
    assert trained_loss(run).tolist() == [line.get("eval_loss_active", line["eval_loss"]) for line in told]
    assert full_loss(run).tolist() == [line["eval_loss"] for line in told]
    assert of_part(run).tolist() == [True] * 5 + [False] * 2
    by_source = [line.get("eval_losses_active", line["eval_losses"])["code"] for line in told]
    assert trained_loss(run, "code").tolist() == by_source
    assert grows(run)


def test_a_run_that_does_not_grow_has_one_loss(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", steps=90, sources=("wiki", "code")))
    assert not grows(run)
    assert trained_loss(run).tolist() == full_loss(run).tolist()
    assert trained_loss(run, "wiki").tolist() == run.evals.sources["wiki"].tolist()


def test_a_growing_run_that_diverges_has_no_number(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", steps=90, sizes=(6, 9, 12), grows=True, nan_from=40))
    assert np.isfinite(trained_loss(run)).tolist() == [True] * 3 + [False] * 4


def test_the_loss_at_a_boundary_is_that_of_what_was_trained(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", steps=90, sizes=(6, 9, 12), grows=True))
    first, last = boundaries([run])
    assert (first.evaluated, last.evaluated) == ((30, 45), (60, 75))
    for one in (first, last):
        assert one.validation is not None
        assert max(one.validation) < 10
    assert max(full_loss(run)) > 70  # control: these would have been shown


def test_curves_of_a_growing_method_do_not_squash_the_axis(tmp_path: Path) -> None:
    comparison = read_folder(write_comparison(tmp_path / "c", methods={"full": SHORT["full"], "s": STACKING}, seeds=2))
    plain = loss_rows(comparison, axes_of(comparison))
    assert not any("o" in row for row in plain.mean)  # nothing to say where nothing grows
    growing = {"full": SHORT["full"], "s": {**STACKING, "grows": True}}
    comparison = read_folder(write_comparison(tmp_path / "g", methods=growing, seeds=2))
    rows = loss_rows(comparison, axes_of(comparison))
    assert [row["y"] for row in rows.mean] == [row["y"] for row in plain.mean]
    assert [row["y"] for row in rows.seeds] == [row["y"] for row in plain.seeds]
    told = [row["o"] for row in rows.mean if row["m"] == "Stacking 6-9-12" and row["s"] in (100, 105)]
    first = np.mean([full_loss(run)[20] for run in comparison.methods[1].runs])
    assert told == [f"the part trained so far (full model: {first:.4f})", "the full model"]
    assert {row["o"] for row in rows.mean if row["m"] == "Full"} == {"the full model"}


def test_savings_count_the_full_model_only(tmp_path: Path) -> None:
    """The part reaches the baseline's final loss early; the full model cannot before its last boundary."""
    found = {}
    for name, grown in (("grows", True), ("control", False)):
        methods = {"full": SHORT["full"], "s": {**STACKING, "offset": -1.5, "grows": grown}}
        folder = write_comparison(tmp_path / name, methods=methods)
        entry = summarise(folder)["methods"]["s"]
        at = {line["step"]: line["total_flops"] for line in evaluations(folder / "s-seed0")}
        found[name] = entry["savings"]["total_flops"]
    assert found["control"]["method"] < at[100]
    assert at[100] < found["grows"]["method"] <= at[105]
    assert found["grows"]["loss"] == found["control"]["loss"]


def test_a_smaller_model_is_not_held_against_the_others(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods={**SHORT, "smaller": SMALLER}, seeds=2)
    comparison = read_folder(folder)
    assert comparison.warnings == ()
    assert [method.control for method in comparison.methods] == ["", "", "smaller"]
    methods = summarise(folder)["methods"]
    assert (methods["full"]["control"], methods["smaller"]["control"]) == (None, "smaller")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"control": None}, ("Not comparable: the number of parameters", "Not comparable: the FLOPs of a step")),
        ({"data": {"key": "b"}}, ("Not comparable: the data is not the same",)),
    ],
)
def test_only_its_size_is_its_own(tmp_path: Path, change: dict[str, Any], said: tuple[str, ...]) -> None:
    methods = {**SHORT, "smaller": {**SMALLER, **change}}
    folder = write_comparison(tmp_path / "c", methods=methods, seeds=1, data={"key": "a"})
    warnings = read_folder(folder).warnings
    assert len(warnings) == len(said)
    assert all(warning.startswith(start) for warning, start in zip(warnings, said, strict=True))


def test_what_else_a_step_says_of_its_subnetwork_is_left_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=40, sizes=(8.7, 12))
    before = read_run(folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{**line, "heads": [[2] * 12], "neurons": [[44] * 12], "anything": None} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(folder)
    assert run.train.kept[0].tolist() == before.train.kept[0].tolist()
    assert [stage.sizes for stage in run.stages] == [(8.7,), (12.0,)]
