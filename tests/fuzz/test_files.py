"""500 damaged files: each is read, skipped with a word, or refused in one message; none is changed."""

from contextlib import chdir
from pathlib import Path

import pytest

from fuzz import damage, files
from fuzz.files import read_folder, read_text_file

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


def test_damaged_text_files(place: Path) -> None:
    ended = [read_text_file(number) for number in range(TEXTS)]
    assert sum(said.endswith(": 0") for said in ended) > TEXTS // 10
    assert sum(said.endswith(": 2") for said in ended) > TEXTS // 2


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_with_a_damaged_file(name: str, prepared: None, place: Path) -> None:
    ended = [read_folder(name, number) for number in range(FOLDERS[name])]
    assert any(said.endswith(": 2") for said in ended)
