"""A run that was stopped goes on where it was, and ends as if nothing had happened."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import TINY, contents, metrics, run, tiny
from helpers.stopping import Stopped, interrupted, same_end, stop_after
from raptr.config import RunConfig
from raptr.errors import RaptrError

pytestmark = pytest.mark.slow

# Dropout, so that the generators' state matters too.
GPT2 = {
    "architecture": "gpt2",
    "config": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 16, "resid_pdrop": 0.2, "attn_pdrop": 0.2},
}
CONFIGS = {
    "raptr": tiny(model=GPT2, checkpoints__every=2, training__weight_decay=0.1),
    "zero": tiny(methods__raptr={"schedule": "2-3-4", "inactive": "zero"}, checkpoints__every=2),
    "full": tiny(method="full", methods={}, checkpoints__every=2),
    "accumulated": tiny(
        checkpoints__every=2, training=TINY["training"] | {"gradient_accumulation_steps": 2, "max_steps": 9}
    ),
}


def _unsaved(config: RunConfig) -> RunConfig:
    """The same run without checkpoints on the way, which change nothing of it and take most of its time."""
    return config.model_copy(update={"checkpoints": config.checkpoints.model_copy(update={"every": 1.0})})


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Path]:
    """The same runs, never stopped."""
    root = tmp_path_factory.mktemp("references")
    for name, config in CONFIGS.items():
        run(_unsaved(config), root / name, cache)
    return {name: root / name for name in CONFIGS}


# One run is stopped everywhere: before the first step, before and after checkpoints, near the end. The moment of a stop
# and what is restored do not depend on each other, so the others are stopped once, between two checkpoints.
@pytest.mark.parametrize(
    ("name", "lines"),
    [*(("raptr", lines) for lines in (1, 4, 8, 11)), *((name, 8) for name in CONFIGS if name != "raptr")],
)
def test_stopped_run_ends_as_if_it_had_not_been(
    name: str, lines: int, references: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "run"
    interrupted(CONFIGS[name], folder, cache, lines)
    assert not (folder / "result.json").exists()
    run(CONFIGS[name], folder, cache)
    same_end(folder, references[name])


def test_stopped_again_and_again(references: dict[str, Path], tmp_path: Path, cache: Path) -> None:
    for _ in range(3):  # each time a little further: five lines are more than two steps
        interrupted(CONFIGS["raptr"], tmp_path / "run", cache, 5)
    run(CONFIGS["raptr"], tmp_path / "run", cache)
    same_end(tmp_path / "run", references["raptr"])


def test_resumed_run_does_not_repeat_what_was_done(tmp_path: Path, cache: Path) -> None:
    interrupted(CONFIGS["raptr"], tmp_path / "run", cache, 9)  # after step 6 and its validation
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stopped):
            run(CONFIGS["raptr"], tmp_path / "run", cache)
    assert metrics(tmp_path / "run", "train")[-1]["step"] == 5, "went on after the checkpoint of step 4"


def _stopped_late(folder: Path, cache: Path) -> list[Path]:
    interrupted(CONFIGS["raptr"], folder, cache, 12)
    checkpoints = sorted((folder / "checkpoints").glob("checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-6", "checkpoint-8"]
    return checkpoints


@pytest.mark.parametrize("damage", ["unmarked", "cut", "missing"])
def test_checkpoint_that_is_not_whole_is_set_aside(
    damage: str, references: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    _, newest = _stopped_late(tmp_path / "run", cache)
    if damage == "unmarked":
        (newest / "raptr.json").unlink()
    elif damage == "cut":
        with (newest / "model.safetensors").open("ab") as file:
            file.truncate(1000)
    else:
        (newest / "optimizer.pt").unlink()
    with pytest.warns(UserWarning, match=r"checkpoint-8 is damaged .* was set aside as damaged-checkpoint-8"):
        run(CONFIGS["raptr"], tmp_path / "run", cache)
    aside = tmp_path / "run" / "checkpoints" / "damaged-checkpoint-8"
    assert aside.is_dir(), "nobody removes it"
    shutil.rmtree(aside.parent)
    same_end(tmp_path / "run", references["raptr"])


def test_without_a_whole_checkpoint_it_begins_again(references: dict[str, Path], tmp_path: Path, cache: Path) -> None:
    for path in _stopped_late(tmp_path / "run", cache):
        (path / "raptr.json").unlink()
    with pytest.warns(UserWarning, match="or the run begins again"):
        run(CONFIGS["raptr"], tmp_path / "run", cache)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    same_end(tmp_path / "run", references["raptr"])


def test_metrics_that_lost_their_end_are_not_gone_on_with(
    references: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    _stopped_late(tmp_path / "run", cache)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[:3]))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl has \d+ bytes, and had"):
        run(CONFIGS["raptr"], tmp_path / "run", cache)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    same_end(tmp_path / "run", references["raptr"])


def test_stopped_between_the_last_step_and_the_result(
    references: dict[str, Path], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("raptr.train.engine.result_of", stopped)
        with pytest.raises(Stopped):
            run(CONFIGS["raptr"], tmp_path / "run", cache)
    run(CONFIGS["raptr"], tmp_path / "run", cache)
    same_end(tmp_path / "run", references["raptr"])


def test_stopped_run_on_other_data_is_refused(tmp_path: Path, cache: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of the first text\n" for i in range(3000)))
    config = tiny(data__source=str(text), data__tokenizer=280, checkpoints__every=2)
    interrupted(config, tmp_path / "run", cache, 8)
    before = contents(tmp_path / "run")
    text.write_text(text.read_text() + "and one line more\n")
    with pytest.raises(RaptrError, match=r"holds another run \(data: "):
        run(config, tmp_path / "run", cache)
    assert contents(tmp_path / "run") == before
    shutil.rmtree(tmp_path / "run")
    run(config, tmp_path / "run", cache)


def test_a_share_gives_the_number_of_checkpoints(tmp_path: Path, cache: Path) -> None:
    assert tiny(checkpoints__every=0.5).checkpoints.interval(9) == 5
    interrupted(tiny(checkpoints__every=0.5), tmp_path / "run", cache, 12)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-5"]
