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
from raptr.rundir.run_record import RunInfo
from raptr.train.engine import train
from raptr.train.resume.config_diff import check_allowed, rate_change
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
        ({"data__tokenizer": 300}, ["data.tokenizer: 320 -> 300", "; data: ", "; flops: "]),
        ({"data__max_bytes": 150_000}, ["data.max_bytes: 200000 -> 150000"]),
        ({"model__config__intermediate_size": 48}, ["model.config.intermediate_size: 32 -> 48", "; flops: "]),
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


def test_more_steps_of_a_decayed_rate_are_rejected_with_both_rates(tmp_path: Path, cache: Path) -> None:
    """Linear: 0 at the end of 9 steps, and 5 / 12 of the peak after 9 of 14."""
    short = {**CONFIG, "checkpoints__keep_last": True, LENGTHS: [3, 3, 3]}
    more = tiny(**{**short, "training__max_steps": 14, LENGTHS: [3, 3, 8]})
    run(tiny(**short), tmp_path / "run", cache)
    before = contents(tmp_path / "run")
    message = r"\(learning_rate_schedule: 0 after step 9 of 9 -> 0.004167 after step 9 of 14\).*"
    with pytest.raises(RaptrError, match=f"{message}--allow-changes learning_rate_schedule\\.$"):
        go_on(more, tmp_path / "run", cache)
    with pytest.raises(RaptrError, match=message):  # of the number of steps more is said than that it may differ
        go_on(more, tmp_path / "run", cache, "training", "steps", "methods")
    assert contents(tmp_path / "run") == before
    assert go_on(more, tmp_path / "run", cache, "learning_rate_schedule")["steps"] == 14
    assert metrics(tmp_path / "run", "train")[9]["learning_rate"] == pytest.approx(0.01 * 5 / 12)
    changes = {
        change["key"]: change["new"] for change in json.loads((tmp_path / "run" / "run.json").read_text())["changes"]
    }
    assert changes["learning_rate_schedule"] == "0.004167 after step 9 of 14"


def test_all_that_differs_stands_in_one_message(tmp_path: Path, cache: Path) -> None:
    """Config, facts and a missing checkpoint; and of a stopped run config, facts, engine and rate."""
    run(tiny(), tmp_path / "run", cache)
    with pytest.raises(RaptrError) as refused:
        go_on(tiny(training__max_steps=12, training__learning_rate=0.02), tmp_path / "run", cache)
    for said in (
        "is finished, after 9 steps, and kept no checkpoint, so it cannot go on to 12",
        "training.learning_rate: 0.01 -> 0.02",
        "training.max_steps: 9 -> 12",
        "steps: 9 -> 12",
        "give another --output",
    ):
        assert said in str(refused.value)
    assert "--allow-changes" not in str(refused.value)


def test_a_stopped_runs_differences_stand_in_one_message(folder: Path, cache: Path) -> None:
    info = json.loads((folder / "run.json").read_text())
    info["environment"] |= {"processes": 2, "engine": "ddp", "torch": "1.0"}
    (folder / "run.json").write_text(json.dumps(info))
    said = ["seed", "training.max_steps", "engine", "processes", "steps", "torch", "learning_rate_schedule"]
    with pytest.raises(RaptrError) as refused:
        go_on(tiny(**CONFIG, seed=1, training__max_steps=18), folder, cache)
    assert sorted(re.findall(r"--allow-changes ([\w.]*\w)", str(refused.value))) == sorted(said)
    assert "0.007143 after step 4 of 9 -> 0.00875 after step 4 of 18" in str(refused.value)


