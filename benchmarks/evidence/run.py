"""Run, or go on with, the comparisons that answer the questions of docs/results.md.

    python benchmarks/evidence/run.py                           # all of them: days
    python benchmarks/evidence/run.py recipe --max-minutes 60   # one question, for an hour; the same command goes on
    python benchmarks/evidence/run.py tuned --workers 1         # one comparison, with all cores for each run
    python benchmarks/evidence/run.py gpu --workers 1 --max-minutes 9    # on a machine with one GPU
    python benchmarks/evidence/run.py --list                    # what there is, and what is missing
    python benchmarks/evidence/run.py --tiny --stored X         # a few steps of each, to see that it works

Runs of a comparison are trained side by side, by default one for each core with one thread, so that their losses are
of use and their seconds are not: it is an ordinary `raptr compare --workers`. What is finished is kept in
benchmarks/evidence/stored, without weights, and is not run again; anything else that a run needs is in --work.
"""

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path

import torch
from questions import Comparison, comparisons
from store import bring_back, keep, missing

from raptr.data.tokens.encode_pool import cores

STORED = Path(__file__).parent / "stored"

TINY = (
    "training.use_cpu=true",
    "training.max_steps=8",
    "training.per_device_train_batch_size=2",
    "data.max_bytes=200_000",
    "data.tokenizer=512",
    "data.sequence_length=32",
    "evaluation.sequences=8",
)
"""Values of a run of seconds, on the CPU."""

STOPPED = 75
"""The exit code of a run that was stopped by the clock."""


class Runner:
    """Trains what is missing of a comparison.

    Args:
        stored: where what is finished is kept.
        work: where runs are trained.
        workers: runs at a time.
        minutes: after which no run is begun, and those that run are stopped; None for never.
        more: values for every comparison.
    """

    def __init__(self, stored: Path, work: Path, workers: int, minutes: float | None, more: tuple[str, ...]) -> None:
        self._stored, self._work, self._workers, self._more = stored, work, workers, more
        self._until = None if minutes is None else time.monotonic() + 60 * minutes

    def missing(self, comparison: Comparison, names: list[str]) -> list[str]:
        """Those of its runs that are not kept."""
        return missing(self._stored / comparison.name, names)

    def run(self, comparison: Comparison) -> bool:
        """Train what is missing; whether all of it is there."""
        folder = self._work / comparison.name
        bring_back(self._stored / comparison.name, folder)
        for names in (comparison.trials(), comparison.runs()):  # the trials choose what the others are trained with
            left = self.missing(comparison, names)
            if not left:
                continue
            if self._minutes() < 0.2:
                return False
            if self._train(comparison, folder, left) not in (0, STOPPED):
                raise SystemExit(f"{comparison.name}: a run failed; {self._work / 'log.txt'} says why")
            if self.missing(comparison, names):
                return False
        return True

    def _minutes(self) -> float:
        """Until the clock stops it."""
        return math.inf if self._until is None else (self._until - time.monotonic()) / 60

    def _train(self, comparison: Comparison, folder: Path, names: list[str]) -> int:
        """Train these runs, and keep what is finished meanwhile; the exit code."""
        limit = [] if self._until is None else ["--max-minutes", f"{self._minutes():.2f}"]
        options = ["--only", ",".join(names), "--workers", str(self._workers), *limit]
        command = [sys.executable, "-m", "raptr", *comparison.command(folder, *options), *self._more]
        self._work.mkdir(parents=True, exist_ok=True)
        with (self._work / "log.txt").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while names:
                ended = process.poll() is not None
                keep(folder, self._stored / comparison.name)
                left = self.missing(comparison, names)
                for name in names:
                    if name not in left:
                        print(f"{comparison.name}: {name}", flush=True)
                names = left
                if ended:
                    break
                time.sleep(2)
        except KeyboardInterrupt:  # which it has heard too
            process.wait()
            raise
        code = process.wait()
        keep(folder, self._stored / comparison.name)  # what was chosen, too
        return code


def main() -> int:
    """Run what was asked for; 75 if the clock stopped it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="questions or comparisons; all if none is named")
    parser.add_argument("--workers", type=int, default=cores(), help="runs at a time")
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--stored", type=Path, default=STORED)
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--list", action="store_true", help="what there is and what is missing; nothing is run")
    parser.add_argument("--tiny", action="store_true", help="eight steps of each run; give another --stored and --work")
    args = parser.parse_args()
    runner = Runner(args.stored, args.work, args.workers, args.max_minutes, TINY if args.tiny else ())
    ended = True
    for comparison in comparisons(args.names):
        names = [*comparison.trials(), *comparison.runs()]
        print(f"{comparison.name}: {len(names)} runs, {len(runner.missing(comparison, names))} missing", flush=True)
        if comparison.needs_gpu and not (args.list or args.tiny or torch.cuda.is_available()):
            print(f"{comparison.name}: left out, it needs a GPU", flush=True)
        elif not args.list:
            ended = runner.run(comparison) and ended
    return 0 if ended else STOPPED


if __name__ == "__main__":
    sys.exit(main())
