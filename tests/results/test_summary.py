"""summary.json from the runs' own files, and what a folder is."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from helpers.synthetic_runs import METHODS, sweep_of, write_comparison, write_run
from raptr.errors import RaptrError
from raptr.report import write_report
from raptr.results import read_folder, summarise
from raptr.results.outcome import verdict_text
from raptr.results.statistics import Decision

SHORT = {key: {**options, "steps": options["steps"] // 9} for key, options in METHODS.items()}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def results(folder: Path, method: str, name: str) -> list[float]:
    return [json.loads(path.read_text())[name] for path in sorted(folder.glob(f"{method}-seed*/result.json"))]


def test_the_summary_by_hand(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c")
    found = summarise(folder)
    assert (found["name"], found["baseline"], found["budget"], found["seeds"]) == ("c", "full", "flops", [0, 1, 2])
    ours, theirs = results(folder, "raptr", "eval_loss"), results(folder, "full", "eval_loss")
    entry = found["methods"]["raptr"]
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = sum(gaps) / 3
    half = 4.302653 * math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 2) / math.sqrt(3)  # t(0.975, 2)
    assert entry["eval_loss"] == ours
    assert entry["mean"] == pytest.approx(sum(ours) / 3)
    assert entry["difference"] == pytest.approx(mean)
    assert entry["difference_interval"] == pytest.approx([mean - half, mean + half])
    assert entry["seconds"] == pytest.approx(sum(results(folder, "raptr", "seconds")) / 3)
    assert (entry["steps"], entry["label"]) == (447, "RaPTr 6-8-10-12")
    assert entry["verdict"] == f"better by {-mean:.3f}"
    assert found["methods"]["full"]["verdict"] == "baseline"
    assert found["methods"]["full"]["savings"] == {}
    saving = entry["savings"]["total_flops"]
    assert saving["reached"]
    assert saving["loss"] == pytest.approx(sum(theirs) / 3)
    assert saving["saving"] == pytest.approx(1 - saving["method"] / saving["baseline"])
    assert saving["baseline"] == pytest.approx(results(folder, "full", "total_flops")[0])


@pytest.mark.parametrize(
    ("change", "seeds", "decision", "verdict"),
    [
        ({"offset": -0.3}, 3, "better", "better by 0.300"),
        ({"offset": 0.3}, 3, "worse", "worse by 0.300"),
        ({"offset": 0.0}, 2, "undecided", "too short to decide"),
        ({"offset": -0.3}, 1, "one_seed", "one seed: no interval"),
        ({"nan_from": 10}, 3, "diverged", "diverged"),
    ],
)
def test_the_summary_holds_the_decision_beside_its_text(
    tmp_path: Path, change: dict[str, Any], seeds: int, decision: str, verdict: str
) -> None:
    """Methods of one length and the same seeds have the same loss, apart from the offset."""
    methods = {"full": SHORT["full"], "raptr": {**SHORT["full"], "label": "RaPTr", **change}}
    found = summarise(write_comparison(tmp_path / "c", methods=methods, seeds=seeds))
    entry, baseline = found["methods"]["raptr"], found["methods"]["full"]
    assert (entry["decision"], entry["verdict"]) == (decision, verdict)
    assert (baseline["decision"], baseline["verdict"]) == ("baseline", "baseline")
    assert type(json.loads(json.dumps(found))["methods"]["raptr"]["decision"]) is str


@pytest.mark.slow
def test_a_summary_of_before_gains_its_decisions_from_the_runs(tmp_path: Path) -> None:
    """A stored summary without decisions, or with other words, changes nothing."""
    folder = write_comparison(tmp_path / "c", methods=SHORT)
    found = summarise(folder)
    old = {key: {k: v for k, v in one.items() if k != "decision"} for key, one in found["methods"].items()}
    old["raptr"]["verdict"] = "worse by 9.000"
    (folder / "summary.json").write_text(json.dumps({**found, "methods": old}))
    write_report(folder)
    again = json.loads((folder / "summary.json").read_text())
    assert again == found
    assert again["methods"]["raptr"]["decision"] == "better"


def test_a_stored_summary_is_not_read(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT)
    before = summarise(folder)
    (folder / "summary.json").write_text("no JSON at all")
    assert summarise(folder) == before
    edit(folder / "raptr-seed1" / "result.json", eval_loss=1.0)  # control: the runs are
    assert summarise(folder) != before


def test_the_summary_is_json_also_of_a_diverged_method(tmp_path: Path) -> None:
    methods = {**SHORT, "wild": {**SHORT["raptr"], "label": "Wild", "nan_from": 10}}
    found = summarise(write_comparison(tmp_path / "c", methods=methods))
    json.dumps(found, allow_nan=False)
    wild = found["methods"]["wild"]
    assert (wild["mean"], wild["difference"], wild["verdict"], wild["savings"]) == (None, None, "diverged", {})
    assert found["methods"]["raptr"]["verdict"] != "diverged"


def test_what_a_diverged_seed_took_is_in_no_mean_beside_others(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT)
    whole = summarise(folder)["methods"]["raptr"]
    short = {"steps": 4, "epochs": 0.01, "tokens": 99, "layer_flops": 1.0, "total_flops": 2.0, "seconds": 0.5}
    edit(folder / "raptr-seed1" / "result.json", **short, eval_loss=None, skipped_updates=3, diverged=True)
    found = summarise(folder)
    entry = found["methods"]["raptr"]
    assert (entry["steps"], entry["tokens"], entry["verdict"]) == (whole["steps"], whole["tokens"], "diverged")
    assert entry["epochs"] == pytest.approx(whole["epochs"])
    seconds = results(folder, "raptr", "seconds")
    assert entry["seconds"] == pytest.approx((seconds[0] + seconds[2]) / 2)
    for seed in (0, 2):
        edit(folder / f"raptr-seed{seed}" / "result.json", **short, eval_loss=None)
    assert {name: summarise(folder)["methods"]["raptr"][name] for name in short} == short, "all: what ran"


def test_updates_that_were_not_made_are_among_the_warnings(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT)
    assert summarise(folder)["warnings"] == [], "of runs of before, which do not count them"
    steps = results(folder, "raptr", "steps")[0]
    edit(folder / "raptr-seed1" / "result.json", skipped_updates=12)
    edit(folder / "raptr-seed2" / "result.json", skipped_updates=0)
    said = f"RaPTr 6-8-10-12, seed 1: 12 of {steps} updates were not made (loss or gradient norm not finite)."
    assert summarise(folder)["warnings"] == [said]
    assert read_folder(folder / "raptr-seed1").warnings == (said,)
    assert read_folder(folder / "raptr-seed2").warnings == ()


def test_a_diverged_baseline_leaves_nothing_to_compare_with(tmp_path: Path) -> None:
    methods = {"full": {**SHORT["full"], "nan_from": 10}, "raptr": SHORT["raptr"]}
    found = summarise(write_comparison(tmp_path / "c", methods=methods))["methods"]
    assert found["full"]["verdict"] == "diverged"
    assert found["raptr"]["verdict"] == "the baseline diverged"
    assert found["full"]["decision"] == found["raptr"]["decision"] == "diverged"


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    entry = summarise(write_comparison(tmp_path / "c", methods=SHORT, seeds=1))["methods"]["raptr"]
    assert entry["interval"] is entry["difference_interval"] is entry["savings"]["seconds"]["interval"] is None
    assert entry["verdict"] == "one seed: no interval"


def test_missing_runs_are_known_and_refuse_a_summary(tmp_path: Path) -> None:
    methods = {"full": SHORT["full"], "raptr": SHORT["raptr"], "slow": {**SHORT["raptr"], "done": 20}}
    folder = write_comparison(tmp_path / "c", methods=methods, missing=("raptr-seed1",))
    comparison = read_folder(folder)
    assert {method.key: (method.missing, method.unfinished) for method in comparison.methods} == {
        "full": ((), 0),
        "raptr": ((1,), 1),
        "slow": ((), 3),
    }
    by_key = {method.key: method.outcome for method in comparison.methods}
    assert by_key["raptr"].pairs == 2
    assert by_key["raptr"].decision is by_key["slow"].decision is Decision.UNFINISHED
    assert verdict_text(by_key["raptr"]) == "unfinished"
    assert by_key["full"].decision is Decision.BASELINE
    assert by_key["slow"].costs["steps"] == 20
    with pytest.raises(RaptrError, match=r"raptr-seed1, slow-seed0, slow-seed1, slow-seed2 of .* are not finished"):
        summarise(folder)
    with pytest.raises(RaptrError, match="single run"):
        summarise(folder / "full-seed0")


def test_a_method_none_of_whose_runs_has_begun_is_shown_as_that(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT, seeds=1, missing=("raptr-seed0",))
    method = read_folder(folder).methods[1]
    assert (method.key, method.runs, method.missing, method.outcome.costs["steps"]) == ("raptr", (), (0,), None)


def test_what_belongs_to_a_comparison_is_what_its_file_says(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods={**SHORT, "old": SHORT["raptr"]})
    edit(folder / "comparison.json", methods=["full", "raptr"], seeds=[0, 2])
    comparison = read_folder(folder)
    assert [run.folder.name for run in comparison.runs] == ["full-seed0", "full-seed2", "raptr-seed0", "raptr-seed2"]
    assert set(comparison.others) == {"full-seed1", "raptr-seed1", "old-seed0", "old-seed1", "old-seed2"}


def test_an_older_folder_without_the_file_is_read_too(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT, described=False, missing=("raptr-seed2",))
    comparison = read_folder(folder)
    assert (comparison.baseline, comparison.seeds, comparison.budget) == ("full", (0, 1, 2), "")
    assert comparison.methods[1].missing == (2,)


@pytest.mark.parametrize("change", [{"methods": 3}, {"seeds": ["x"]}, {"baseline": "gradual"}, {"methods": []}])
def test_a_comparison_json_that_cannot_be_used_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT, seeds=1)
    edit(folder / "comparison.json", **change)
    with pytest.raises(RaptrError, match=r"comparison\.json lacks or garbles"):
        read_folder(folder)


def test_validation_sources_have_their_own_numbers(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT, sources=("wiki", "code"))
    entry = summarise(folder)["methods"]["raptr"]
    told = results(folder, "raptr", "eval_losses")
    assert entry["sources"]["wiki"]["eval_loss"] == [one["wiki"] for one in told]  # type: ignore[index]
    assert entry["sources"]["code"]["difference"] == pytest.approx(entry["difference"])
    assert summarise(write_comparison(tmp_path / "d", methods=SHORT))["methods"]["raptr"]["sources"] == {}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"data": {"key": "b"}}, "Not comparable: the data is not the same in all runs"),
        ({"data": {"content_hash": "b"}}, "Not comparable: the text is not the same"),
        ({"environment": {"torch": "2.12"}}, "Not comparable: the version of torch"),
        ({"flops": {"other": 1}}, "Not comparable: the FLOPs of a step"),
        ({"environment": {"cpu": "another"}}, "Seconds are not comparable: the processor"),
    ],
)
def test_runs_made_from_other_things_are_flagged(tmp_path: Path, file: dict[str, Any], said: str) -> None:
    data = {"key": "a", "content_hash": "a"}
    folder = write_comparison(tmp_path / "c", methods=SHORT, seeds=2, data=data)
    assert read_folder(folder).warnings == ()
    path = folder / "raptr-seed1" / "run.json"
    info = json.loads(path.read_text())
    edit(path, **{name: {**info[name], **change} for name, change in file.items()})
    warnings = read_folder(folder).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith(said)
    assert "raptr-seed1" in warnings[0]


def test_a_choice_at_the_edge_of_its_grid_is_known(tmp_path: Path) -> None:
    sweep = sweep_of({"full": {1e-3: 3.9, 2e-3: 3.8, 4e-3: None}, "raptr": {1e-3: 3.9, 2e-3: 3.8, 4e-3: 3.7}})
    found = read_folder(write_comparison(tmp_path / "c", methods=SHORT, sweep=sweep)).sweep
    assert found is not None
    assert found.edges("full") == ()
    assert found.edges("raptr") == ("training.learning_rate",)
    assert summarise(tmp_path / "c")["tuned"]["raptr"] == {"training.learning_rate": 4e-3}
    edit(tmp_path / "c" / "sweep.json", trials=[{"method": "full"}])
    with pytest.raises(RaptrError, match=r"sweep\.json lacks or garbles 'values'"):
        read_folder(tmp_path / "c")


def test_a_single_run_is_a_comparison_of_one(tmp_path: Path) -> None:
    comparison = read_folder(write_run(tmp_path / "run", steps=40))
    assert comparison.single
    assert (comparison.baseline, comparison.warnings, comparison.unfinished) == (None, (), 0)
