"""Small texts for the data room."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def write_jsonl():
    def write(path, rows):
        with path.open("w", encoding="utf8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return path

    return write


@pytest.fixture
def corpus(tmp_path, write_jsonl) -> Path:
    """1200 distinct documents in two .jsonl files of a folder, enough to hold out whole ones."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for part in range(2):
        rows = [{"id": i, "text": f"Document {part}-{i} says: {'lorem ipsum ' * (i % 7)}\nEnd."} for i in range(600)]
        write_jsonl(folder / f"part-{part}.jsonl", rows)
    return folder
