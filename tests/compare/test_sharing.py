"""Comparisons made in parts, and comparisons in which every method is tuned."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.runs import contents, metrics, tiny
from raptr.compare import compare
from raptr.config import load
from raptr.errors import RaptrError
from raptr.train.task import prepare_task

pytestmark = pytest.mark.slow

NAMES = ["full-seed0", "raptr-seed0", "full-seed1", "raptr-seed1"]
RATES = {"training.learning_rate": [1e-4, 3e-2]}


def run(folder: Path, cache: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {"methods": ["full", "raptr"], "seeds": 2, "budget": "flops"}
    config = changes.pop("config", tiny())
    return compare(config, folder=folder, cache=cache, console=Console(quiet=True), **{**values, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "c"
    run(folder, cache)
    return folder


def test_parts_trained_in_any_order_are_the_whole(whole: Path, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "c"
    for names in (["raptr-seed1"], ["full-seed0", "full-seed1"]):
        assert run(folder, cache, only=names) is None
        assert not (folder / "summary.json").exists()
    assert {path.parent.name for path in folder.glob("*/result.json")} == {"raptr-seed1", "full-seed0", "full-seed1"}
    summary = run(folder, cache, only=["raptr-seed0"])
    assert (
        summary["methods"]["raptr"]["eval_loss"]
        == json.loads((whole / "summary.json").read_text())["methods"]["raptr"]["eval_loss"]
    )
    for name in NAMES:
        weights = [(each / name / "model" / "model.safetensors").read_bytes() for each in (whole, folder)]
        assert weights[0] == weights[1]


def test_the_folder_says_what_belongs_to_the_comparison(tmp_path: Path, cache: Path) -> None:
    run(tmp_path / "c", cache, only=["full-seed1"])
    record = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert (record["methods"], record["seeds"], record["baseline"]) == (["full", "raptr"], [0, 1], "full")
    assert record["tuned"] == []
    assert any("Nothing was tuned" in note for note in record["notes"])


@pytest.mark.parametrize("name", ["raptr-seed2", "raptr", "sweep", "../x"])
def test_a_run_that_is_not_there_is_refused(name: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RaptrError, match=r"not a run of this comparison"):
        run(tmp_path / "c", cache, only=[name])
    assert not (tmp_path / "c").exists()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("tuned") / "c"
    return folder, run(folder, cache, grid=RATES)


def test_every_method_is_tried_with_every_value(tuned: tuple[Path, Any]) -> None:
    folder, _ = tuned
    record = json.loads((folder / "sweep.json").read_text())
    tried = {(trial["method"], trial["values"]["training.learning_rate"]) for trial in record["trials"]}
    assert tried == {(method, rate) for method in ("full", "raptr") for rate in (1e-4, 3e-2)}
    for trial in record["trials"]:
        (name,) = trial["runs"]
        assert trial["eval_loss"] == [metrics(folder / name, "eval")[-1]["eval_loss"]]
        rates = [line["learning_rate"] for line in metrics(folder / name, "train")]
        assert max(rates) == pytest.approx(trial["values"]["training.learning_rate"])


def test_the_best_value_on_the_tuning_half_is_trained_and_the_other_half_reported(
    tuned: tuple[Path, Any], cache: Path
) -> None:
    folder, summary = tuned
    record = json.loads((folder / "sweep.json").read_text())
    for method in ("full", "raptr"):
        trials = [trial for trial in record["trials"] if trial["method"] == method]
        best = min(trials, key=lambda trial: trial["mean"])["values"]
        assert record["chosen"][method] == best == {"training.learning_rate": 3e-2}, "1e-4 learns nothing in 9 steps"
        for seed in (0, 1):
            config = load(folder / f"{method}-seed{seed}" / "config.yaml")
            assert config.training["learning_rate"] == 3e-2
            assert config.evaluation.part == "report"
        trial = load(folder / trials[0]["runs"][0] / "config.yaml")
        assert trial.evaluation.part == "tuning"
        assert trial.seed not in (0, 1)
    halves = [
        {item["index"] for item in (data[i] for i in range(len(data)))}
        for part in ("tuning", "report")
        for data in prepare_task(tiny(evaluation__part=part), cache).validation_data().values()
    ]
    assert halves[0].isdisjoint(halves[1])
    assert summary["seeds"] == [0, 1]


def test_a_tuned_comparison_is_not_trained_again(tuned: tuple[Path, Any], cache: Path) -> None:
    folder, summary = tuned
    before = contents(folder)
    assert run(folder, cache, grid=RATES) == summary
    assert contents(folder) == before


def test_a_sweep_can_be_shared_too(tuned: tuple[Path, Any], tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(RaptrError, match=r"sweep is not finished.*--only sweep"):
        run(folder, cache, grid=RATES, only=["full-seed0"])
    assert run(folder, cache, grid=RATES, only=["sweep/full-learning_rate-0.0001-seed1000"]) is None
    assert run(folder, cache, grid=RATES, only=["sweep"]) is None
    chosen = [json.loads((each / "sweep.json").read_text())["chosen"] for each in (folder, tuned[0])]
    assert chosen[0] == chosen[1]
    assert run(folder, cache, grid=RATES, only=["raptr-seed1"]) is None
    assert (folder / "raptr-seed1" / "result.json").exists()


def test_other_values_are_another_comparison(tuned: tuple[Path, Any], cache: Path) -> None:
    with pytest.raises(RaptrError, match="holds another comparison"):
        run(tuned[0], cache, grid={"training.learning_rate": [1e-4, 1e-3]})


def test_a_part_of_the_validation_text_is_not_given_by_hand(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RaptrError, match=r"evaluation.part is 'tuning'.*leave it out"):
        run(tmp_path / "c", cache, config=tiny(evaluation__part="tuning"))
