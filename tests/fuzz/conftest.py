"""A folder to run commands in."""

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from fuzz.places import lay_out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the commands of a file share; it is the current folder."""
    folder = tmp_path_factory.mktemp("fuzz")
    lay_out(folder)
    with chdir(folder):
        yield folder
