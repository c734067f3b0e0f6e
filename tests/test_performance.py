"""The benchmarks of speed run, in a tiny form, and docs/performance.md is what they left behind."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import raptr
from helpers.started import Started

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import performance  # noqa: E402
import steps  # noqa: E402
from speed import targets  # noqa: E402
from speed.clock import Clock, in_turn, ratios  # noqa: E402
from speed.memory import saved_bytes  # noqa: E402
from speed.record import record  # noqa: E402

sys.path.remove(str(ROOT / "benchmarks"))  # a script there has the name of a room of the tests

QUICK = ("skipping", "overhead", "choosing", "peers", "peak")
"""Questions that a tiny form answers in seconds; the others compile, or train whole runs."""

ASKED = {"cpu": QUICK, "gpu": ("skipping", "peers")}
"""What each script is asked: the questions of both are the same code, so that of the other one two are enough."""


def ask(script: str, output: Path, *only: str) -> Any:
    """What a benchmark says in its tiny form."""
    env = {
        "PYTHONPATH": str(Path(raptr.__file__).parents[1]),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than all the rest
    }
    threads = ["--threads", "1"] if script == "cpu" else []
    given = ["--tiny", *threads, "--output", str(output), "--only", *only]
    process = Started(ROOT / "benchmarks" / f"{script}.py", given, env, ROOT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return json.loads(output.read_text(encoding="utf-8"))


def numbers(answer: Any) -> Iterator[float]:
    """All of them, however deep."""
    if isinstance(answer, dict):
        for value in answer.values():
            yield from numbers(value)
    elif isinstance(answer, int | float):
        yield answer


def test_the_page_is_what_the_results_say() -> None:
    text = performance.PAGE.read_text(encoding="utf-8")
    assert performance.page(text, performance.RESULTS) == text


def test_questions_asked_alone_keep_the_other_answers(tmp_path: Path) -> None:
    file = tmp_path / "cpu.json"
    record({"one": 1, "other": 2}, file, None, tiny=True)
    first = json.loads(file.read_text(encoding="utf-8"))
    record({"other": 3}, file, ["other"], tiny=True, rounds=7)
    both = json.loads(file.read_text(encoding="utf-8"))
    assert both["results"] == {"one": 1, "other": 3}
    assert both["machine"] == first["machine"]
    assert both["again"]["other"]["machine"]["rounds"] == 7
    record({"other": 4}, file, ["other"], tiny=False)
    assert json.loads(file.read_text(encoding="utf-8"))["results"] == {"other": 4}, (
        "a tiny model says nothing of others"
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", ["cpu", "gpu"])
def test_a_benchmark_answers_and_the_page_shows_it(script: str, tmp_path: Path) -> None:
    result = ask(script, tmp_path / f"{script}.json", *ASKED[script])
    assert list(result["results"]) == list(ASKED[script])
    for question, answer in result["results"].items():
        assert all(math.isfinite(value) and value >= 0 for value in numbers(answer)), question
    for answer in result["results"]["skipping"].values():
        stages = list(answer["stages"].values())
        assert [stage["flops_ratio"] for stage in stages] == sorted((s["flops_ratio"] for s in stages), reverse=True)
        assert stages[-1]["eta"]["median"] == pytest.approx(1.0)
    (ways,) = (answer["ways"] for answer in result["results"]["peers"].values())
    assert ways["raptr, half of the layers"]["share_that_ran"] == pytest.approx(0.5)
    assert ways["sub-batches (DINOv2)"]["share_that_ran"] == pytest.approx(0.5)
    assert ways["masking (DropPath)"]["share_that_ran"] == pytest.approx(1.0)

    page = performance.page(performance.PAGE.read_text(encoding="utf-8"), tmp_path)
    assert "Tiny models: these numbers say nothing about speed." in page
    for found in targets.found(result["results"], script):
        assert found.what in page
    other = "Not measured yet." if script == "gpu" else "Nothing was measured on a GPU yet"
    assert other in page


@pytest.mark.slow
def test_whole_runs_and_memory(tmp_path: Path) -> None:
    result = ask("cpu", tmp_path / "cpu.json", "runs", "memory")["results"]
    (runs,) = result["runs"].values()
    assert runs["saving_in_flops"] == pytest.approx(1.33, abs=0.05)  # of 6-8-10-12, with head and embeddings
    for stages in result["memory"].values():
        assert stages["6"]["saved_mb"] / stages["12"]["saved_mb"] == pytest.approx(0.5, rel=0.05)
        assert stages["6"]["peak_mb"] < stages["12"]["peak_mb"]


@pytest.mark.slow
def test_the_steps_of_the_evidences_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["steps.py", "--tiny", "--output", str(tmp_path / "steps.json")])
    steps.main()
    kept = json.loads((tmp_path / "steps.json").read_text(encoding="utf-8"))
    assert list(kept["results"]) == [case.name for case in steps.CASES]
    assert all(list(found["stages"]) == ["3", "6", "9", "12"] for found in kept["results"].values())
    evidence = ROOT / "benchmarks" / "evidence"
    for case, file in ((steps.llama_of(32), "base.yaml"), (steps.BERT, "bert.yaml")):
        config = yaml.safe_load((evidence / file).read_text(encoding="utf-8"))
        settings = config["model"]["config"]
        shared = settings.keys() & case.settings.keys() - {"max_position_embeddings"}  # no part of a step's cost
        assert {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"} <= shared
        assert {key: case.settings[key] for key in shared} == {key: settings[key] for key in shared}
        assert case.settings["vocab_size"] == config["data"]["tokenizer"]
        assert case.length == config["data"]["sequence_length"]
        assert case.batch == config["training"]["per_device_train_batch_size"]


@pytest.mark.slow
def test_a_question_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no question speed; there are: .*skipping"):
        ask("cpu", tmp_path / "cpu.json", "speed")


def test_targets_can_be_missed() -> None:
    """Negative control: numbers just beyond each aim are said not to meet it."""

    def answers(wrong: float) -> Any:
        eta, slower = {"median": 0.97 - wrong}, {"median": 1.01 + wrong}
        stages = {
            "6": {"eta": eta, "flops_ratio": 1.9},
            "12": {"eta": {"median": 1.0}, "flops_ratio": 1.0, "milliseconds": {"median": 100.0 * (1 + wrong)}},
        }
        case = {"schedule": "6-12", "teraflops_per_step": 50.0, "stages": stages}
        run = {"saving_on_the_clock": {"median": 1.3 - wrong}, "engine_over_plain": {"median": 1.02 + wrong}}
        return {
            "skipping": {"Llama-1B": case, "BERT-base": {**case, "teraflops_per_step": 45.0}},
            "overhead": {"a": {"attached": {"ratio": slower}}},
            "memory": {"a": {"6": {"saved_over_proportional": 1.049 + 2 * wrong}}},
            "graphs": {"a": {"graphs": 2, "expected": 2, "by_stage": {"6": 2 - (wrong > 0), "8": int(wrong > 0)}}},
            "choosing": {"raptr": {"choose and set": {"median": 49.9 + 100 * wrong}}},
            "runs": {"a": {"schedule": "6-12", **run}},
            "peak": {"teraflops": 1000.0},
        }

    right, wrong = (list(targets.found(answers(error), "gpu")) for error in (0.0, 0.001))
    assert len(right) == len(wrong) == 10
    assert [found.what for found in right if not found.met] == []
    assert [found.what for found in wrong if found.met] == []


def test_the_whole_model_is_no_stage_that_skips() -> None:
    """Its efficiency is 1 by definition."""
    stages = {"6": {"eta": {"median": 1.04}, "flops_ratio": 1.9}, "12": {"eta": {"median": 1.0}, "flops_ratio": 1.0}}
    (found,) = targets.skipping({"skipping": {"a": {"schedule": "6-12", "stages": stages}}}, least=0.93)
    assert found.value == 1.04


def test_variants_take_turns_and_the_first_rounds_are_left_out() -> None:
    seen: list[tuple[str, int]] = []

    def variant(name: str) -> Any:
        return lambda turn: lambda: seen.append((name, turn))

    seconds = in_turn({"a": variant("a"), "b": variant("b")}, 2, Clock("cpu"), warmup=1)
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that slows down between rounds changes no ratio."""
    assert ratios([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_saved_memory_is_counted_once_inside_blocks_and_without_weights() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    outside = nn.Linear(4, 400, bias=False)
    model = nn.Sequential(first, second, outside)
    with saved_bytes(model, [first, second]) as saved:
        model(torch.ones(2, 4, requires_grad=True))
    assert saved.bytes == 2 * (2 * 4 * 4)  # the input of each block: 2 x 4 numbers of 4 bytes
