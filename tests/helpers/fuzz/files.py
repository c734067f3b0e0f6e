"""Damaged files and the commands that read them: a number says which."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from helpers.fuzz import damage
from helpers.fuzz.running import check, run, wrong

_FEW = ("--cache", "cache", "--workers", "1")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What is copied and damaged: a folder; the command that reads the copy, and whether it works in there."""

    folder: str
    command: tuple[str, ...]
    works: bool = False


WHOLES = {
    "store": Whole(folder="stored", command=("data", "small.yaml", "--cache", "{}", "--workers", "1")),
    "tokenizer": Whole(folder="tokenizer", command=("data", "small.yaml", "data.tokenizer={}", *_FEW)),
    "run": Whole(folder="run", command=("report", "{}", "--output", "page")),
    "again": Whole(folder="run", command=("train", "small.yaml", "--cache", "stored", "--output", "{}"), works=True),
}
"""Of several files: stored tokens, a tokenizer, and a finished run, whose report is made or which is trained again."""


def prepare(place: Path) -> None:
    """Make the folders of `WHOLES` in a place that is laid out; it is the current folder.

    Raises:
        AssertionError: the run did not succeed.
    """
    for command in (
        ("data", "small.yaml", "--cache", "stored", "--workers", "1"),
        ("train", "small.yaml", "--cache", "stored", "--output", "run"),
    ):
        ending = run(command)
        assert not wrong(ending), wrong(ending)
        assert ending.code == 0, ending.err
    for path in (place / "run").rglob("*"):
        if path.is_file() and path.suffix not in (".json", ".jsonl", ".yaml"):
            path.unlink()
    shutil.rmtree(place / "run" / "model")


def read_text_file(number: int) -> str:
    """Prepare the damaged text file of a number, in the current folder: what it was and how the command ended."""
    inputs = _empty(Path("inputs"))
    path, what = damage.text_file(number, inputs)
    ending = check(["data", "small.yaml", f"data.source={path}", *_FEW], inputs)
    shutil.rmtree("cache", ignore_errors=True)
    return f"{what}: {ending.code}"


def read_folder(name: str, number: int) -> str:
    """Read a folder of which one file is damaged, in the current folder: what it was and how the command ended."""
    inputs, whole = _empty(Path("inputs")), WHOLES[name]
    shutil.copytree(whole.folder, inputs / "copy")
    what = damage.one_of(inputs / "copy", number)
    ending = check([part.format(inputs / "copy") for part in whole.command], inputs, works=whole.works)
    shutil.rmtree("cache", ignore_errors=True)
    return f"{what}: {ending.code}"


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
