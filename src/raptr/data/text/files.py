"""Which files a path means, and documents from them: .txt, .jsonl, .parquet and .arrow.

Folders are read alike whether a folder or a pattern leads to them: a link to a folder is followed, and every folder is
read once, by its own path if that is below the given one. A link to a folder above itself is not followed.
"""

import glob
import itertools
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raptr.data.text.lines import PACKED, read_lines, read_whole
from raptr.data.text.records import Choice, Document
from raptr.data.text.skipped import Omitted
from raptr.data.text.tables import read_arrow, read_parquet
from raptr.data.text.turns import in_turns
from raptr.errors import RaptrError

ENDINGS = (*(kind + packed for kind in (".txt", ".jsonl") for packed in ("", *PACKED)), ".parquet", ".arrow")
_EXPECTED = ".txt or .jsonl (plain or packed as .gz, .xz or .zst), .parquet or .arrow"


def read_files(spec: str, choice: Choice, omitted: Omitted, limit: int | None = None) -> Iterator[Document]:
    """The documents of a file, a folder with its subfolders, or all files that a pattern meets.

    A .txt file is one document, a line of a .jsonl file and a row of a table are one each. Lines without
    any character but white space are skipped. Of a file that is broken, what comes before is used.

    Args:
        spec: the path of a file or folder, or a glob pattern.
        choice: which column is the text, and which records are used.
        omitted: told what is bad, and where.
        limit: about so many bytes of text will be used: of several files the documents come in turns, see
            `raptr.data.text.turns.in_turns`.

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
    there = find_files(spec)
    there.report(omitted)

    def read(name: str, path: Path) -> Iterator[Document]:
        try:
            if not path.stat().st_size:
                omitted.skip("empty file", f"{path}: the file is empty; remove it or write it again.")
                return
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

    yield from in_turns(there.files, read, limit)


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files that a path means.

    Attributes:
        files: relative names and paths of those that are read, in the order of the names.
        unread: what else is there, and why it is not read: its ending, or another reason.
        unreadable: folders that cannot be opened, each with the reason.
    """

    files: list[tuple[str, Path]] = field(default_factory=list)
    unread: dict[Path, str] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def report(self, omitted: Omitted) -> None:
        """Count what is not read.

        Raises:
            RaptrError: a folder cannot be opened, and ``omitted`` is strict.
        """
        omitted.unread.update(self.unread.values())
        for folder, reason in self.unreadable.items():
            omitted.skip("unreadable folder", f"{folder}: the folder cannot be read ({reason}); mend or remove it.")


def find_files(spec: str, endings: tuple[str, ...] = ENDINGS) -> Files:
    """The readable files of a path or pattern.

    Hidden files are left out, and in folders and patterns those with another ending.

    Raises:
        RaptrError: there is none.
    """
    path, there = Path(spec).expanduser(), Files()
    if path.is_dir():
        found = _named((folder / name for folder, names in _folders(path, there) for name in names), path)
    elif not path.exists() and glob.has_magic(spec):
        parts = path.parts
        fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed])  # names begin at the last folder before the first wildcard
        found = _named(_matches(root, parts[fixed:], there), root)
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
        return Files(files=[(path.name, path)])
    there.files.extend((name, file) for name, file in found if name.endswith(endings))
    others = [file for name, file in found if not name.endswith(endings)]
    there.unread.update({file: _kind(file) for file in others})
    if not there.files:
        seen = ", ".join(f"{count} of {kind}" for kind, count in Counter(map(_kind, others)).most_common(8))
        closed = "".join(f" {folder} cannot be read ({reason})." for folder, reason in there.unreadable.items())
        raise RaptrError(
            f"{spec}: no file there can be read; expected names that end in {_EXPECTED}, seen: "
            f"{seen or 'nothing at all'}.{closed}"
        )
    return there


def _named(files: Iterable[Path], root: Path) -> list[tuple[str, Path]]:
    return sorted({(file.relative_to(root).as_posix(), file) for file in files})


def _kind(file: Path) -> str:
    return "broken link" if file.is_symlink() and not file.exists() else file.suffix or "no ending"


def _folders(root: Path, there: Files) -> Iterator[tuple[Path, list[str]]]:
    """A folder and its subfolders with the names of their files, each folder once: first by paths without links."""
    seen: set[tuple[int, int]] = set()
    starts = deque([root])
    while starts:
        for folder, subfolders, names in os.walk(starts.popleft(), onerror=lambda error: _unreadable(error, there)):
            try:
                state = Path(folder).stat()
            except OSError as error:
                _unreadable(error, there)
                continue
            hidden = [name for name in (*subfolders, *names) if name.startswith(".")]
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            if (state.st_dev, state.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            there.unread.update({Path(folder, name): "hidden" for name in hidden})
            for link in (Path(folder, name) for name in subfolders if Path(folder, name).is_symlink()):
                here = Path(folder).resolve()
                if link.resolve() in (here, *here.parents):
                    there.unread[link] = "link to a folder above it"
                else:
                    starts.append(link)
            yield Path(folder), [name for name in names if not name.startswith(".")]


def _unreadable(error: OSError, there: Files) -> None:
    there.unreadable[Path(error.filename)] = error.strerror or str(error)


def _matches(folder: Path, parts: Sequence[str], there: Files) -> Iterator[Path]:
    """Files below a folder that match the parts of a pattern, of which ``**`` stands for any number of folders."""
    many = parts.index("**") if "**" in parts else len(parts)
    found = glob.glob(str(Path(*parts[:many])), root_dir=folder) if many else ["."]  # noqa: PTH207
    for path in (folder / name for name in found):
        if many == len(parts):
            if not path.is_dir():
                yield path
        elif path.is_dir():
            rest = tuple(itertools.dropwhile(lambda part: part == "**", parts[many:])) or ("*",)
            for subfolder, _ in _folders(path, there):
                yield from _matches(subfolder, rest, there)
