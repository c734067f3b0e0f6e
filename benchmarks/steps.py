"""Do steps of the evidence's models take as long as their FLOPs say? So that FLOPs saved there can be read as time.

    python benchmarks/steps.py                        # some minutes on one core
    python benchmarks/steps.py --tiny --output x.json # in seconds, to see that it works

The runs of benchmarks/evidence shared their machine, so that their seconds say little. This measures the efficiency of
skipping (speed/skipping.py says what it is) on the same models and batches: the steps of 3, 6, 9 and 12 layers take
turns, by the processor time of one thread, as a run of the evidence has one. The answers go to
benchmarks/results/steps.json, from which `python benchmarks/evidence/draw.py` makes a table of docs/results.md.
"""

import argparse
from pathlib import Path

import torch

from evidence.questions import sizes
from speed.cases import Case, bert, llama, tiny
from speed.clock import Clock
from speed.record import RESULTS, ask, record
from speed.skipping import skipping

SCHEDULE = "3-6-9-12"
SHARED = {"vocab_size": 1024, "num_hidden_layers": 12}


def llama_of(width: int) -> Case:
    """A causal model of the evidence."""
    return llama(f"Llama, {width} wide", SCHEDULE, 16, 128, tie_word_embeddings=True, **sizes(width), **SHARED)


BERT = bert("BERT, 32 wide", SCHEDULE, 16, 128, hidden_size=32, intermediate_size=128, num_attention_heads=1, **SHARED)
CASES = (*map(llama_of, (32, 64, 128)), BERT)


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=48)
    parser.add_argument("--tiny", action="store_true", help="small models and two rounds, to see that it works")
    parser.add_argument("--output", type=Path, default=RESULTS / "steps.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock, rounds = Clock("cpu"), 2 if args.tiny else args.rounds
    questions = {}
    for case in CASES:
        chosen = tiny(case) if args.tiny else case
        questions[case.name] = lambda case=chosen: skipping(case, "cpu", rounds, clock, bf16=False, compile=False)
    record(ask(questions, None), args.output, None, clock=clock.name, tiny=args.tiny, rounds=rounds)


if __name__ == "__main__":
    main()
