"""Whether the runs of a comparison were made from the same things."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from raptr.results.run_files import Run
from raptr.rundir.json_record import as_record

_WRONG = {
    ("data", "key"): "data",
    ("data", "content_hash"): "text",
    ("validation",): "validation sources",
    ("model", "parameters"): "number of parameters",
    ("flops",): "FLOPs of a step",
    ("environment", "raptr"): "version of raptr",
    ("environment", "torch"): "version of torch",
    ("environment", "transformers"): "version of transformers",
}
# What a control's model has of its own, and should.
_OF_SIZE = (("model", "parameters"), ("flops",))
_CLOCK = {
    ("environment", "device"): "device",
    ("environment", "cpu"): "processor",
    ("environment", "threads"): "number of threads",
}


def disagreements(runs: Sequence[Run]) -> tuple[str, ...]:
    """Returns what differs between runs that should differ in method and seed only, one sentence each.

    A run that does not say something is not held against the others, and the size of a control's model is its own.
    """
    equal = [run for run in runs if not run.control]
    wrong = [_differing(equal if path in _OF_SIZE else runs, path, name) for path, name in _WRONG.items()]
    clock = [_differing(runs, path, name) for path, name in _CLOCK.items()]
    return (
        *(f"Not comparable: {said}" for said in wrong if said),
        *(f"Seconds are not comparable: {said}" for said in clock if said),
    )


def trouble(name: str, runs: Sequence[Run]) -> tuple[str, ...]:
    """Returns what went wrong in runs of a method of this name, one sentence for each: updates that were not made.

    Runs of before, which do not say how many there were, are not held against anything.
    """
    said = []
    for run in runs:
        result = run.result
        if result is not None and result.skipped_updates:
            ended = f"; it diverged, and ended before {run.steps:,}" if result.diverged else ""
            said.append(
                f"{name}, seed {run.seed}: {result.skipped_updates:,} of {result.steps:,} updates were not made "
                f"(loss or gradient norm not finite){ended}."
            )
    return tuple(said)


def _differing(runs: Sequence[Run], path: tuple[str, ...], name: str) -> str:
    found: dict[str, list[str]] = {}
    for run in runs:
        value = _value(as_record(run.info), path)
        if value not in (None, {}):
            found.setdefault(json.dumps(value, sort_keys=True, default=str), []).append(run.folder.name)
    if len(found) < 2:
        return ""
    parts = [f"{value[:60]} in {_names(names)}" for value, names in found.items()]
    return f"the {name} is not the same in all runs: {'; '.join(parts)}."


def _value(info: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = info
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _names(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
