"""The evidence: a comparison is run, kept without weights, gone on with; docs/results.md is what is kept."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import raptr
from raptr.cli.outlook import Recipe

ROOT = Path(__file__).parents[1]
EVIDENCE = ROOT / "benchmarks" / "evidence"
sys.path.insert(0, str(EVIDENCE))

import chart  # noqa: E402
import draw  # noqa: E402
import lengths  # noqa: E402
import points  # noqa: E402
import run  # noqa: E402
from questions import Comparison, comparisons  # noqa: E402
from store import LINES, thinned  # noqa: E402

sys.path.remove(str(EVIDENCE))

TINY = (*run.TINY, "training.max_steps=4")


@pytest.mark.slow
def test_the_page_is_what_is_kept() -> None:
    text = draw.PAGE.read_text(encoding="utf-8")
    assert text == draw.page(text, draw.STORED), "run python benchmarks/evidence/draw.py"
    shown = {ROOT / "docs" / name for name in re.findall(r"\]\((results/[^)]+\.png)\)", text)}
    assert shown == set(draw.FIGURES.glob("*.png"))
    assert points.FILE.read_text(encoding="utf-8") == points.points(draw.STORED)


@pytest.mark.slow
def test_the_map_shows_each_method_once_for_each_model_and_length(tmp_path: Path) -> None:
    known = json.loads(points.FILE.read_text(encoding="utf-8"))
    rows = chart.rows_of(known)
    places = [(row["panel"], row["m"], row["x"]) for row in rows]
    assert len(set(places)) == len(places) >= 2
    assert {row["m"] for row in rows} <= set(chart.NAMES.values())
    first = next(point for point in known if Recipe.of(point["method"], point["settings"]) in chart.NAMES)
    assert (rows[0]["y"], rows[0]["lo"], rows[0]["hi"]) == (first["difference"], first["low"], first["high"])
    assert chart.rows_of([first, {**first, "difference": 1.0}]) == rows[:1], "the first comparison of a kind"
    chart.draw_map(known, tmp_path / "map.png")
    chart.draw_lengths(known, tmp_path / "lengths.png")
    for name in ("map.png", "lengths.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_kept_belongs_to_a_question_and_to_no_machine() -> None:
    known = {one.name: {*one.trials(), *one.runs()} for one in comparisons([])}
    for folder in (path for path in draw.STORED.glob("*") if path.is_dir()):
        kept = {str(path.parent.relative_to(folder)) for path in folder.rglob("result.json")}
        assert kept <= known[folder.name]
        for path in folder.rglob("*.json"):
            said = json.loads(path.read_text(encoding="utf-8")).get("command", "")
            assert not re.search(r"(?:^|[ =])/", said), path


def test_names_of_runs_are_those_of_the_comparison() -> None:
    tuned = Comparison(name="x", methods=("full", "raptr"), sweep=("training.learning_rate=1e-3,2e-3",), seeds=2)
    assert tuned.trials() == [
        f"sweep/{method}-learning_rate-{rate}-seed1000" for rate in (0.001, 0.002) for method in ("full", "raptr")
    ]
    assert tuned.runs() == ["full-seed0", "raptr-seed0", "full-seed1", "raptr-seed1"]
    assert not Comparison(name="x", methods=("full",)).trials()


@pytest.mark.parametrize("count", [0, 1, LINES, LINES + 1, 10 * LINES])
def test_all_evaluations_and_some_steps_are_kept(count: int) -> None:
    lines = []
    for step in range(1, count + 1):
        lines.append(json.dumps({"kind": "train", "step": step}))
        if step % 10 == 0:
            lines.append(json.dumps({"kind": "eval", "step": step}))
    kept = [json.loads(line) for line in thinned(lines)]
    steps = [record["step"] for record in kept if record["kind"] == "train"]
    assert sum(record["kind"] == "eval" for record in kept) == count // 10
    assert min(count, LINES) <= len(steps) <= 2 * LINES
    assert not count or (steps[0], steps[-1]) == (1, count)


@pytest.mark.slow
def test_a_comparison_is_run_kept_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RAPTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(raptr.__file__).parents[1])]))
    comparison = Comparison(name="tiny", methods=("full", "raptr"), seeds=1)
    stored, work = tmp_path / "stored", tmp_path / "work"
    runner = run.Runner(stored, work, 1, None, TINY)
    assert runner.run(comparison), (work / "log.txt").read_text(encoding="utf-8")
    kept = sorted(path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file())
    files = ("config.yaml", "metrics.jsonl", "result.json", "run.json")
    of_runs = [f"tiny/{method}-seed0/{file}" for method in ("full", "raptr") for file in files]
    assert kept == sorted(["tiny/comparison.json", "tiny/comparison.yaml", *of_runs])

    more = Comparison(name="tiny", methods=("full", "raptr", "zero"), seeds=1)
    assert draw.part_of(more, stored / "tiny").startswith("Not finished: 2 of 3 runs.")
    before = (stored / "tiny" / "full-seed0" / "result.json").read_bytes()
    assert not run.Runner(stored, tmp_path / "elsewhere", 2, 0.0, TINY).run(more), "there was no time"
    assert run.Runner(stored, tmp_path / "elsewhere", 1, None, TINY).run(more), "it goes on from what is kept alone"
    assert (stored / "tiny" / "full-seed0" / "result.json").read_bytes() == before
    said = draw.part_of(more, stored / "tiny")
    assert "one seed: no interval" in said
    assert "| zero | 5 |" in said
    against = draw.part_of(dataclasses.replace(more, against="tiny"), stored / "tiny").splitlines()
    assert any(line.endswith("| difference from full training of tiny (95 %) |") for line in against)
    assert any(line.startswith("| full |") and line.endswith(" +0.000 |") for line in against)


def test_a_recipe_is_compared_with_another_one_by_seed() -> None:
    """By hand: differences of 0.1 and 0.3, mean 0.2, and t(0.975, 1) = 12.706 times 0.1 around it."""

    def of(seeds: tuple[int, ...], values: tuple[float | None, ...]) -> Any:
        return SimpleNamespace(outcome=SimpleNamespace(seeds=seeds, loss=SimpleNamespace(values=values)))

    one, other = of((0, 1, 2), (3.1, 3.4, 9.9)), of((1, 0), (3.1, 3.0))
    assert draw.from_other(one, other) == "+0.200 (−1.071 to +1.471)"
    assert draw.from_other(other, other) == ""
    assert draw.from_other(of((5,), (3.0,)), other) == ""
    assert draw.from_other(of((0,), (None,)), other) == ""


def test_what_length_does_to_a_lead_is_paired_by_seed() -> None:
    """By hand: seeds 0 and 1 lose 0.1 and 0.3, mean 0.2, and t(0.975, 1) = 12.706 times 0.1 around it."""
    change = lengths.Change(
        model="Llama", method="raptr", tokens=(2.0, 8.0), short={0: -0.2, 1: -0.3, 7: 9}, long={1: 0.0, 0: -0.1, 8: 9}
    )
    assert change.values == pytest.approx([0.1, 0.3])
    assert (change.mean, *(change.interval or ())) == pytest.approx((0.2, -1.0706, 1.4706), abs=1e-4)


@pytest.mark.slow
def test_changes_are_those_of_the_stored_losses() -> None:
    """Each difference is the one that the comparison's own table has, and full training is in none."""
    known = {(point["comparison"], round(point["difference"], 5)) for point in json.loads(points.FILE.read_text())}
    found = list(lengths.changes(draw.STORED))
    assert {change.method for change in found} >= {"raptr", "gradual_stacking", "smaller"}
    assert all(change.method != "full" and change.tokens[0] < change.tokens[1] for change in found)
    for change in found:
        for values in change.differences:
            assert any(value == round(sum(values) / len(values), 5) for _, value in known)
    assert not list(lengths.changes(draw.STORED / "none"))


@pytest.mark.slow
def test_a_run_that_fails_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPTR_CACHE", str(tmp_path / "cache"))
    wrong = Comparison(name="tiny", methods=("full", "raptr"), values=("training.learning_rat=1",), seeds=1)
    with pytest.raises(SystemExit, match=r"log\.txt says why"):
        run.Runner(tmp_path / "stored", tmp_path / "work", 1, None, TINY).run(wrong)
    assert "learning_rat" in (tmp_path / "work" / "log.txt").read_text(encoding="utf-8")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(SystemExit, match="no question or comparison x; there are: "):
        list(comparisons(["x"]))
