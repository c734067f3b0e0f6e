"""Compare what two checkouts wrote: run folders, token stores and summaries, field by field and bit by bit.

A file is read as what it is (JSON, JSON lines, lines of YAML, figures and lines of a report, safetensors, torch files,
or else bytes) and compared value by value. Numbers must be equal to the last bit and of the same type. A
folder must hold the same files.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

TIMES = ("seconds", "tokens_per_second", "mfu")
"""Fields of metrics.jsonl that depend on the clock."""

IGNORED: Mapping[str, tuple[str, ...]] = {
    "metrics.jsonl": TIMES,
    "result.json": ("seconds",),
    "summary.json": ("methods.*.seconds", "methods.*.savings.seconds.*"),  # of runs that were just made
    "trainer_state.json": ("log_history.*.seconds", "log_history.*_runtime", "log_history.*_per_second"),
    "raptr.json": (
        "metrics.progress.seconds",
        "metrics.bytes",  # the length of metrics.jsonl, whose times have more digits or fewer
        "files.trainer_state.json.*",  # size and hash of a file that holds times
        "blake2b",  # of all this
    ),
}
"""Fields that depend on the clock, by the name of the file, as patterns."""

DRAWN = ("report.html", "figures/*")
"""Files of a run or comparison that only have to be there: they show the clock. Reports of stored runs are compared."""

FIGURES = re.compile(r'(<script type="application/json" id="figures">)(.*?)(</script>)', re.DOTALL)
"""The data of a report's figures."""


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()
"""Stands for a value that only the other side has."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that differs.

    Attributes:
        place: file, line and field, such as "metrics.jsonl line 3: loss".
        base: the value in BASE; `MISSING` if there is none.
        new: the value in the current checkout.
    """

    place: str
    base: Any
    new: Any

    def __str__(self) -> str:
        shown = [_short(value) for value in self._values()]
        return f"{self.place}: {shown[0]} -> {shown[1]}"

    def _values(self) -> tuple[Any, Any]:
        """Return both values; long texts without what they begin with in common."""
        if not (isinstance(self.base, str) and isinstance(self.new, str) and max(len(self.base), len(self.new)) > 80):
            return self.base, self.new
        same = next((at for at, (a, b) in enumerate(zip(self.base, self.new, strict=False)) if a != b), 0)
        start = max(0, same - 20)
        return tuple(("..." if start else "") + text[start:] for text in (self.base, self.new))


@dataclass(frozen=True, kw_only=True)
class Known:
    """A difference that is wanted.

    Attributes:
        case: name of the case, as a pattern.
        place: place of the difference, as a pattern.
        reason: why it is right.
        new: the value in the current checkout as text, as a pattern.
    """

    case: str
    place: str
    reason: str
    new: str = "*"

    def covers(self, case: str, difference: Difference) -> bool:
        """Return whether this is the difference."""
        patterns = (case, self.case), (difference.place, self.place), (str(difference.new), self.new)
        return all(fnmatchcase(value, pattern) for value, pattern in patterns)


DECISION = "the verdict as an enum, beside its text"

ALLOWED = (
    Known(case="summaries", place="*.json: methods.*.decision", reason=DECISION),
    Known(case="compare", place="summary.json: methods.*.decision", reason=DECISION),
    Known(case="*", place="*.json: *not_read", reason="files of a folder or pattern that are not read are counted"),
    Known(case="*", place="*.json: *probe", reason="the tokens of a fixed text are recorded with a store"),
    Known(case="*", place="*.json: *versions", reason="and the libraries that made them"),
)
"""Keys that the current checkout may add; a changed value of such a key is a difference."""

_JUMPS = "jumps are those that the run recorded, no longer only those of runs with all steps"
_WIDTH = "stages say their width, and how much room that takes"

EXPECTED = (
    Known(case="reports", place="*report.html: figures.data.*.kw", reason=_WIDTH),
    Known(case="reports", place="*report.html: figures.data.*.nw", reason=_WIDTH),
    Known(case="reports", place="*report.html: figures.charts.*.calculate", new="*datum.kw*", reason=_WIDTH),
    Known(case="reports", place="*report.html: figures.data.*.[kn]", new="* × * %*", reason=_WIDTH),
    Known(case="reports", place="widths/report.html: figures.data.*.v", reason=_WIDTH),
    Known(case="reports", place="*report.html: lines.*", new="* layers × *", reason=_WIDTH),
    Known(case="reports", place="*report.html: lines.*", new="*trained (× * %: with this share *", reason=_WIDTH),
    Known(case="reports", place="*report.html: lines.*", new='*data-label="Boundary *', reason=_JUMPS),
    Known(case="reports", place="*report.html: lines.*", new="*Jump in the table: *", reason=_JUMPS),
    Known(case="reports", place="*report.html: lines.*", new='*class="undecided"*', reason="a class is its decision"),
)
"""Faults of BASE that were mended on purpose."""


