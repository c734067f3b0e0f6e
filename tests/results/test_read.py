"""Reading run folders: what is tolerated, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.synthetic_runs import write_comparison, write_run
from raptr.errors import RaptrError
from raptr.results.folder import read_folder
from raptr.results.run_files import read_run


def test_values_are_those_of_the_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=40)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [one for one in records if one["kind"] == "train"]
    run = read_run(folder)
    assert run.train.step.tolist() == [one["step"] for one in train]
    assert run.train.columns["loss"].tolist() == [one["loss"] for one in train]
    assert [np.flatnonzero(row).tolist() for row in run.train.kept[0]] == [one["layers"][0] for one in train]
    evals = [one["eval_loss"] for one in records if one["kind"] == "eval"]
    assert run.evals.columns["eval_loss"].tolist() == evals


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=40)
    path = folder / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "train", "step": 41, "layers": [[0,')
    assert read_run(folder).train.step[-1] == 40
    path.write_bytes(whole + '{"kind": "train", "label": "é'.encode()[:-1])  # in the middle of a letter
    assert read_run(folder).train.step[-1] == 40


def test_a_broken_line_elsewhere_is_refused_with_its_number(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=40)
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[6] = lines[6][:20] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(RaptrError, match=r"metrics\.jsonl, line 7 is no JSON"):
        read_run(folder)


def test_a_broken_last_line_that_was_not_cut_off_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=40)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st\n')
    with pytest.raises(RaptrError, match="is no JSON"):
        read_run(folder)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"kind": "train", "step": 3}', "'layers'"),
        ('{"kind": "train", "step": 3, "layers": [[0, 99]]}', "layer 99 of a stack of 12"),
        ('{"kind": "train", "step": 3, "layers": [[0], [1]]}', "zip"),
        ('{"kind": "eval"}', "no step"),
        ("[1, 2]", "lacks or garbles"),
    ],
)
def test_a_line_that_says_too_little_is_refused(tmp_path: Path, line: str, what: str) -> None:
    folder = write_run(tmp_path / "run", steps=40)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RaptrError, match=r"line \d+ lacks or garbles") as caught:
        read_run(folder)
    assert what in str(caught.value)


def test_steps_written_again_by_a_resumed_run_count_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=40)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 40, "stage": 3, "layers": [[0, 5, 11]], "loss": 1.25}\n')
    run = read_run(folder)
    assert run.train.step.tolist() == list(range(1, 41))
    assert run.train.columns["loss"][-1] == 1.25
    assert np.isnan(run.train.columns["tokens"][-1])
    assert np.flatnonzero(run.train.kept[0][-1]).tolist() == [0, 5, 11]


def test_a_mark_of_going_on_and_lines_of_unknown_kinds_are_no_records(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=40)
    before = read_run(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "resume", "step": 40, "seconds": 3.0}\n{"kind": "new", "anything": [1]}\n')
    assert read_run(folder).train.step.tolist() == before.train.step.tolist()
    assert read_run(folder).evals.step.tolist() == before.evals.step.tolist()


def test_losses_by_validation_source_are_columns(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", steps=40, sources=("wiki", "code")))
    assert list(run.evals.sources) == ["wiki", "code"]
    both = np.mean([run.evals.sources["wiki"], run.evals.sources["code"]], axis=0)
    np.testing.assert_allclose(both, run.evals.columns["eval_loss"])
    assert read_run(write_run(tmp_path / "other", steps=40)).evals.sources == {}


def test_null_and_nan_losses_are_no_numbers(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", steps=60, nan_from=30))
    assert np.isnan(run.train.columns["loss"][29:]).all()
    assert np.isnan(run.train.columns["grad_norm"][29:]).all()
    assert np.isfinite(run.train.columns["loss"][:29]).all()


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RaptrError, match="is not a folder"):
        read_folder(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RaptrError, match="holds no runs"):
        read_folder(tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "what"),
    [({"format": 2}, "has format 2"), ({"plan": {}}, "'stacks'"), ({"seed": "x"}, "invalid literal")],
)
def test_a_run_json_that_cannot_be_used_is_refused(tmp_path: Path, change: dict[str, object], what: str) -> None:
    folder = write_run(tmp_path / "run", steps=8)
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**info, **change}))
    with pytest.raises(RaptrError, match=r"run\.json") as caught:
        read_folder(folder)
    assert what in str(caught.value)


def test_the_baseline_comes_first_and_equal_labels_are_told_apart(tmp_path: Path) -> None:
    options = {"label": "Same", "sizes": (12,), "steps": 20}
    folder = write_comparison(tmp_path / "c", methods={"a": options, "full": options}, seeds=2)
    comparison = read_folder(folder)
    assert [method.name for method in comparison.methods] == ["Same (full)", "Same (a)"]
    assert [[run.seed for run in method.runs] for method in comparison.methods] == [[0, 1], [0, 1]]
