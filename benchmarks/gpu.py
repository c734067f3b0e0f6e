"""How fast raptr is on one GPU: as fast as the FLOPs say?

    python benchmarks/gpu.py                        # all of it, under 8 minutes; no network
    python benchmarks/gpu.py --only skipping        # some of it
    python benchmarks/gpu.py --tiny --output x.json # in seconds, to see that it works; on the CPU where there is no GPU

BERT-base at 512 tokens and a Llama of 1.2 B parameters at 2,048, in mixed precision (bfloat16), each layer compiled by
itself; whole runs as `raptr train` makes them, without compilation. Each question is a file in benchmarks/speed, where
it says what is measured. Answers go to benchmarks/results/gpu.json, from which `python benchmarks/performance.py`
makes docs/performance.md.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from speed.cases import GPU, tiny
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
    parser.add_argument("--rounds", type=int, default=20, help="of each measurement of single steps")
    parser.add_argument("--runs", type=int, default=2, help="rounds of whole runs")
    parser.add_argument("--steps", type=int, default=120, help="of a whole run")
    parser.add_argument("--only", nargs="+", metavar="QUESTION")
    parser.add_argument("--tiny", action="store_true", help="small models and few rounds, to see that it works")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    args = parser.parse_args()
    if not (torch.cuda.is_available() or args.tiny):
        parser.error("there is no GPU that torch can use; with --tiny the CPU is used instead")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")  # what is not in bfloat16 then runs on tensor cores too
    clock = Clock(device)
    rounds, whole, steps = (2, 1, 4) if args.tiny else (args.rounds, args.runs, args.steps)
    cases = [tiny(case) for case in GPU] if args.tiny else list(GPU)

    def each(question: Callable[..., Any], of: list[Any], *given: Any, **named: Any) -> Callable[[], Any]:
        return lambda: {case.name: question(case, device, *given, **named) for case in of}

    compiled = {"bf16": True, "compile": True}
    results = ask(
        {
            "peak": lambda: matmul_peak(device, 256 if args.tiny else 8192, rounds, clock, bf16=True),
            "graphs": each(graphs, cases, bf16=True),
            "skipping": each(skipping, cases, rounds, clock, **compiled),
            "overhead": each(overhead, cases, rounds, clock, **compiled),
            "memory": each(memory, cases, **compiled),
            "choosing": lambda: choosing(*((2, 10) if args.tiny else (10, 300))),
            "runs": each(runs, cases[:1], whole, steps, bf16=device == "cuda"),
            "peers": each(peers, cases[:1], rounds, clock, bf16=True),
        },
        args.only,
    )
    record(results, args.output, args.only, clock=clock.name, tiny=args.tiny, rounds=rounds, runs=whole)


if __name__ == "__main__":
    main()
