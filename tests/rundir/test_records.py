"""The exact text of each kind of record, and what of it is read back."""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raptr.errors import RaptrError
from raptr.plan import Stage
from raptr.rundir import paths
from raptr.rundir.json_record import as_record, number, numbers, to_json
from raptr.rundir.metrics_lines import COUNTERS, BoundaryLine, EvalLine, Totals, TrainLine
from raptr.rundir.run_record import (
    ChangeInfo,
    ComparisonInfo,
    Environment,
    FlopsInfo,
    ModelInfo,
    PlanInfo,
    Result,
    RunInfo,
    StackInfo,
    read_result,
)

TOTALS = Totals(tokens=64, layer_flops=100.0, total_flops=150.5, seconds=0.25)
TRAIN: dict[str, Any] = {
    "step": 2,
    "stage": 1,
    "layers": ((0, 2), (1,)),
    "loss": 2.5,
    "grad_norm": None,
    "learning_rate": 0.001,
    "totals": TOTALS,
    "tokens_per_second": 256.1,
}
INFO = RunInfo(
    name="tiny",
    method="wide",
    label="Width RaPTr 50%-100%",
    seed=3,
    steps=4,
    plan=PlanInfo(
        stacks=(StackInfo(name="model.layers", layers=2),),
        stages=(Stage(start=0, stop=1, sizes=(2,), warmup=True), Stage(start=1, stop=4, sizes=(1.5,), width=0.5)),
        fingerprint="abc",
    ),
    model=ModelInfo(architecture="llama", from_pretrained=None, parameters=7, layer_parameters=5),
    flops=FlopsInfo(convention="2 per multiply-add", layers=((1.0, 1.0),), other=2.0),
    data={"key": "k"},
    validation=["validation"],
    environment=Environment(torch="2.13.0", threads=2),
    command="raptr train",
)
INFO_TEXT = (
    '{"format": 1, "name": "tiny", "method": "wide", "label": "Width RaPTr 50%-100%", "seed": 3, "steps": 4, '
    '"plan": {"stacks": [{"name": "model.layers", "layers": 2}], "stages": ['
    '{"start": 0, "stop": 1, "sizes": [2], "warmup": true, "width": 1.0}, '
    '{"start": 1, "stop": 4, "sizes": [1.5], "warmup": false, "width": 0.5}], "fingerprint": "abc"}, '
    '"model": {"architecture": "llama", "from_pretrained": null, "parameters": 7, "layer_parameters": 5}, '
    '"flops": {"convention": "2 per multiply-add", "layers": [[1.0, 1.0]], "other": 2.0}, '
    '"data": {"key": "k"}, "validation": ["validation"], "environment": {"torch": "2.13.0", "threads": 2}, '
    '"command": "raptr train"}'
)
RESULT = Result(
    steps=4, epochs=0.5, skipped_updates=0, totals=TOTALS, eval_loss=3.25, eval_losses={"wiki": 3.0, "code": 3.5}
)


def test_the_text_of_a_training_line() -> None:
    assert to_json(TrainLine(**TRAIN)) == (
        '{"kind": "train", "step": 2, "stage": 1, "layers": [[0, 2], [1]], "loss": 2.5, "grad_norm": null, '
        '"learning_rate": 0.001, "tokens": 64, "layer_flops": 100.0, "total_flops": 150.5, "seconds": 0.25, '
        '"tokens_per_second": 256.1}'
    )
    full = TrainLine(**{**TRAIN, "loss": math.nan, "grad_norm": 0.5}, skipped_updates=2, mfu=0.4)
    assert to_json(full) == (
        '{"kind": "train", "step": 2, "stage": 1, "layers": [[0, 2], [1]], "loss": null, "grad_norm": 0.5, '
        '"learning_rate": 0.001, "skipped_updates": 2, "tokens": 64, "layer_flops": 100.0, "total_flops": 150.5, '
        '"seconds": 0.25, "tokens_per_second": 256.1, "mfu": 0.4}'
    )


