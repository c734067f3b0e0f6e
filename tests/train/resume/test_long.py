"""Many steps leave nothing behind but their lines, and these are read wherever they end. Longer: benchmarks/long.py."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import transformers

from helpers.runs import run, tiny
from helpers.stopping import interrupted, same_end
from raptr.results.folder import read_folder
from raptr.train.hf.trainer import RunTrainer, newest_of_each_kind
from raptr.train.resume.checkpoint import newest_checkpoint

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "long.py"
CONFIG = tiny(checkpoints__every=4)


@pytest.fixture(scope="module")
def long() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("long", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "long", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


@pytest.mark.slow
def test_nothing_grows_and_every_line_is_read(
    long: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # A few hundred steps fill what is bounded, so slopes are not flat yet, and a busy machine has a clock of its own.
    limits = ["--limit-memory", "30", "--limit-blocks", "8", "--limit-slowdown", "2"]
    size = ["--steps", "300", "--samples", "12", "--saves", "5", "--cuts", "40"]
    monkeypatch.setattr(sys, "argv", ["long.py", *size, *limits, "--output", str(tmp_path / "long.json")])
    assert long.main() == 0, capsys.readouterr().out
    told = json.loads((tmp_path / "long.json").read_text())
    assert told["failures"] == []
    assert told["results"]["steps"] == 300
    assert told["results"]["cuts"] > 400, "every byte of two lines"
    assert len(told["samples"]) == 12
    assert {"python", "torch", "transformers", "cpu"} <= set(told["machine"])


@pytest.mark.slow
def test_a_log_that_is_kept_is_noticed(
    long: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    monkeypatch.setattr("raptr.train.hf.trainer.newest_of_each_kind", lambda entries: entries)  # the Trainer's own way
    samples = long.watched(150, 10, 5, tmp_path / "run", cache)
    seconds = long.clock((tmp_path / "run" / "metrics.jsonl").read_bytes())
    found = long.broken(long.figures(samples, seconds), long.Limits(memory=30, blocks=8, slowdown=9))
    assert [what.partition(" ")[0] for what in found] == ["each", "checkpoints"], found


def test_every_limit_can_be_broken(long: ModuleType, tmp_path: Path) -> None:
    flat = [long.Sample(step=k, memory=10**8, blocks=10**6, files=7, checkpoint=10**5) for k in range(1, 101)]
    even = [0.01 * k for k in range(1, 101)]
    assert long.broken(long.figures(flat, even), long.Limits()) == []
    leaks = {"memory": 460, "blocks": 3, "files": 0.05, "checkpoint": 460}  # a step; 460 bytes are 0.46 MB in 1,000
    for name, leak in leaks.items():
        grown = [replace(one, **{name: getattr(one, name) + int(leak * one.step)}) for one in flat]
        assert len(long.broken(long.figures(grown, even), long.Limits())) == 1, name
    slower = [0.01 * k + (0.002 * (k - 50) if k > 50 else 0) for k in range(1, 101)]
    assert len(long.broken(long.figures(flat, slower), long.Limits())) == 1
    line = {"kind": "train", "step": 1, "layers": [[0, 1]], "loss": 3.0}
    content = b"".join(json.dumps({**line, "step": step}).encode() + b"\n" for step in (1, 2, 3))
    assert long.unreadable(content, range(len(content) + 1), tmp_path / "cut.jsonl") == []


@pytest.mark.slow
def test_the_trainer_keeps_the_newest_entry_of_each_kind(
    long: ModuleType, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, seen = dict[int, int](), []
    log = RunTrainer.log

    def watched(self: RunTrainer, *args: object, **kwargs: object) -> None:
        log(self, *args, **kwargs)  # type: ignore[arg-type]
        states[self.state.global_step] = len(self.state.log_history)
        seen.append(self.state.log_history[-1])

    monkeypatch.setattr(RunTrainer, "log", watched)
    run(tiny(training__max_steps=40, checkpoints__every=10, checkpoints__keep_last=True), tmp_path / "run", cache)
    assert max(states.values()) <= 4, "before the first step, a step, a validation, the end"
    state = json.loads((tmp_path / "run" / "checkpoints" / "checkpoint-40" / "trainer_state.json").read_text())
    assert {("loss" in entry, entry["step"]) for entry in state["log_history"]} >= {(True, 40), (False, 40)}
    assert len(state["log_history"]) <= 3
    assert len(seen) > 50, "callbacks still see every entry"
    assert newest_of_each_kind(seen)[-1]["step"] == 40
    assert issubclass(RunTrainer, transformers.Trainer)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run that was stopped after step 8, with a checkpoint of step 4 and one of step 8; and one that was not."""
    root = tmp_path_factory.mktemp("cut")
    interrupted(CONFIG, root / "run", cache, 12)
    run(CONFIG, root / "reference", cache)
    return root


@pytest.mark.slow
def test_after_every_cut_the_newest_checkpoint_that_it_allows_is_used(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    content = (stopped / "run" / "metrics.jsonl").read_bytes()
    manifests = {
        path.parent.name: json.loads(path.read_text()) for path in stopped.glob("run/checkpoints/*/raptr.json")
    }
    known = {name: manifest["metrics"]["bytes"] for name, manifest in manifests.items()}
    assert set(known) == {"checkpoint-4", "checkpoint-8"}
    last = known["checkpoint-8"]
    shutil.copytree(stopped / "run", folder)
    for cut in range(last, len(content) + 1):
        (folder / "metrics.jsonl").write_bytes(content[:cut])
        found = newest_checkpoint(folder / "checkpoints", folder / "metrics.jsonl")
        assert found is not None
        assert found.path.name == "checkpoint-8", cut
    for cut in (last - 1, known["checkpoint-4"], known["checkpoint-4"] - 1, 0):
        shutil.rmtree(folder)
        shutil.copytree(stopped / "run", folder)
        (folder / "metrics.jsonl").write_bytes(content[:cut])
        with pytest.warns(UserWarning, match=r"metrics\.jsonl has \d+ bytes, and had"):
            found = newest_checkpoint(folder / "checkpoints", folder / "metrics.jsonl")
        usable = [name for name, size in known.items() if size <= cut]
        assert (found.path.name if found else None) == max(usable, default=None), cut


@pytest.mark.slow
@pytest.mark.parametrize("beyond", [40, -1])
def test_a_run_with_metrics_that_were_cut_goes_on_exactly(
    beyond: int, stopped: Path, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped / "run", folder)
    place = folder / "metrics.jsonl"
    manifest = json.loads((folder / "checkpoints" / "checkpoint-8" / "raptr.json").read_text())
    content = place.read_bytes()
    place.write_bytes(content[: manifest["metrics"]["bytes"] + beyond])
    assert read_folder(folder).runs[0].reached == 8
    if beyond < 0:
        with pytest.warns(UserWarning, match="checkpoint-8 is damaged"):
            run(CONFIG, folder, cache)
        shutil.rmtree(folder / "checkpoints")  # what was set aside
    else:
        run(CONFIG, folder, cache)
    same_end(folder, stopped / "reference")
