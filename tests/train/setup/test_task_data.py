"""What a task trains and validates on: several sources, their epochs, their curves and their parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import metrics, run, tiny
from raptr.errors import RaptrError
from raptr.train.task import prepare_task


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    for name, words in (("wiki", "many words of one kind"), ("books", "other text altogether")):
        rows = [{"text": f"{words}, number {i}: {words[: i % 20]}. " * 3} for i in range(700)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: {"path": str(tmp_path / f"{name}.jsonl")} for name in ("wiki", "books")}


def mixed(sources: dict[str, Any], **changes: Any) -> Any:
    data = {"sources": sources, "mixture": "wiki:0.75,books:0.25", "tokenizer": 300, "sequence_length": 16}
    return tiny(data=data, **changes)


@pytest.mark.slow
def test_a_run_over_a_mixture_has_a_curve_for_every_source(sources: dict[str, Any], tmp_path: Path) -> None:
    task, result = run(mixed(sources), tmp_path / "run", tmp_path / "cache")
    for line in metrics(tmp_path / "run", "eval"):
        assert list(line["eval_losses"]) == ["wiki", "books"]
        assert line["eval_loss"] == pytest.approx(sum(line["eval_losses"].values()) / 2)
        assert line["eval_losses"]["wiki"] != line["eval_losses"]["books"]
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["data"]["mixture"] == {"wiki": 0.75, "books": 0.25}
    assert told["data"] == task.store.description
    assert result["steps"] == 9


def test_epochs_are_of_the_whole_and_of_each_source(sources: dict[str, Any], tmp_path: Path) -> None:
    task = prepare_task(mixed(sources), tmp_path / "cache")
    sizes = {name: len(store.train) // 16 for name, store in task.store.stores.items()}
    assert len(task.training) == sum(sizes.values())
    assert task.epochs(1000) == pytest.approx(4000 / sum(sizes.values()))
    expected = {"wiki": 3000 / sizes["wiki"], "books": 1000 / sizes["books"]}
    assert task.epochs_by_source(1000) == pytest.approx(expected, rel=1e-4)
    data = task.training_data(1000)
    assert sum(data[i]["index"] >= 2**40 for i in range(4000)) == pytest.approx(1000, abs=1)


def test_one_source_is_validated_under_one_name(sources: dict[str, Any], cache: Path, tmp_path: Path) -> None:
    task = prepare_task(tiny(), cache)
    assert list(task.validation_data()) == ["validation"]
    assert task.epochs_by_source(9) == {"data": task.epochs(9)}
    named = {"sources": {"wiki": sources["wiki"]}, "tokenizer": 300, "sequence_length": 16}
    assert list(prepare_task(tiny(data=named), tmp_path / "cache").validation_data()) == ["wiki"]


def test_the_parts_of_every_validation_are_disjoint(sources: dict[str, Any], tmp_path: Path) -> None:
    def seen(part: str) -> dict[str, set[int]]:
        task = prepare_task(mixed(sources, evaluation__part=part, evaluation__sequences=10**6), tmp_path / "cache")
        return {name: {item["index"] for item in data} for name, data in task.validation_data().items()}

    tuning, report, everything = (seen(part) for part in ("tuning", "report", "all"))
    for name in ("wiki", "books"):
        assert not tuning[name] & report[name]
        assert tuning[name] | report[name] == everything[name]
    assert not everything["wiki"] & everything["books"]


def test_validation_text_too_short_for_a_part_is_refused_before_training(
    sources: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("only a few words")
    sources["books"]["validation"] = str(tmp_path / "short.txt")
    whole = prepare_task(mixed(sources, data__sequence_length=8), tmp_path / "cache")
    assert len(whole.validation_data()["books"]) == 1
    with pytest.raises(RaptrError, match=r"validation of books: .*in its part 'tuning'"):
        prepare_task(mixed(sources, data__sequence_length=8, evaluation__part="tuning"), tmp_path / "cache")


def test_strict_stops_at_a_bad_record(sources: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "wiki.jsonl").open("a") as file:
        file.write("[1]\n")
    assert prepare_task(mixed(sources), tmp_path / "cache").store.description["sources"]["wiki"]["skipped"] == {
        "not an object": 1
    }
    with pytest.raises(RaptrError, match="line 701: a JSON list"):
        prepare_task(mixed(sources, data__strict=True), tmp_path / "cache")