def test_the_text_of_a_boundary_line() -> None:
    line = BoundaryLine(step=3, stage=1, window=2, jump=0.5, peak=0.75)
    text = '{"kind": "boundary", "step": 3, "stage": 1, "window": 2, "jump": 0.5, "peak": 0.75}'
    assert to_json(line) == text
    assert BoundaryLine.of(json.loads(text)) == line
    assert math.isnan(BoundaryLine.of({**json.loads(text), "jump": None}).jump)
    with pytest.raises(KeyError):
        BoundaryLine.of({"step": 3, "stage": 1, "window": 2, "jump": 0.5})


def test_the_text_of_an_evaluation() -> None:
    assert to_json(EvalLine(step=0, stage=0, totals=Totals(), eval_loss=7.5)) == (
        '{"kind": "eval", "step": 0, "stage": 0, "tokens": 0, "layer_flops": 0.0, "total_flops": 0.0, "seconds": 0.0, '
        '"eval_loss": 7.5}'
    )
    several = EvalLine(
        step=3,
        stage=1,
        totals=TOTALS,
        eval_loss=8.0,
        eval_losses={"wiki": 7.0, "code": 9.0},
        eval_loss_active=math.nan,
        eval_losses_active={"wiki": 5.0, "code": math.inf},
    )
    assert to_json(several) == (
        '{"kind": "eval", "step": 3, "stage": 1, "tokens": 64, "layer_flops": 100.0, "total_flops": 150.5, '
        '"seconds": 0.25, "eval_loss": 8.0, "eval_losses": {"wiki": 7.0, "code": 9.0}, "eval_loss_active": null, '
        '"eval_losses_active": {"wiki": 5.0, "code": null}}'
    )


def test_the_text_of_run_json() -> None:
    assert to_json(INFO) == INFO_TEXT
    assert RunInfo.of(json.loads(INFO_TEXT)) == RunInfo.of(json.loads(to_json(RunInfo.of(json.loads(INFO_TEXT)))))
    assert [(stage.sizes, stage.warmup, stage.width) for stage in RunInfo.of(json.loads(INFO_TEXT)).plan.stages] == [
        ((2,), True, 1.0),
        ((1.5,), False, 0.5),
    ]


def test_what_run_json_holds_only_sometimes() -> None:
    change = ChangeInfo(after_step=4, key="training.weight_decay", old=None, new=0.5)
    content = as_record(INFO) | {"control": "smaller", "changes": [as_record(change)]}
    info = RunInfo.of(content)
    assert (info.control, info.changes) == ("smaller", (change,))
    text = to_json(info)
    assert '"label": "Width RaPTr 50%-100%", "control": "smaller", "seed": 3' in text
    assert text.endswith(
        '"command": "raptr train", "changes": [{"after_step": 4, "key": "training.weight_decay", "old": null, '
        '"new": 0.5}]}'
    )
    assert to_json(RunInfo.of({**content, "changes": []})).endswith('"changes": []}')


def test_an_old_run_json_is_read_without_what_was_added_later() -> None:
    stage = {"start": 0, "stop": 4, "sizes": [2]}
    plan = {"stacks": [{"name": "model.layers", "layers": 2}], "stages": [stage]}
    info = RunInfo.of({"method": "full", "seed": 0, "steps": 4, "plan": plan})
    assert info.plan.stages == (Stage(start=0, stop=4, sizes=(2,), warmup=False, width=1.0),)
    assert (info.label, info.control, info.model, info.data, info.plan.fingerprint) == ("full", "", {}, {}, None)


@pytest.mark.parametrize("width", ["half", None, math.nan, math.inf])
def test_a_stage_with_a_width_that_is_no_number_is_broken(width: Any) -> None:
    content = json.loads(INFO_TEXT)
    content["plan"]["stages"][0]["width"] = width
    with pytest.raises((TypeError, ValueError)):
        RunInfo.of(content)


