"""All methods in one comparison, and the control that is a smaller model."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.runs import metrics, tiny
from raptr.compare import compare
from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.plan import METHODS, plan_cost
from raptr.results import summarise
from raptr.train.task import prepare_task, task_of
from train.test_methods import DROPPING, GROWING, MODEL

BERT = {
    "architecture": "bert",
    "config": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2},
}


class Heard(Console):
    """Keeps what is printed."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def print(self, *args: Any, **kwargs: Any) -> None:
        self.lines.append(str(args[0]))


def every(config: RunConfig, folder: Path, cache: Path, **changes: Any) -> tuple[Any, Heard]:
    console = Heard()
    values: dict[str, Any] = {"methods": ["all"], "seeds": 1, "budget": "flops"}
    found = compare(config, folder=folder, cache=cache, console=console, **{**values, **changes})
    return found, console


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Any, Heard]:
    """All methods for one seed."""
    folder = tmp_path_factory.mktemp("comparisons") / "all"
    methods = {"raptr": {"schedule": "2-3-4", "fixed": [0]}, "depth_width_raptr": {"fixed": [0]}}
    config = tiny(model=MODEL, methods=methods, training__max_steps=20, evaluation__every=10)
    return (folder, *every(config, folder, cache))


@pytest.mark.slow
def test_every_method_is_trained_and_summarised(finished: Any) -> None:
    folder, summary, console = finished
    assert set(summary["methods"]) == {*METHODS, "smaller"}
    assert not [line for line in console.lines if line.startswith("left out")]
    assert summary["baseline"] == "full"
    for label, entry in summary["methods"].items():
        assert entry["mean"] is not None, label
        assert metrics(folder / f"{label}-seed0", "eval")[-1]["step"] == entry["steps"]
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summarise(folder)))


@pytest.mark.slow
def test_every_method_spends_the_flops_of_full_training(finished: Any, cache: Path) -> None:
    _, summary, _ = finished
    full = summary["methods"]["full"]["total_flops"]
    for label, entry in summary["methods"].items():
        assert entry["total_flops"] == pytest.approx(full, rel=0.15 if label in DROPPING else 0.05), label


@pytest.mark.slow
def test_growing_methods_tell_the_loss_of_what_they_have_trained(finished: Any) -> None:
    folder, _, _ = finished
    for label in METHODS:
        told = any("eval_loss_active" in line for line in metrics(folder / f"{label}-seed0", "eval"))
        assert told == (label in GROWING), label


@pytest.mark.slow
def test_the_smaller_model_costs_a_step_of_raptr_and_is_a_model_of_its_own(finished: Any, cache: Path) -> None:
    folder, summary, _ = finished
    run = json.loads((folder / "smaller-seed0" / "run.json").read_text())
    full = json.loads((folder / "full-seed0" / "run.json").read_text())
    assert run["control"] == "smaller"
    assert run["label"] == "Smaller, 3 layers"  # 2-3-4 in equal stages: 3 layers on average
    assert "control" not in full
    assert json.loads((folder / "smaller-seed0" / "model" / "config.json").read_text())["num_hidden_layers"] == 3
    assert run["model"]["parameters"] < full["model"]["parameters"]
    assert abs(run["steps"] - summary["methods"]["raptr"]["steps"]) <= 1
    assert not [warning for warning in summary["warnings"] if "Not comparable" in warning]
    assert sum("initial weights of its own" in note for note in summary["notes"]) == 1


@pytest.mark.parametrize(("layers", "expected"), [("2", (2,)), ("25%", (1,)), (None, (3,))])
def test_the_smaller_models_depth_can_be_given(layers: str | None, expected: tuple[int, ...], cache: Path) -> None:
    methods = {"raptr": {"schedule": "2-3-4"}, "smaller": {"layers": layers}}
    task = prepare_task(tiny(model=MODEL, methods=methods), cache)
    small = task_of(task, "smaller")
    assert small.shape.layers == expected
    assert small.steps == task.steps
    assert small.costs.other == task.costs.other
    assert small.costs.layers == tuple(stack[: expected[0]] for stack in task.costs.layers)


def test_the_depth_of_equal_cost_is_the_nearest(cache: Path) -> None:
    for schedule in ("1-4", "2-3-4", "1-2-3-4"):
        task = prepare_task(tiny(model=MODEL, methods={"raptr": {"schedule": schedule, "fixed": []}}), cache)
        plan = task.config.build_method("raptr").plan(task.shape, task.steps)
        mean = sum(stage.total for stage in plan_cost(plan, task.costs)) / task.steps
        (chosen,) = task_of(task, "smaller").shape.layers
        by_hand = [abs(sum(task.costs.layers[0][:n]) + task.costs.other - mean) for n in range(1, 4)]
        assert by_hand[chosen - 1] == min(by_hand)


@pytest.mark.parametrize(
    ("layers", "message"),
    [("4", "smaller than the model's"), ("5", "4"), ("2-3", "one depth"), ("x", "does not parse")],
)
def test_a_depth_that_is_not_smaller_is_refused(layers: str, message: str, cache: Path) -> None:
    task = prepare_task(tiny(model=MODEL, methods={"smaller": {"layers": layers}}), cache)
    with pytest.raises(RaptrError, match=message):
        task_of(task, "smaller")


@pytest.mark.slow
def test_what_does_not_fit_a_post_norm_model_is_named_and_left_out(tmp_path: Path, cache: Path) -> None:
    config = tiny(model=BERT, objective={"name": "masked"}, methods={"raptr": {"schedule": "2-3-4"}})
    summary, console = every(config, tmp_path / "c", cache, budget="steps", only=["full-seed0"])
    assert summary is None
    left_out = {line.split(": ")[1]: line for line in console.lines if line.startswith("left out")}
    scaled = {key for key, spec in METHODS.items() if getattr(spec(), "scaling", "none") != "none"}
    assert set(left_out) == scaled >= {"stochastic_depth", "pld", "sequence_layer_dropout"}
    assert all("pre-norm" in line for line in left_out.values())
    told = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert not set(told["methods"]) & set(left_out)


@pytest.mark.slow
def test_a_method_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, cache: Path) -> None:
    config = tiny(model=BERT, objective={"name": "masked"})
    with pytest.raises(RaptrError, match="pre-norm"):
        every(config, tmp_path / "c", cache, methods=["full", "pld"])
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_a_smaller_model_has_no_weights_to_begin_from(tmp_path: Path, finished: Any, cache: Path) -> None:
    folder, _, _ = finished
    weights = str(folder / "full-seed0" / "model")
    config = tiny(model={"from_pretrained": weights}, data__tokenizer=weights)
    with pytest.raises(RaptrError, match="no weights"):
        every(config, tmp_path / "c", cache, methods=["full", "smaller"])
