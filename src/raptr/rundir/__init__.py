"""The format of a run folder, in one place: for those who write its files, and for those who read them.

``paths`` holds the names of the files, atomic writing and checked reading; ``json_record`` turns the dataclasses of
the records into JSON objects. There is one dataclass for each kind of record: the lines of metrics.jsonl are in
``metrics_lines``, run.json, result.json and comparison.json in ``run_record``. ``boundary_jump`` defines the jump of
the loss at a stage boundary, for the run that records it and for the report of a folder without such a record.
"""

from raptr.rundir.boundary_jump import jump_of, windows
from raptr.rundir.metrics_lines import BoundaryLine, EvalLine, Totals, TrainLine
from raptr.rundir.paths import read_json, recorded, write_bytes, write_json, write_text
from raptr.rundir.run_record import ComparisonInfo, Result, RunInfo, read_result

__all__ = [
    "BoundaryLine",
    "ComparisonInfo",
    "EvalLine",
    "Result",
    "RunInfo",
    "Totals",
    "TrainLine",
    "jump_of",
    "read_json",
    "read_result",
    "recorded",
    "windows",
    "write_bytes",
    "write_json",
    "write_text",
]