def test_the_text_of_result_json(tmp_path: Path) -> None:
    paths.write_json(tmp_path / paths.RESULT, RESULT)
    assert (tmp_path / "result.json").read_text() == (
        '{\n  "steps": 4,\n  "epochs": 0.5,\n  "skipped_updates": 0,\n  "tokens": 64,\n  "layer_flops": 100.0,\n'
        '  "total_flops": 150.5,\n  "seconds": 0.25,\n  "eval_loss": 3.25,\n  "eval_losses": {\n    "wiki": 3.0,\n'
        '    "code": 3.5\n  }\n}\n'
    )
    assert read_result(tmp_path) == RESULT
    assert [RESULT.cost(name) for name in ("steps", "epochs", *COUNTERS)] == [4, 0.5, 64, 100.0, 150.5, 0.25]


def test_the_text_of_a_diverged_result(tmp_path: Path) -> None:
    diverged = Result(
        steps=3, epochs=0.5, totals=TOTALS, eval_loss=math.nan, eval_losses={"a": math.nan}, diverged=True
    )
    text = to_json(diverged)
    assert text.endswith('"seconds": 0.25, "eval_loss": null, "eval_losses": {"a": null}, "diverged": true}')
    found = Result.of(json.loads(text))
    assert found.diverged
    assert math.isnan(found.eval_loss)
    assert math.isnan(found.eval_losses["a"])


@pytest.mark.parametrize("damage", [{"steps": "many"}, {"eval_loss": True}, {"tokens": [1]}, {"eval_losses": [1]}])
def test_a_damaged_result_is_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    (tmp_path / "result.json").write_text(json.dumps(as_record(RESULT) | damage))
    with pytest.raises(RaptrError, match=r"result\.json is damaged"):
        read_result(tmp_path)


def test_a_missing_result_is_an_unfinished_run(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None


def test_the_text_of_comparison_json() -> None:
    info = ComparisonInfo(
        name="c", budget="flops", baseline="full", methods=("full", "raptr"), seeds=(0, 1), tuned=(), notes=("A note.",)
    )
    assert to_json(info) == (
        '{"format": 1, "name": "c", "budget": "flops", "baseline": "full", "methods": ["full", "raptr"], '
        '"seeds": [0, 1], "tuned": [], "notes": ["A note."]}'
    )
    assert ComparisonInfo.of(json.loads(to_json(info)), Path("folder")) == info
    least = ComparisonInfo.of({"methods": ["raptr", "full"], "seeds": [0]}, Path("folder"))
    assert (least.name, least.baseline, least.budget) == ("folder", "full", "")
    with pytest.raises(ValueError, match="not among the methods"):
        ComparisonInfo.of({"methods": ["raptr"], "seeds": [0], "baseline": "full"}, Path("folder"))


def test_the_columns_of_a_line_are_its_fields() -> None:
    assert list(numbers(TrainLine)) == [
        *("step", "stage", "loss", "auxiliary_loss", "grad_norm", "learning_rate", "skipped_updates"),
        *("tokens", "layer_flops", "total_flops", "seconds", "tokens_per_second", "mfu"),
    ]
    assert numbers(TrainLine)["skipped_updates"] == 0
    assert math.isnan(numbers(TrainLine)["tokens"])
    assert math.isnan(numbers(TrainLine)["auxiliary_loss"])
    assert {each.name for each in fields(EvalLine)} - set(numbers(EvalLine)) == {
        "totals",
        "eval_losses",
        "eval_losses_active",
    }


@pytest.mark.parametrize("value", ["1", True, [1], {}])
def test_what_is_no_number_in_a_file(value: Any) -> None:
    with pytest.raises(TypeError, match="is not a number"):
        number(value)
    with pytest.raises(OverflowError):
        number(10**400)


@pytest.mark.parametrize("text", ["{", "[1]", '{"format": 2}', '"\\ud800"', "[" * 100_000])
def test_a_json_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(RaptrError, match=r"run\.json"):
        paths.read_json(path)
    with pytest.raises(RaptrError, match="is damaged"), paths.recorded(path) as content:
        content["name"]


def test_a_file_is_replaced_whole_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    paths.write_bytes(path, b"old")
    with pytest.raises(TypeError):
        paths.write_bytes(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    paths.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