def sort_out(
    case: str,
    differences: Iterable[Difference],
    allowed: Iterable[Known] = ALLOWED,
    expected: Iterable[Known] = EXPECTED,
) -> tuple[list[Difference], dict[Known, int]]:
    """Separate the differences of a case into unwanted and known ones.

    Returns:
        The unwanted differences, and how many there are of each known one.
    """
    unwanted: list[Difference] = []
    found: dict[Known, int] = {}
    for difference in differences:
        tables = [*expected, *(allowed if difference.base is MISSING else ())]
        known = next((entry for entry in tables if entry.covers(case, difference)), None)
        if known is None:
            unwanted.append(difference)
        else:
            found[known] = found.get(known, 0) + 1
    return unwanted, found


def compare_folders(base: Path, new: Path) -> Iterator[Difference]:
    """Yield the differences between two folders."""
    files = [{path.relative_to(folder).as_posix() for path in _files(folder)} for folder in (base, new)]
    for name in sorted(files[0] | files[1], key=lambda name: (name.count("/"), name)):  # what is read first, first
        present = [name in there for there in files]
        if not all(present):
            yield Difference(place=name, base=_presence(present[0]), new=_presence(present[1]))
        elif not any(fnmatchcase(name, pattern) for pattern in DRAWN):
            yield from compare_files(base / name, new / name, name)


def compare_files(base: Path, new: Path, name: str) -> Iterator[Difference]:
    """Yield the differences between two files.

    Args:
        base: the file of BASE.
        new: the file of the current checkout.
        name: the name to report.
    """
    contents = read(base), read(new)
    ignored = IGNORED.get(base.name, ())
    if not all(isinstance(content, Lines) for content in contents):
        yield from compare_values(*contents, f"{name}: ", ignored=ignored)
        return
    for number, pair in enumerate(zip_longest(*contents, fillvalue=MISSING), start=1):
        yield from compare_values(*pair, f"{name} line {number}: ", ignored=ignored)


class Lines(list[Any]):
    """The lines of a file."""


def read(path: Path) -> Any:
    """Read a file as what its name says."""
    match path.suffix:
        case ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        case ".jsonl":
            return Lines(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
        case ".yaml":
            return Lines(path.read_text(encoding="utf-8").splitlines())
        case ".html":
            text = path.read_text(encoding="utf-8")
            data = FIGURES.search(text)
            figures = None if data is None else json.loads(_numbered(data[2]))
            return {"figures": figures, "lines": FIGURES.sub(r"\1\3", text).splitlines()}
        case ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return {"metadata": file.metadata(), "tensors": tensors}
        case ".pt" | ".pth":
            return torch.load(path, map_location="cpu", weights_only=False)  # written by this very script's runs
        case _:
            return path.read_bytes()


def _numbered(figures: str) -> str:
    """Name the data sets of a report's figures by their order: their names are hashes of what they hold."""
    for number, name in enumerate(json.loads(figures).get("data", {})):
        figures = figures.replace(name, f"set-{number}")
    return figures


def compare_values(base: Any, new: Any, start: str, path: str = "", *, ignored: Iterable[str] = ()) -> Iterator[Any]:
    """Yield the differences between two values.

    Args:
        base: the value of BASE.
        new: the value of the current checkout.
        start: what comes before the path in a difference's place.
        path: keys and indices that lead to the values, joined by dots.
        ignored: patterns of paths that are not compared.
    """
    if path and any(fnmatchcase(path, pattern) for pattern in ignored):
        return
    if isinstance(base, Mapping) and isinstance(new, Mapping):
        for key in {**base, **new}:
            inner = f"{path}.{key}" if path else str(key)
            yield from compare_values(base.get(key, MISSING), new.get(key, MISSING), start, inner, ignored=ignored)
    elif isinstance(base, list | tuple) and type(base) is type(new):
        for index, pair in enumerate(zip_longest(base, new, fillvalue=MISSING)):
            yield from compare_values(*pair, start, f"{path}.{index}" if path else str(index), ignored=ignored)
    elif type(base) is not type(new):
        yield Difference(place=start + path, base=base, new=new)
    elif isinstance(base, torch.Tensor | np.ndarray):
        yield from _compare_arrays(base, new, start + path)
    elif base is not new and repr(base) != repr(new):  # NaN equals itself, and 0.0 is not -0.0
        yield Difference(place=start + path, base=base, new=new)


def _compare_arrays(base: Any, new: Any, place: str) -> Iterator[Difference]:
    kinds = [f"{array.dtype} {tuple(array.shape)}" for array in (base, new)]
    if kinds[0] != kinds[1]:
        yield Difference(place=place, base=kinds[0], new=kinds[1])
        return
    first, second = (torch.as_tensor(array).detach().contiguous().flatten() for array in (base, new))
    size = first.element_size()
    wrong = (first.view(torch.uint8).view(-1, size) != second.view(torch.uint8).view(-1, size)).any(dim=1)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        where = f"{place}[{at}], {int(wrong.sum())} of {len(first)} values"
        yield Difference(place=where, base=first[at].item(), new=second[at].item())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _presence(present: bool) -> Any:
    return "a file" if present else MISSING


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
