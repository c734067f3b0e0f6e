"""Train a tiny model for many steps, and see whether anything grows that should not.

    python benchmarks/long.py --steps 20000                   # exit code 1 if a limit is broken
    python benchmarks/long.py --steps 3000 --output long.json

The run is one of `raptr train`'s own, on paths of one size, so that every step costs the same. Now and then, after a
step, all garbage is collected and the process is looked at: its resident memory, Python's allocated blocks, its open
files, the size of the newest checkpoint. A line is fitted to what was seen after the first quarter. The time of a step
is the run's own, from metrics.jsonl: the median of the last quarter over that of the second. At the end metrics.jsonl
is cut off, as a kill would do it, at every byte of its last lines and at random ones before, and read by what reports
read it with: every whole line must be found, and nothing may be raised.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from raptr.config import RunConfig, parse
from raptr.results.metric_arrays import read_metrics
from raptr.train.collect_run_info import describe_environment
from raptr.train.engine import train
from raptr.train.stop_request import Stop
from raptr.train.task import prepare_task

LAYERS = 4
LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may reach.

    Attributes:
        memory: slope of resident memory, MB per 1,000 steps; the log of all steps was 0.46.
        blocks: slope of Python's allocated blocks per step; one entry of a log is 15 or more.
        files: how many more files may be open at one time than at another.
        checkpoint: how many bytes the last checkpoint may be larger than the first.
        slowdown: time of a step, the last quarter over the second.
    """

    memory: float = 0.2
    blocks: float = 2.0
    files: int = 0
    checkpoint: int = 1024
    slowdown: float = 1.15


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a process was like after a step; ``checkpoint`` is the size of the newest one in bytes, 0 without one."""

    step: int
    memory: int
    blocks: int
    files: int
    checkpoint: int


class Watch(Stop):
    """Is asked after every step whether the run is to stop: it is not, but looks at the process every so many steps."""

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__()
        self.samples: list[Sample] = []
        self._folder, self._every, self._step, self._process = folder, every, 0, psutil.Process()

    @property
    def reason(self) -> str | None:
        """None, so that the run goes on to its end."""
        self._step += 1
        if self._step % self._every == 0:
            gc.collect()
            self.samples.append(
                Sample(
                    step=self._step,
                    memory=self._process.memory_info().rss,
                    blocks=sys.getallocatedblocks(),
                    files=self._process.num_fds(),
                    checkpoint=newest_size(self._folder),
                )
            )
        return None


def newest_size(folder: Path) -> int:
    """The bytes of a run's newest checkpoint."""
    found = sorted((int(path.name.partition("-")[2]), path) for path in folder.glob("checkpoints/checkpoint-*"))
    return sum(path.stat().st_size for path in found[-1][1].iterdir()) if found else 0


