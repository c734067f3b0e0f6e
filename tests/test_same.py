"""Tests of benchmarks/same.py: each kind of change in what a run leaves is reported, and the clock's is not."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import same  # noqa: E402
from sameness import checkout as checkouts  # noqa: E402
from sameness import inside  # noqa: E402
from sameness.cases import Case, cases, config_of, resume  # noqa: E402
from sameness.differences import MISSING, Difference, Known, compare_folders, compare_values, sort_out  # noqa: E402
from sameness.sources import write_sources  # noqa: E402

sys.path.remove(str(ROOT / "benchmarks"))

from raptr.config import parse  # noqa: E402
from raptr.results import summarise  # noqa: E402

STORED = ROOT / "benchmarks" / "evidence" / "stored" / "widths"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with what a finished run leaves, made apart: only their clocks differ."""
    for number, name in enumerate(("base", "new")):
        folder = tmp_path / name
        checkpoint = folder / "checkpoints" / "checkpoint-2"
        for place in (checkpoint, folder / "model", folder / "figures"):
            place.mkdir(parents=True)
        lines = [{"kind": "train", "step": step, "loss": 2.5 / step, "seconds": step + number} for step in (1, 2)]
        lines[1] |= {"tokens_per_second": 10.0 + number, "mfu": 0.1 + number}
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (folder / "result.json").write_text(json.dumps({"steps": 2, "eval_loss": 1.5, "seconds": 3.0 + number}))
        (folder / "run.json").write_text(json.dumps({"name": "run", "plan": {"stages": [{"sizes": [2]}]}}))
        (folder / "config.yaml").write_text("name: run\nseed: 0\n")
        (folder / "report.html").write_text(f"drawn after {number} s")
        (folder / "figures" / "training.png").write_bytes(bytes([number]))
        generator = torch.Generator().manual_seed(0)
        weights = {key: torch.randn(3, 4, generator=generator) for key in ("layers.0", "layers.1")}
        save_file(weights, folder / "model" / "model.safetensors")
        moments = {0: {"step": torch.tensor(2.0), "exp_avg": torch.randn(3, 4, generator=generator)}}
        torch.save({"state": moments, "param_groups": [{"lr": 0.1}]}, checkpoint / "optimizer.pt")
        torch.save({"python": (3, (1, 2), None), "numpy": np.arange(4)}, checkpoint / "rng_state.pth")
        history = [{"step": 2, "loss": 1.25, "seconds": 3.0 + number, "eval_validation_runtime": 0.1 + number}]
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": history}))
        metrics = {"bytes": 100 + number, "progress": {"tokens": 8, "seconds": 3.0 + number}}
        files = {name: {"bytes": 9 + number, "blake2b": str(number)} for name in ("trainer_state.json",)}
        manifest = {"step": 2, "metrics": metrics, "files": files, "blake2b": str(number)}
        (checkpoint / "raptr.json").write_text(json.dumps(manifest))
    return tmp_path / "base", tmp_path / "new"


