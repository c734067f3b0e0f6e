"""Runs that are killed several times at random: real processes, real SIGKILL. The long form is benchmarks/chaos.py."""

import importlib.util
import itertools
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from helpers import started
from helpers.runs import run, tiny
from raptr.config.load import parse

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "chaos.py"


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chaos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# One run is killed three times; for what else a method or an objective keeps, one kill is enough.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kills"), [("raptr-causal-2", 3), ("gradual_stacking-denoising-0", 1), ("pld-masked-2", 1)]
)
def test_kills_change_nothing(
    name: str,
    kills: int,
    chaos: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(chaos, "started", started.raptr)
    given = ["--kills", str(kills), "--only", name, "--output", str(tmp_path / "x.json")]
    monkeypatch.setattr(sys, "argv", ["chaos.py", *given])
    assert chaos.main() == 0, capsys.readouterr().out
    told = json.loads((tmp_path / "x.json").read_text())
    assert told["differences"] == {name: []}
    assert told["kills"][name] >= (kills + 1) // 2, "some may come too late"


def test_every_run_of_the_long_form_is_valid(chaos: ModuleType) -> None:
    for method, objective in itertools.product(chaos.METHODS, chaos.OBJECTIVES):
        config = parse(chaos.config_of(method, objective, 0), "the long form")
        assert config.build_method().name == method


@pytest.mark.slow
def test_a_difference_is_noticed(chaos: ModuleType, tmp_path: Path, cache: Path) -> None:
    steps = {"training__max_steps": chaos.STEPS, "checkpoints__keep_last": True}
    run(tiny(**steps), tmp_path / "one", cache)
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    assert chaos.differences(tmp_path / "one", tmp_path / "same") == []
    run(tiny(**steps, seed=1), tmp_path / "other", cache)
    found = " ".join(chaos.differences(tmp_path / "one", tmp_path / "other"))
    for what in ("the weights differ", "the optimizer's state differs", "metrics.jsonl differs from line 1", "result"):
        assert what in found
