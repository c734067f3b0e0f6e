"""Which files a path means, and documents from them: .txt, .jsonl, .parquet and .arrow."""

import glob
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from raptr.data.text.lines import PACKED, read_lines, read_whole
from raptr.data.text.records import Choice, Document
from raptr.data.text.skipped import Omitted
from raptr.data.text.tables import read_arrow, read_parquet
from raptr.errors import RaptrError

ENDINGS = (*(kind + packed for kind in (".txt", ".jsonl") for packed in ("", *PACKED)), ".parquet", ".arrow")
_EXPECTED = ".txt or .jsonl (plain or packed as .gz, .xz or .zst), .parquet or .arrow"


def read_files(spec: str, choice: Choice, omitted: Omitted) -> Iterator[Document]:
    """The documents of a file, a folder with its subfolders, or all files that a pattern meets.

    A .txt file is one document, a line of a .jsonl file and a row of a table are one each. Lines without
    any character but white space are skipped. Of a file that is broken, what comes before is used.

    Args:
        spec: the path of a file or folder, or a glob pattern.
        choice: which column is the text, and which records are used.
        omitted: told what is bad, and where.

    Returns:
        An iterator that holds a document, or a batch of rows, at a time.

    Raises:
        RaptrError: there is no such path, or no file with a known ending.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("Hello.")
        ...     list(read_files(folder, Choice(), Omitted()))
        [('a.txt', b'Hello.')]
    """
    for name, path in find_files(spec):
        try:
            if not path.stat().st_size:
                omitted.skip("empty file", f"{path}: the file is empty; remove it or write it again.")
                continue
            if name.endswith(".parquet"):
                records = read_parquet(name, path, choice, omitted)
            elif name.endswith(".arrow"):
                records = read_arrow(name, path, choice, omitted)
            elif Path(name.removesuffix(path.suffix) if path.suffix in PACKED else name).suffix == ".txt":
                records = read_whole(name, path, choice.text, omitted)
            else:
                records = read_lines(name, path, omitted)
            yield from choice.documents(records, omitted)
        except OSError as error:
            reason = error.strerror or error
            omitted.skip("unreadable file", f"{path}: the file cannot be read ({reason}); mend or remove it.")


def find_files(spec: str, endings: tuple[str, ...] = ENDINGS) -> list[tuple[str, Path]]:
    """The readable files of a path or pattern with their relative names, in the order of the names.

    Hidden files are left out, and in folders and patterns those with another ending.

    Raises:
        RaptrError: there is none.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        found = sorted((file.relative_to(path).as_posix(), file) for file in _walk(path))
    elif not path.exists() and glob.has_magic(spec):
        found = _matches(path)
        if not found:
            raise RaptrError(f"{spec}: no file meets this pattern; it may hold *, ?, [a-z], and ** for subfolders.")
    elif not path.exists():
        raise RaptrError(
            f"{spec}: there is no such file or folder; give 'builtin:python', or the path of a file or folder of "
            f"{_EXPECTED}, or a pattern such as 'texts/*.jsonl.xz'."
        )
    elif not path.name.endswith(endings):
        raise RaptrError(f"{spec}: expected a file name that ends in {_EXPECTED}; convert or rename the file.")
    else:
        return [(path.name, path)]
    files = [(name, file) for name, file in found if name.endswith(endings)]
    if not files:
        raise RaptrError(
            f"{spec}: no file there can be read; expected names that end in {_EXPECTED}, seen: "
            f"{_endings([file for _, file in found])}."
        )
    return files


def _walk(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _matches(pattern: Path) -> list[tuple[str, Path]]:
    """Files of a pattern, named from the last folder before its first wildcard."""
    parts = pattern.parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    files = (Path(file) for file in glob.glob(str(pattern), recursive=True))  # noqa: PTH207
    return sorted((file.relative_to(root).as_posix(), file) for file in files if not file.is_dir())


def _endings(paths: list[Path]) -> str:
    counts = Counter(path.suffix or "no ending" for path in paths)
    return ", ".join(f"{count} of {ending}" for ending, count in counts.most_common(8)) or "nothing at all"