def config_of(steps: int, saves: int) -> RunConfig:
    """A run of a few milliseconds a step, which is saved and validated so many times."""
    often = max(steps // saves, 1)
    return parse(
        {
            "name": "long",
            "method": "constant_size",
            "methods": {"constant_size": {"size": "3"}},
            "model": {"architecture": "llama", "config": LLAMA},
            "data": {"max_bytes": 200_000, "tokenizer": 320, "sequence_length": 16},
            "training": {"max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
            "evaluation": {"every": often, "sequences": 8},
            "checkpoints": {"every": often},
        },
        "long",
    )


def watched(steps: int, samples: int, saves: int, folder: Path, cache: Path) -> list[Sample]:
    """Train, and what was seen meanwhile."""
    watch = Watch(folder, max(steps // samples, 1))
    train(prepare_task(config_of(steps, saves), cache), folder, console=Console(quiet=True), stop=watch)
    return watch.samples


def figures(samples: Sequence[Sample], seconds: Sequence[float]) -> dict[str, Any]:
    """Slopes, growth and times.

    Args:
        samples: those of the first quarter are left out.
        seconds: the clock of the run after each of its steps.
    """
    late = [sample for sample in samples if sample.step > len(seconds) / 4]
    sizes = [sample.checkpoint for sample in samples if sample.checkpoint]
    took, quarter = np.diff(seconds, prepend=0), len(seconds) // 4
    before, after = (statistics.median(part) for part in (took[quarter : 2 * quarter], took[-quarter:]))
    return {
        "memory_mb_per_1000_steps": slope(late, "memory") * 1000 / 1e6,
        "memory_mb": [late[0].memory / 1e6, late[-1].memory / 1e6],
        "blocks_per_step": slope(late, "blocks"),
        "open_files": [min(sample.files for sample in late), max(sample.files for sample in late)],
        "checkpoint_bytes": [sizes[0], sizes[-1]],
        "ms_per_step": [1000 * before, 1000 * after],
    }


def slope(samples: Sequence[Sample], name: str) -> float:
    """What a step adds, by the line with the least squares."""
    values = [getattr(sample, name) for sample in samples]
    return float(np.polyfit([sample.step for sample in samples], values, 1)[0])


def broken(found: dict[str, Any], limits: Limits) -> list[str]:
    """The limits that were not kept."""
    (fewest, most), (first, last), (before, after) = (
        found[name] for name in ("open_files", "checkpoint_bytes", "ms_per_step")
    )
    checks = {
        f"memory grows by {found['memory_mb_per_1000_steps']:.3f} MB per 1,000 steps, over {limits.memory}": (
            found["memory_mb_per_1000_steps"] > limits.memory
        ),
        f"each step leaves {found['blocks_per_step']:.2f} blocks behind, over {limits.blocks}": (
            found["blocks_per_step"] > limits.blocks
        ),
        f"between {fewest} and {most} files were open": most - fewest > limits.files,
        f"checkpoints grew from {first} to {last} bytes": last - first > limits.checkpoint,
        f"a step took {after:.2f} ms after {before:.2f} ms": after / before > limits.slowdown,
    }
    return [what for what, wrong in checks.items() if wrong]


def places(content: bytes, count: int, seed: int = 0) -> list[int]:
    """Where a file is cut: at every byte of its last two lines, and at so many bytes before them."""
    lines = content.splitlines(keepends=True)
    last = len(content) - sum(map(len, lines[-2:]))
    earlier = random.Random(seed).sample(range(last), min(count, last))
    return sorted(earlier) + list(range(last, len(content) + 1))


def unreadable(content: bytes, cuts: Sequence[int], place: Path) -> list[str]:
    """What is wrong with metrics that were cut off at these bytes: lines that were whole and not found, and errors.

    Args:
        content: of a metrics.jsonl.
        cuts: the bytes.
        place: a file that is written over and over.
    """
    wrong, lines, ends = [], [], [0]
    for line in content.splitlines(keepends=True):
        lines.append(json.loads(line))
        ends.append(ends[-1] + len(line))
    for cut in cuts:
        place.write_bytes(content[:cut])
        whole = [record for record, end in zip(lines, ends[1:], strict=True) if end - 1 <= cut]  # a line end may lack
        try:
            train, evals, _ = read_metrics(place, (LAYERS,))
        except Exception as error:  # whatever it is, it must not happen
            wrong.append(f"cut at byte {cut}: {error!r}")
            continue
        for kind, records, column in (("train", train, "loss"), ("eval", evals, "eval_loss")):
            expected = [(record["step"], record[column]) for record in whole if record["kind"] == kind]
            if list(zip(records.step.tolist(), records.columns[column].tolist(), strict=True)) != expected:
                wrong.append(f"cut at byte {cut}: the lines of kind {kind} are others")
    return wrong


def clock(content: bytes) -> list[float]:
    """The run's clock after each of its steps."""
    return [record["seconds"] for record in map(json.loads, content.splitlines()) if record["kind"] == "train"]


def main() -> int:
    """Train, look, cut, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--samples", type=int, default=100, help="how often the process is looked at")
    parser.add_argument("--saves", type=int, default=20, help="checkpoints and validations")
    parser.add_argument("--cuts", type=int, default=200, help="random places, besides the last lines")
    for name, limit in asdict(Limits()).items():
        parser.add_argument(f"--limit-{name}", type=type(limit), default=limit, dest=name)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    disable_progress_bar()
    limits, start = Limits(**{name: getattr(args, name) for name in asdict(Limits())}), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = watched(args.steps, args.samples, args.saves, folder / "run", folder / "cache")
        content = (folder / "run" / "metrics.jsonl").read_bytes()
        cuts = places(content, args.cuts)
        wrong = unreadable(content, cuts, folder / "cut.jsonl")
    found = {"steps": len(clock(content)), **figures(samples, clock(content)), "cuts": len(cuts)}
    failures = [*broken(found, limits), *wrong]
    for key, value in found.items():
        print(f"{key:26}{' to '.join(f'{one:,.6g}' for one in (value if isinstance(value, list) else [value]))}")
    print(*(failures or ["nothing grows, and every whole line is read after every cut"]), sep="\n")
    if args.output:
        told = {
            "machine": describe_environment(),
            "limits": asdict(limits),
            "results": found,
            "failures": failures,
            "samples": [asdict(sample) for sample in samples],
            "seconds": round(time.monotonic() - start, 1),
        }
        args.output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
