"""Records from text files: a .txt file is one, a line of a .jsonl file is one; plain, .gz, .xz or .zst."""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from raptr.data.text.records import Record
from raptr.data.text.skipped import Omitted

PACKED = (".gz", ".xz", ".zst")


def open_packed(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked as its ending says."""
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def read_whole(name: str, path: Path, column: str, omitted: Omitted) -> Iterator[Record]:
    """A .txt file as one record, whose only column is the text."""
    with _reported(path, omitted), open_packed(path) as file:
        text = _decoded(file.read(), str(path), omitted)
        if text is not None:
            yield Record(name, str(path), {column: text})


def read_lines(name: str, path: Path, omitted: Omitted) -> Iterator[Record]:
    """The lines of a .jsonl file; where it is broken, those before."""
    with _reported(path, omitted), open_packed(path) as file:
        # No name here: a record of a long line would be kept while its text is used.
        yield from filter(
            None,
            (
                _record(f"{name}:{number}", f"{path}, line {number}", line, omitted)
                for number, line in enumerate(file, start=1)
                if line.strip()
            ),
        )


def _record(name: str, place: str, line: bytes, omitted: Omitted) -> Record | None:
    """What a line says; None, and reported, where it says nothing."""
    text = _decoded(line, place, omitted)
    if text is None:
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        omitted.skip("not JSON", f"{place}: not JSON ({error}); expected one object a line.")
        return None
    if not isinstance(row, dict):
        omitted.skip("not an object", f"{place}: a JSON {type(row).__name__}; expected one object a line.")
        return None
    return Record(name, place, row)


@contextmanager
def _reported(path: Path, omitted: Omitted) -> Iterator[None]:
    """Report a packed file that breaks off, and end its reading there."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        zstd = path.suffix == ".zst" and isinstance(error, OSError) and error.errno is None
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and not zstd:
            raise
        omitted.skip(
            "broken file", f"{path}: the packed file is broken or cut off ({error}); pack or download it again."
        )


def _decoded(content: bytes, place: str, omitted: Omitted) -> str | None:
    try:
        return content.decode("utf8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{content[error.start]:02x} at {error.start}"
        omitted.skip("not UTF-8", f"{place}: not UTF-8 ({byte}); convert the file to UTF-8.")
        return None