RATES: list[tuple[dict[str, Any], int, int, int, str | None]] = [  # training, steps before, now, done; what is said
    ({}, 9, 14, 9, "0 after step 9 of 9 -> 0.004167 after step 9 of 14"),
    ({}, 9, 10, 9, "0 after step 9 of 9 -> 0.00125 after step 9 of 10"),
    ({}, 9, 18, 4, "0.007143 after step 4 of 9 -> 0.00875 after step 4 of 18"),
    ({}, 9, 9, 9, None),
    ({}, 9, 14, 1, None),  # still warming up, for as many steps
    ({"warmup_steps": 0.5}, 8, 16, 2, "0.005 after step 2 of 8 -> 0.0025 after step 2 of 16"),
    ({"lr_scheduler_type": "cosine"}, 8, 14, 8, "0 after step 8 of 8 -> 0.005 after step 8 of 14"),
    (
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        8, 14, 8, "0.001 after step 8 of 8 -> 0.0055 after step 8 of 14",
    ),
    (
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 0.001}},
        10, 18, 10, "0.001 after step 10 of 10 -> 0.0055 after step 10 of 18",
    ),
    (
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 3}},
        9, 14, 9, "0 after step 9 of 9 -> 0.01 after step 9 of 14",
    ),
    (
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 3}},
        9, 14, 6, None,  # from before the decay
    ),
    ({"lr_scheduler_type": "constant"}, 9, 14, 9, None),
    ({"lr_scheduler_type": "constant_with_warmup"}, 9, 14, 9, None),
    ({"lr_scheduler_type": "inverse_sqrt"}, 9, 14, 9, None),
    ({"lr_scheduler_type": "cosine_with_restarts"}, 8, 14, 8, "0 after step 8 of 8 -> 0.005 after step 8 of 14"),
    ({"learning_rate": 0.0}, 9, 14, 9, None),
]  # fmt: skip


@pytest.mark.parametrize(("training", "before", "now", "done", "said"), RATES)
def test_a_rate_that_more_steps_change_is_named(
    training: dict[str, Any], before: int, now: int, done: int, said: str | None, stopped: Path, tmp_path: Path
) -> None:
    recorded = json.loads((stopped / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(recorded | {"steps": before}))
    config = tiny(**{f"training__{key}": value for key, value in training.items()}, training__max_steps=now)
    info = RunInfo.of(recorded | {"steps": now})
    found = rate_change(tmp_path, config, info, done)
    assert [str(change) for change in found] == ([f"learning_rate_schedule: {said}"] if said else [])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("training.max_step", "training.max_steps"),
        ("training.learningrate", "training.learning_rate"),
        ("learning_rate_schedules", "learning_rate_schedule"),
        ("trainig", "training"),
        ("dat", "data"),
        ("method.raptr", "methods.raptr"),
        ("Seed", "seed"),
        ("torches", "torch"),
        ("training.max_steps=12", "training.max_steps"),
        ("training.max_steps,seed", "training.max_steps"),
        ("model.config.hidden-size", "model.config.hidden_size"),
        ("all", "give a key or section such as training.max_steps, or one of data, engine, flops"),
        ("", "give a key or section"),
        ("*", "give a key or section"),
    ],
)
def test_an_unknown_name_of_a_change_is_an_error(name: str, near: str, folder: Path, cache: Path) -> None:
    with pytest.raises(RaptrError, match=re.escape(near)) as refused:
        go_on(tiny(**CONFIG), folder, cache, "training.learning_rate", name)
    assert str(refused.value).startswith(f"--allow-changes {name!r} is not a key of the config or a fact of a run; ")


def test_known_names_of_changes_are_keys_sections_and_facts(folder: Path) -> None:
    """Keys of either config: the recorded one has another method's settings."""
    facts = [
        "data",
        "steps",
        "flops",
        "processes",
        "engine",
        "learning_rate_schedule",
        "raptr",
        "torch",
        "transformers",
    ]
    keys = ["seed", "training", "training.max_steps", "training.weight_decay", "training.probe_memory", "model.config"]
    keys += ["model.config.hidden_size", "methods.raptr", "methods.raptr.schedule", "checkpoints.every"]
    config = tiny(method="full", methods={})
    check_allowed(folder, config, [*facts, *keys])
    with pytest.raises(RaptrError, match=r"methods\.raptr"):  # control: of no config
        check_allowed(folder.parent / "new", config, ["methods.raptr"])


def test_a_config_that_cannot_be_read_is_named(folder: Path, cache: Path) -> None:
    (folder / "config.yaml").write_text("name: [")
    with pytest.raises(RaptrError, match=r"config\.yaml cannot be read"):
        go_on(tiny(**CONFIG), folder, cache)
