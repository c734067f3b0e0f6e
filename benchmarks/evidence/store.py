"""What is kept of a comparison: raptr's own files without weights, so that `raptr report` and `raptr compare` read it.

Of `metrics.jsonl` all evaluations and boundaries are kept, and of the training steps `LINES` evenly spaced ones: the
curves of the validation loss are whole, those of the training loss coarse. A report shows the recorded jumps at
boundaries, without the line of the training loss around them. Its map of paths is whole: the steps between are those
of the plan, which config.yaml names (raptr.report.recorded_paths).
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

LINES = 40

OF_A_RUN = ("config.yaml", "run.json", "result.json")
OF_A_COMPARISON = ("comparison.yaml", "comparison.json", "clock.json", "sweep.json")


def missing(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of these runs that are not kept in a comparison's folder."""
    return [name for name in names if not (folder / name / "result.json").exists()]


def finished(folder: Path) -> Iterator[Path]:
    """The finished runs in a comparison's folder, the trials of its sweep too."""
    for pattern in ("*/result.json", "sweep/*/result.json"):
        yield from (path.parent for path in sorted(folder.glob(pattern)))


def keep(folder: Path, to: Path) -> None:
    """Copy what is finished in a comparison's folder and not kept yet."""
    for run in finished(folder):
        kept = to / run.relative_to(folder)
        if (kept / "result.json").exists():
            continue
        kept.mkdir(parents=True, exist_ok=True)
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        (kept / "metrics.jsonl").write_text("".join(f"{line}\n" for line in thinned(lines)), encoding="utf-8")
        for name in OF_A_RUN:  # the result last: its presence says that the run is kept
            shutil.copyfile(run / name, kept / name)
    for name in OF_A_COMPARISON:
        if (folder / name).exists():
            to.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, to / name)


def bring_back(kept: Path, folder: Path) -> None:
    """Put what is kept into a folder in which the comparison goes on; what is there already stays."""
    for path in sorted(kept.rglob("*")):
        target = folder / path.relative_to(kept)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def thinned(lines: list[str]) -> list[str]:
    """The lines of a metrics file with `LINES` training steps.

    Example:
        >>> many = [json.dumps({"kind": "train", "step": step}) for step in range(1, 401)]
        >>> [json.loads(line)["step"] for line in thinned(many)][:3]
        [1, 11, 21]
    """
    steps = [number for number, line in enumerate(lines) if json.loads(line)["kind"] == "train"]
    dropped = set(steps) - set(steps[:: max(1, len(steps) // LINES)]) - {steps[-1]} if steps else set()
    return [line for number, line in enumerate(lines) if number not in dropped]
