"""Documents from files: .txt (a file is a document) and .jsonl (a line is), plain, .xz or .gz."""

import gzip
import json
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from raptr.errors import RaptrError

_PACKED = (".xz", ".gz")
ENDINGS = tuple(kind + packed for kind in (".txt", ".jsonl") for packed in ("", *_PACKED))
_EXPECTED = ".txt or .jsonl, plain or packed as .xz or .gz"


def read_files(spec: str, text_field: str = "text") -> Iterator[tuple[str, bytes]]:
    """The (name, UTF-8 text) of every document of a file, or of a folder and its subfolders.

    Files come in the order of their relative names; hidden ones are left out. A .txt file is one
    document. A line of a .jsonl file is one: a JSON object with the text under ``text_field``; lines
    without any character but white space are skipped.

    Args:
        spec: the path of a file or folder.
        text_field: the field of a .jsonl line that holds the text.

    Returns:
        An iterator that holds one document at a time. Names are relative to the folder.

    Raises:
        RaptrError: a missing path, no file with a known ending, a line that is not such an object, text
            that is not UTF-8, a packed file that is broken or cut off. The message names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("Hello.")
        ...     list(read_files(folder))
        [('a.txt', b'Hello.')]
    """
    for name, path in find_files(spec):
        yield from _documents(name, path, text_field)


def find_files(spec: str) -> list[tuple[str, Path]]:
    """The readable files of a path with their relative names, in the order of the names."""
    path = Path(spec).expanduser()
    if path.is_dir():
        found = sorted((file.relative_to(path).as_posix(), file) for file in _walk(path))
        files = [(name, file) for name, file in found if name.endswith(ENDINGS)]
        if not files:
            raise RaptrError(
                f"{spec}: no file of this folder can be read; expected names that end in {_EXPECTED}, seen: "
                f"{_endings([file for _, file in found])}."
            )
        return files
    if not path.exists():
        raise RaptrError(
            f"{spec}: there is no such file or folder; give 'builtin:python', or the path of a file or folder of "
            f"{_EXPECTED}."
        )
    if not path.name.endswith(ENDINGS):
        raise RaptrError(f"{spec}: expected a file name that ends in {_EXPECTED}; convert or rename the file.")
    return [(path.name, path)]


def _walk(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _endings(paths: list[Path]) -> str:
    counts = Counter(path.suffix or "no ending" for path in paths)
    return ", ".join(f"{count} of {ending}" for ending, count in counts.most_common(8)) or "nothing at all"


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _documents(name: str, path: Path, text_field: str) -> Iterator[tuple[str, bytes]]:
    try:
        with _open(path) as file:
            if Path(name.removesuffix(path.suffix) if path.suffix in _PACKED else name).suffix == ".txt":
                content = file.read()
                _decoded(content, str(path))
                yield name, content
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{name}:{number}", _text(line, f"{path}, line {number}", text_field)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise RaptrError(
            f"{path}: the packed file is broken or cut off ({error}); pack or download it again."
        ) from error
    except OSError as error:
        raise RaptrError(f"{path}: the file cannot be read ({error.strerror or error}).") from error


def _text(line: bytes, place: str, text_field: str) -> bytes:
    try:
        row = json.loads(_decoded(line, place))
    except RaptrError:
        raise
    except (ValueError, RecursionError) as error:
        raise RaptrError(
            f'{place}: not JSON ({error}); expected one object a line, like {{"{text_field}": "..."}}.'
        ) from error
    if not isinstance(row, dict):
        raise RaptrError(
            f'{place}: a JSON {type(row).__name__}; expected one object a line, like {{"{text_field}": "..."}}.'
        )
    if text_field not in row:
        seen = ", ".join(repr(field) for field in row) or "none"
        raise RaptrError(
            f"{place}: there is no field {text_field!r}; seen: {seen}. Set text_field to the one that holds the text."
        )
    text = row[text_field]
    if not isinstance(text, str):
        raise RaptrError(f"{place}: the field {text_field!r} holds a {type(text).__name__}; expected text.")
    try:
        return text.encode("utf8")
    except UnicodeEncodeError as error:
        raise RaptrError(
            f"{place}: the text holds half of a surrogate pair at character {error.start}, which is no character; "
            "remove it."
        ) from error


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode("utf8")
    except UnicodeDecodeError as error:
        raise RaptrError(
            f"{place}: not UTF-8 (byte 0x{content[error.start]:02x} at {error.start}); convert the file to UTF-8."
        ) from error
