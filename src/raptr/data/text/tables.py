"""Records from tables, a batch of rows at a time and only the columns that are used: .parquet and .arrow."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from raptr.data.text.records import Choice, Record, missing
from raptr.data.text.skipped import Omitted
from raptr.messages import first_line

if TYPE_CHECKING:
    import pyarrow

_ROWS = 64  # at a time: documents can be long


def read_parquet(name: str, path: Path, choice: Choice, omitted: Omitted) -> Iterator[Record]:
    """The rows of a .parquet file, row group by row group; a broken one is skipped."""
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (ArrowException, OSError) as error:
        omitted.skip("broken file", f"{path}: not a whole .parquet file ({first_line(error)}); write it again.")
        return
    with file:
        try:
            columns = choice.roots(file.schema_arrow.names)
        except KeyError as error:
            told = missing(str(path), error.args[0], file.schema_arrow.names)
            omitted.skip("no such column", told, max(1, file.metadata.num_rows))
            return
        start = 0
        for group in range(file.num_row_groups):
            try:
                batches = file.iter_batches(_ROWS, row_groups=[group], columns=columns)
                yield from _rows(name, path, batches, start, omitted)
            except (ArrowException, OSError) as error:
                told = f"{path}: row group {group} is broken ({first_line(error)}); write it again."
                omitted.skip("broken file", told)
            start += file.metadata.row_group(group).num_rows


def read_arrow(name: str, path: Path, choice: Choice, omitted: Omitted) -> Iterator[Record]:
    """The rows of an .arrow file, in the stream or the file format of Arrow's IPC; where it is broken, those before."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            try:
                reader = pyarrow.ipc.open_file(file)
                batches: Iterable[pyarrow.RecordBatch] = map(reader.get_batch, range(reader.num_record_batches))
            except pyarrow.ArrowInvalid:
                file.seek(0)
                batches = reader = pyarrow.ipc.open_stream(file)
            try:
                columns = choice.roots(reader.schema.names)
            except KeyError as error:
                omitted.skip("no such column", missing(str(path), error.args[0], reader.schema.names))
                return
            pieces = (part for batch in batches for part in _pieces(_sound(batch.select(columns))))
            yield from _rows(name, path, pieces, 0, omitted)
    except (pyarrow.ArrowException, OSError) as error:
        omitted.skip("broken file", f"{path}: not a whole .arrow file ({first_line(error)}); write it again.")


def _sound(batch: "pyarrow.RecordBatch") -> "pyarrow.RecordBatch":
    """The same batch; Arrow does not check its offsets, which in a broken file lead anywhere in memory.

    Raises:
        pyarrow.ArrowInvalid: they do not stay in the batch.
    """
    for column in batch.columns:
        _check_offsets(column)
    return batch


def _check_offsets(array: "pyarrow.Array") -> None:
    from pyarrow import types

    if types.is_struct(array.type):
        array.validate()
        for part in array.flatten():
            _check_offsets(part)
    elif types.is_string(array.type):  # as bytes: texts that are not UTF-8 are bad records, each by itself
        array.view("binary").validate(full=True)
    elif types.is_large_string(array.type):
        array.view("large_binary").validate(full=True)
    else:
        array.validate(full=True)


def _pieces(batch: "pyarrow.RecordBatch") -> Iterator["pyarrow.RecordBatch"]:
    return (batch.slice(start, _ROWS) for start in range(0, batch.num_rows, _ROWS))


def _rows(
    name: str, path: Path, batches: Iterable["pyarrow.RecordBatch"], start: int, omitted: Omitted
) -> Iterator[Record]:
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:  # Arrow does not check its texts
            rows = [_row(batch.slice(place, 1)) for place in range(batch.num_rows)]
        for number, row in enumerate(rows, start=start + 1):
            place = f"{path}, row {number}"
            if row is None:
                omitted.skip("not UTF-8", f"{place}: not UTF-8; write the file again from text that is.")
            else:
                yield Record(f"{name}:{number}", place, row)
        start += len(rows)


def _row(batch: "pyarrow.RecordBatch") -> dict[str, object] | None:
    try:
        row: dict[str, object] = batch.to_pylist()[0]
        return row
    except UnicodeDecodeError:
        return None