def places(pair: tuple[Path, Path]) -> list[str]:
    """Where the folders differ."""
    return [difference.place for difference in compare_folders(*pair)]


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the text of a file."""
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def test_runs_that_differ_in_their_clocks_only_are_identical(pair: tuple[Path, Path]) -> None:
    assert places(pair) == []
    assert (pair[0] / "metrics.jsonl").read_bytes() != (pair[1] / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("file", "old", "new", "place"),
    [
        ("metrics.jsonl", '"loss": 1.25', '"loss": 1.2500000000000002', "metrics.jsonl line 2: loss"),
        ("metrics.jsonl", '"loss": 1.25', '"loss": NaN', "metrics.jsonl line 2: loss"),
        ("metrics.jsonl", '"step": 2', '"step": 2.0', "metrics.jsonl line 2: step"),
        ("metrics.jsonl", '"step": 2', '"step": 2, "layers": [[0]]', "metrics.jsonl line 2: layers"),
        ("metrics.jsonl", '"loss": 1.25, ', "", "metrics.jsonl line 2: loss"),
        ("result.json", '"eval_loss": 1.5', '"eval_loss": null', "result.json: eval_loss"),
        ("run.json", '"sizes": [2]', '"sizes": [2, 2]', "run.json: plan.stages.0.sizes.1"),
        ("config.yaml", "seed: 0", "seed: 1", "config.yaml line 2: "),
        (
            "checkpoints/checkpoint-2/trainer_state.json",
            '"loss": 1.25',
            '"loss": 1.5',
            "checkpoints/checkpoint-2/trainer_state.json: log_history.0.loss",
        ),
        (
            "checkpoints/checkpoint-2/raptr.json",
            '"tokens": 8',
            '"tokens": 9',
            "checkpoints/checkpoint-2/raptr.json: metrics.progress.tokens",
        ),
    ],
)
def test_a_changed_value_is_reported(pair: tuple[Path, Path], file: str, old: str, new: str, place: str) -> None:
    edit(pair[1] / file, lambda text: text.replace(old, new, 1))
    assert places(pair) == [place]


def test_a_missing_line_is_reported(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "metrics.jsonl", lambda text: text[: text.index("\n") + 1])
    (found,) = compare_folders(*pair)
    assert found.place == "metrics.jsonl line 2: "
    assert found.base["step"] == 2
    assert found.new is MISSING


@pytest.mark.parametrize("file", ["model/model.safetensors", "figures/training.png", "result.json"])
def test_a_missing_file_is_reported(pair: tuple[Path, Path], file: str) -> None:
    (pair[1] / file).unlink()
    assert places(pair) == [file]
    assert places((pair[1], pair[0])) == [file]


def test_one_changed_bit_of_a_weight_is_reported(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "model" / "model.safetensors"
    weights = load_file(path)
    bits = weights["layers.1"].view(torch.int32)
    bits[1, 2] ^= 1
    save_file(weights, path)
    assert places(pair) == ["model/model.safetensors: tensors.layers.1[6], 1 of 12 values"]


@pytest.mark.parametrize("change", [lambda x: x.double(), lambda x: x.reshape(4, 3)])
def test_another_type_or_shape_of_a_weight_is_reported(pair: tuple[Path, Path], change: Callable[[Any], Any]) -> None:
    path = pair[1] / "model" / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"layers.0": change(weights["layers.0"])}, path)
    assert places(pair) == ["model/model.safetensors: tensors.layers.0"]


def test_a_changed_optimizer_state_is_reported(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "checkpoints" / "checkpoint-2" / "optimizer.pt"
    state = torch.load(path)
    state["state"][0]["exp_avg"][0, 0] *= 1.0001
    state["param_groups"][0]["lr"] = 0.2
    torch.save(state, path)
    start = "checkpoints/checkpoint-2/optimizer.pt: "
    assert places(pair) == [f"{start}state.0.exp_avg[0], 1 of 12 values", f"{start}param_groups.0.lr"]


def test_another_random_state_is_reported(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "checkpoints" / "checkpoint-2" / "rng_state.pth"
    torch.save({"python": (3, (1, 3), None), "numpy": np.arange(1, 5)}, path)
    start = "checkpoints/checkpoint-2/rng_state.pth: "
    assert places(pair) == [f"{start}python.1.1", f"{start}numpy[0], 4 of 4 values"]


def test_numbers_are_compared_as_they_are() -> None:
    assert list(compare_values({"a": float("nan")}, {"a": float("nan")}, "")) == []
    for base, new in ((0.0, -0.0), (1, True), (1, 1.0), (None, float("nan")), ([1], (1,))):
        assert [found.place for found in compare_values({"a": base}, {"a": new}, "x: ")] == ["x: a"]
    zero = torch.zeros(2)
    assert len(list(compare_values(zero, -zero, ""))) == 1
    assert list(compare_values(torch.full((2,), torch.nan), torch.full((2,), torch.nan), "")) == []


@pytest.fixture
def summaries(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Folders with the summary of a stored comparison, and the summary."""
    summary = summarise(STORED)
    for method in summary["methods"].values():
        del method["decision"]  # a key that a base may lack
    for name in ("base", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "widths.json").write_text(json.dumps(summary))
    return tmp_path / "base", tmp_path / "new", summary


