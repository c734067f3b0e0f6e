"""How fast raptr is on a CPU: as fast as the FLOPs say?

    python benchmarks/cpu.py                        # all of it, under 15 minutes on two cores
    python benchmarks/cpu.py --only skipping peers  # some of it
    python benchmarks/cpu.py --threads 1            # by the processor time of one thread, on a machine that others use
    python benchmarks/cpu.py --tiny --output x.json # in seconds, to see that it works

Each question is a file in benchmarks/speed, where it says what is measured. Answers go to
benchmarks/results/cpu.json, from which `python benchmarks/performance.py` makes docs/performance.md.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from raptr.data.tokens.encode_pool import cores
from speed.cases import CPU, tiny
from speed.choosing import choosing
from speed.clock import Clock
from speed.graphs import graphs
from speed.memory import memory
from speed.overhead import overhead
from speed.peak import matmul_peak
from speed.peers import peers
from speed.record import RESULTS, ask, record
from speed.runs import runs
from speed.skipping import skipping


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="of each measurement of single steps")
    parser.add_argument("--runs", type=int, default=3, help="rounds of whole runs")
    parser.add_argument("--steps", type=int, default=16, help="of a whole run")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", nargs="+", metavar="QUESTION")
    parser.add_argument("--tiny", action="store_true", help="small models and few rounds, to see that it works")
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = Clock("cpu")
    rounds, whole, steps = (2, 1, 4) if args.tiny else (args.rounds, args.runs, args.steps)
    cases = [tiny(case) for case in CPU] if args.tiny else list(CPU)
    small = [tiny(case) for case in CPU]
    # What being attached costs is the same for every batch: of the smallest its share is largest, and a turn shortest,
    # so that a machine whose speed changes changes it between rounds rather than within them.
    least = [replace(case, batch=1, length=min(case.length, 16)) for case in cases]

    def each(question: Callable[..., Any], of: list[Any], *given: Any, **named: Any) -> Callable[[], Any]:
        return lambda: {case.name: question(case, "cpu", *given, **named) for case in of}

    eager = {"bf16": False, "compile": False}
    results = ask(
        {
            # first, in a process that has neither trained nor compiled
            "choosing": lambda: choosing(*((2, 10) if args.tiny else (10, 300))),
            "skipping": each(skipping, cases, rounds, clock, **eager),
            "overhead": each(overhead, least, 16 * rounds, clock, **eager),
            "memory": each(memory, cases, **eager),
            "graphs": each(graphs, small, bf16=False),
            "runs": each(runs, cases[:1], whole, steps, bf16=False),
            "peers": each(peers, cases[:1], rounds, clock, bf16=False),
            "peak": lambda: matmul_peak("cpu", 256 if args.tiny else 2048, rounds, clock, bf16=False),
        },
        args.only,
    )
    record(results, args.output, args.only, clock=clock.name, tiny=args.tiny, rounds=rounds, runs=whole)


if __name__ == "__main__":
    main()
