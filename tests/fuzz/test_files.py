"""500 damaged files: each is read, skipped with a word, or refused in one message; none is changed."""

import json
import shutil
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import pytest

from helpers.fuzz import damage, files, running
from helpers.fuzz.files import read_folder, read_text_file

TEXTS = 400
FOLDERS = {"store": 44, "tokenizer": 44, "run": 4, "again": 8}


@pytest.fixture(scope="module")
def prepared(laid_out: Path) -> None:
    """The place has the folders that are damaged."""
    with chdir(laid_out):
        files.prepare(laid_out)


def test_there_are_500() -> None:
    assert TEXTS + sum(FOLDERS.values()) == 500


def test_whole_files_are_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "DAMAGES", [lambda content, chance: content])
    ended = [read_text_file(number) for number in range(len(damage.KINDS))]
    assert all(said.endswith(": 0") for said in ended), ended


@pytest.mark.slow
def test_damaged_text_files(place: Path) -> None:
    ended = [read_text_file(number) for number in range(TEXTS)]
    assert sum(said.endswith(": 0") for said in ended) > TEXTS // 10
    assert sum(said.endswith(": 2") for said in ended) > TEXTS // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_folders_with_a_damaged_file(name: str, prepared: None, place: Path) -> None:
    ended = [read_folder(name, number) for number in range(FOLDERS[name])]
    assert any(said.endswith(": 2") for said in ended)


REPORT, AGAIN = ("report", "copy", "--output", "page"), ("train", "small.yaml", "--cache", "stored", "--output", "copy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "command"),
    [
        ("run.json", '{"method": "\\ud800"}', REPORT),
        ("run.json", "[" * 200_000, REPORT),
        ("metrics.jsonl", json.dumps({"kind": "eval", "step": 0, "eval_loss": 10**400}) + "\n", REPORT),
        ("metrics.jsonl", "[" * 200_000 + "\n{}\n", REPORT),
        ("result.json", '{"steps": 1', AGAIN),
        ("result.json", '{"steps": "many"}', AGAIN),
        ("run.json", "[]", AGAIN),
        ("run.json", '{"plan": {"stages": 5}}', AGAIN),
        ("config.yaml", "\0", AGAIN),
    ],
)
def test_a_finished_run_of_which_a_file_was_found_to_break_a_command(
    file: str, content: str, command: Sequence[str], prepared: None, place: Path
) -> None:
    shutil.copytree("run", "copy")
    Path("copy", file).write_text(content)
    try:
        ending = running.check(command, Path("copy"))
    finally:
        shutil.rmtree("copy")
    assert ending.code == 2
    assert file in ending.err
