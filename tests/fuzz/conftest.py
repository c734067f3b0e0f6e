"""A folder to run commands in."""

from pathlib import Path

import pytest

from helpers.fuzz.places import lay_out


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all commands find: laid out once."""
    folder = tmp_path_factory.mktemp("fuzz")
    lay_out(folder)
    return folder


@pytest.fixture
def place(laid_out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same; it is the current folder."""
    monkeypatch.chdir(laid_out)
    return laid_out