def sorted_out(summaries: tuple[Path, Path, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Where a changed summary differs: unwanted and known."""
    base, new, summary = summaries
    (new / "widths.json").write_text(json.dumps(summary))
    unwanted, known = sort_out("summaries", compare_folders(base, new))
    return [found.place for found in unwanted], [entry.place for entry in known]


def test_an_allowed_key_of_a_summary_may_be_added(summaries: tuple[Path, Path, dict[str, Any]]) -> None:
    for method in summaries[2]["methods"].values():
        method["decision"] = "undecided"
    assert sorted_out(summaries) == ([], ["*.json: methods.*.decision"])


def test_any_other_change_of_a_summary_is_reported(summaries: tuple[Path, Path, dict[str, Any]]) -> None:
    raptr = summaries[2]["methods"]["raptr"]
    raptr |= {"novelty": 1, "verdict": "better by far"}
    del raptr["label"]
    expected = [f"widths.json: methods.raptr.{key}" for key in ("label", "verdict", "novelty")]
    assert sorted_out(summaries) == (expected, [])


def test_an_allowed_key_may_not_change() -> None:
    place = "widths.json: methods.raptr.decision"
    changed = Difference(place=place, base="better", new="worse")
    removed = Difference(place=place, base="better", new=MISSING)
    added = Difference(place=place, base=MISSING, new="better")
    assert sort_out("summaries", [changed, removed, added])[0] == [changed, removed]
    assert sort_out("raptr-causal", [added])[0] == [added]


def test_an_expected_difference_is_named_and_only_this_one() -> None:
    mended = Known(case="width", place="run.json: plan.*", reason="a fault that was mended")
    found = [Difference(place=place, base=1, new=2) for place in ("run.json: plan.width", "run.json: seed")]
    assert sort_out("width", found, expected=[mended]) == ([found[1]], {mended: 1})
    assert sort_out("smaller", found, expected=[mended]) == (found, {})


def test_reports_of_stored_runs_are_compared(tmp_path: Path) -> None:
    page = '<p>one</p>\n<script type="application/json" id="figures">{"final": {"data": [1, %s]}}</script>\n<p>%s</p>'
    for name, content in (("base", (2, "two")), ("same", (2, "two")), ("new", (3, "three"))):
        (tmp_path / name / "tuned").mkdir(parents=True)
        (tmp_path / name / "tuned" / "report.html").write_text(page % content)
    assert places((tmp_path / "base", tmp_path / "same")) == []
    start = "tuned/report.html: "
    assert places((tmp_path / "base", tmp_path / "new")) == [f"{start}figures.final.data.1", f"{start}lines.2"]


def test_long_texts_are_shown_where_they_differ() -> None:
    found = Difference(place="page", base="x" * 500 + "old", new="x" * 500 + "new")
    assert str(found) == f"page: '...{'x' * 20}old' -> '...{'x' * 20}new'"


def test_a_case_says_what_differs(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    case = Case(name="one", about="", run=lambda base, new: pair)
    nothing: Any = None
    assert same.check(case, nothing, nothing)
    assert "identical (11 files" in capsys.readouterr().out
    edit(pair[1] / "metrics.jsonl", lambda text: text.replace('"loss": 2.5', '"loss": 2.50025'))
    assert not same.check(case, nothing, nothing)
    assert "metrics.jsonl line 1: loss: 2.5 -> 2.50025" in capsys.readouterr().out
    shutil.rmtree(pair[0])
    shutil.rmtree(pair[1])
    assert not same.check(case, nothing, nothing), "folders without a file are not identical"


@pytest.mark.parametrize("resumes", [True, False])
def test_a_run_that_begins_from_scratch_was_not_resumed(tmp_path: Path, resumes: bool) -> None:
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"step": 1, "seconds": 0.1}\n')

    def raptr(*arguments: str) -> None:
        first = metrics.read_text() if resumes else '{"step": 1, "seconds": 0.2}\n'
        metrics.write_text(first + '{"step": 2, "seconds": 0.3}\n')

    checkout: Any = SimpleNamespace(name="new", work=tmp_path, raptr=raptr)
    config = config_of("killed", "raptr", "causal")
    if resumes:
        assert resume(checkout, config) == metrics.parent
    else:
        with pytest.raises(checkouts.Failed, match="new: the run began from scratch"):
            resume(checkout, config)


def test_a_command_that_fails_is_no_proof(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(base: Any, new: Any) -> Any:
        raise checkouts.Failed("base: exit code 1 instead of 0")

    nothing: Any = None
    assert not same.check(Case(name="one", about="", run=fails), nothing, nothing)
    assert "failed: base: exit code 1" in capsys.readouterr().out


def test_the_cases_are_those_of_the_proof() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
    grid = {f"{m}-{o}" for m in ("raptr", "gradual_stacking", "pld") for o in ("causal", "masked", "denoising")}
    tokens = {f"tokens-{kind}" for kind in ("txt", "jsonl.zst", "parquet", "arrow")}
    others = {"summaries", "reports", "width", "smaller", "killed", "handed-over", "compare", "ddp"}
    assert {*names} == grid | tokens | others


@pytest.mark.parametrize("method", ["raptr", "gradual_stacking", "pld", "width_raptr", "smaller"])
def test_configurations_are_valid_and_keep_the_optimizer(method: str) -> None:
    config = parse(config_of("one", method, "denoising"), "one")
    assert config.method == method
    assert str(config.build_method())
    assert config.checkpoints.keep_last


def test_sources_are_the_same_on_every_call(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_sources(tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".txt", ".zst", ".parquet", ".arrow"}
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)


def test_raptr_of_another_checkout_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="raptr was imported from"):
        inside.check(tmp_path)


def test_an_unknown_case_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        same.chosen(["nothing"])
    assert "no case nothing; there are: summaries, " in capsys.readouterr().err
