"""2,000 command lines, configs and schedules: each succeeds, or ends with 2 and one message; nothing is changed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import raptr
from helpers.fuzz import commands, running

HOW_MANY: dict[str, int] = {
    "schedule_commands": 660,
    "override_commands": 700,
    "any_commands": 380,
    "config_files": 200,
    "model_commands": 50,
}
"""Of each kind that `helpers.fuzz.commands` makes; with those that are run as real commands, 2,000."""

SAME: dict[str, Any] = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}
"""The same ones each time."""

REAL = 10


def test_there_are_2000() -> None:
    assert sum(HOW_MANY.values()) + REAL == 2000


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOW_MANY)
def test_a_command_succeeds_or_is_refused_in_one_message(kind: str, place: Path) -> None:
    codes: list[int | None] = []

    @settings(max_examples=HOW_MANY[kind], **SAME)
    @given(getattr(commands, kind)())
    def tried(given_: Any) -> None:
        codes.append(running.check(commands.command_of(given_, place), place).code)

    tried()
    assert len(codes) >= HOW_MANY[kind]
    assert codes.count(2) > HOW_MANY[kind] // 2
    if kind != "config_files":
        assert 0 in codes or kind == "override_commands", "nothing succeeds: what is tried is only refused"


REAL_COMMANDS = [
    ["plan", "--layers", "12", "--method", "midas", f"alpha={'9' * 400}"],
    *(
        ["plan", "--layers", layers, *rest]
        for layers, rest in (("1000000000", []), ("9" * 400, []), ("x" * 5000, []), ("0", ["-x"]))
    ),
    *(["plan", "--layers", "12", option, value] for option, value in (("--steps", "9" * 400), ("--lengths", ""))),
    ["methods", "\udcff"],
    ["presets", "a b " * 2000],
    ["--" + "y" * 3000],
]


def test_there_are_10_real_ones() -> None:
    assert len(REAL_COMMANDS) == REAL


@pytest.mark.slow
@pytest.mark.parametrize("number", range(REAL))
def test_a_real_command_ends_the_same_way(number: int, place: Path) -> None:
    arguments = REAL_COMMANDS[number]
    before = running.fingerprint(place)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(raptr.__file__).parents[1])}
    command = [sys.executable, "-m", "raptr", *map(os.fsencode, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=60, cwd=place, env=environment)
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert not running.wrong(running.Ending(arguments=tuple(arguments), code=done.returncode, out=out, err=err))
    assert running.fingerprint(place) == before


# Controls: what would be wrong is seen


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: sys.exit(1), "exit code 1"),
        (lambda: sys.exit(2), "0 messages"),
        (lambda: (print("raptr: one.\nraptr: two.", file=sys.stderr), sys.exit(2)), "2 messages"),
        (lambda: (print("raptr: " + "long " * 2000, file=sys.stderr), sys.exit(2)), "characters"),
        (lambda: (print("Traceback (most recent call last)", file=sys.stderr), sys.exit(2)), "a traceback"),
        (lambda: print("\udcff"), "UnicodeEncodeError"),
        (lambda: iter(int, 1).__contains__(1), "nothing came after"),
    ],
)
def test_what_is_wrong_is_noticed(broken: Callable[[], Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.cli, "main", broken)
    monkeypatch.setattr(running, "LIMIT", 0.2)
    assert said in running.wrong(running.run(["plan"]))


def test_a_changed_input_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setattr(running.cli, "main", lambda: (tmp_path / "a.txt").write_text("b"))
    with pytest.raises(AssertionError, match="changed an input"):
        running.check(["plan"], tmp_path)
