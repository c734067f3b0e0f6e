"""A run goes on as the same run, or is refused with all that is another; unless that is harmless, or allowed."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.runs import contents, metrics, run, tiny
from helpers.stopping import interrupted, same_end
from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.rundir.json_record import as_record
from raptr.train.engine import train
from raptr.train.task import prepare_task

pytestmark = pytest.mark.slow

CONFIG = {"checkpoints__every": 2}
LENGTHS = "methods__raptr__lengths"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run that was stopped after its checkpoint of step 4."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(tiny(**CONFIG), folder, cache, 7)
    return folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def go_on(config: RunConfig, folder: Path, cache: Path, *allowed: str) -> Any:
    return as_record(train(prepare_task(config, cache), folder, console=Console(quiet=True), allowed=allowed))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 3}, ["seed: 0 -> 3"]),
        ({"methods__raptr__schedule": "2-2-4"}, ["methods.raptr.schedule: 2-3-4 -> 2-2-4"]),
        ({"method": "full"}, ["method: raptr -> full"]),
        ({"data__tokenizer": 300}, ["data.tokenizer: 320 -> 300"]),
        ({"data__max_bytes": 150_000}, ["data.max_bytes: 200000 -> 150000"]),
        ({"model__config__intermediate_size": 48}, ["model.config.intermediate_size: 32 -> 48"]),
        (
            {"training__per_device_train_batch_size": 2, "training__gradient_accumulation_steps": 2},
            ["training.gradient_accumulation_steps: not given -> 2", "training.per_device_train_batch_size: 4 -> 2"],
        ),
        ({"training__max_steps": 12}, ["training.max_steps: 9 -> 12"]),
        ({"training__learning_rate": 0.02, "evaluation__every": 2}, ["evaluation.every: 3 -> 2", "learning_rate"]),
    ],
)
def test_another_run_is_refused_with_all_that_is_another(
    changes: dict[str, Any], said: list[str], folder: Path, cache: Path
) -> None:
    before = contents(folder)
    with pytest.raises(RaptrError, match="holds another run") as refused:
        go_on(tiny(**CONFIG, **changes), folder, cache)
    for text in said:
        assert text in str(refused.value)
    for option in re.findall(r"--allow-changes (\S+)", str(refused.value).replace(".\n", "")):
        assert any(option.rstrip(".") in text for text in said) or "learning_rate" in option
    assert contents(folder) == before


@pytest.mark.parametrize(
    "changes",
    [{"training__dataloader_num_workers": 2}, {"checkpoints__every": 3}, {"stability__max_skipped_updates": 4}],
)
def test_what_changes_nothing_may_change(changes: dict[str, Any], folder: Path, tmp_path: Path, cache: Path) -> None:
    run(tiny(**CONFIG), tmp_path / "reference", cache)
    go_on(tiny(**{**CONFIG, **changes}), folder, cache)
    same_end(folder, tmp_path / "reference")
    [change] = json.loads((folder / "run.json").read_text())["changes"]
    assert change["key"] == next(iter(changes)).replace("__", ".")
    assert change["after_step"] == 4


def test_what_is_allowed_takes_effect(folder: Path, cache: Path) -> None:
    changed = tiny(**CONFIG, training__learning_rate=0.002, training__weight_decay=0.5)
    with pytest.raises(RaptrError, match=r"\(training.weight_decay: not given -> 0.5\)"):
        go_on(changed, folder, cache, "training.learning_rate")
    go_on(changed, folder, cache, "training")
    lines = metrics(folder, "train")
    assert [line["step"] for line in lines] == list(range(1, 10))
    # Linear warm-up over 2 steps, then linear decay to 0 after 9.
    assert lines[3]["learning_rate"] == pytest.approx(0.01 * (9 - 3) / 7)
    for line in lines[4:]:
        assert line["learning_rate"] == pytest.approx(0.002 * (9 - (line["step"] - 1)) / 7)
    changes = json.loads((folder / "run.json").read_text())["changes"]
    assert [(each["key"], each["old"], each["new"]) for each in changes] == [
        ("training.learning_rate", 0.01, 0.002),
        ("training.weight_decay", None, 0.5),
    ]


def test_more_steps_of_the_last_stage_are_the_same_run(tmp_path: Path, cache: Path) -> None:
    short = {**CONFIG, "checkpoints__keep_last": True, LENGTHS: [3, 3, 3], "training__lr_scheduler_type": "constant"}
    more = {"training__max_steps": 14, LENGTHS: [3, 3, 8]}
    run(tiny(**short), tmp_path / "run", cache)
    result = go_on(tiny(**{**short, **more}), tmp_path / "run", cache)
    assert result["steps"] == 14
    assert [line["step"] for line in metrics(tmp_path / "run", "train")] == list(range(1, 15))
    run(tiny(**{**short, **more}), tmp_path / "reference", cache)
    weights = [
        (each / "model" / "model.safetensors").read_bytes() for each in (tmp_path / "run", tmp_path / "reference")
    ]
    assert weights[0] == weights[1]

    with pytest.raises(RaptrError, match="holds another run"):  # control: an earlier stage is another one
        go_on(tiny(**{**short, "training__max_steps": 15, LENGTHS: [4, 3, 8]}), tmp_path / "run", cache)


def test_more_steps_of_a_rate_that_falls_until_the_end_are_another_run(tmp_path: Path, cache: Path) -> None:
    """Its stage is the same, but every step of before would have drawn other sequences."""
    config = {**CONFIG, "method": "sequence_layer_dropout"}
    interrupted(tiny(**config), tmp_path / "run", cache, 7)
    with pytest.raises(RaptrError, match="holds another run"):
        go_on(tiny(**{**config, "training__max_steps": 18}), tmp_path / "run", cache)


def test_a_finished_run_without_a_checkpoint_cannot_go_on(tmp_path: Path, cache: Path) -> None:
    short = {LENGTHS: [3, 3, 3]}
    run(tiny(**short), tmp_path / "run", cache)
    with pytest.raises(RaptrError, match=r"finished, after 9 steps, and kept no checkpoint.* to 12;"):
        go_on(tiny(**{LENGTHS: [3, 3, 6], "training__max_steps": 12}), tmp_path / "run", cache)
    assert math.isfinite(json.loads((tmp_path / "run" / "result.json").read_text())["eval_loss"])


def test_a_config_that_cannot_be_read_is_named(folder: Path, cache: Path) -> None:
    (folder / "config.yaml").write_text("name: [")
    with pytest.raises(RaptrError, match=r"config\.yaml cannot be read"):
        go_on(tiny(**CONFIG), folder, cache)
