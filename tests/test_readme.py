"""What the README shows is run, as it stands."""

import re
from pathlib import Path

import pytest

from helpers.started import Started, succeeded

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=["plain loop", "Trainer"])
def test_example_runs(example: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(example)
    succeeded([Started(tmp_path / "example.py", folder=tmp_path)])


def test_files_to_read_exist() -> None:
    named = re.findall(r"`((?:src|docs|tests)/[\w/.]+)`", README.read_text(encoding="utf-8"))
    assert len(named) >= 5
    for name in named:
        assert (README.parent / name).exists(), name
