"""Kill runs at random moments, start them again with the same command, and compare their ends with runs in peace.

    python benchmarks/chaos.py --kills 100                    # exit code 1 if anything differs
    python benchmarks/chaos.py --kills 5 --only raptr-causal-0

A tiny model with dropout is trained by every combination of a method (RaPTr, gradual stacking, PLD) and an objective
(causal, masked, denoising in an encoder-decoder), with 0 and with 2 data workers in turn, two micro-steps a step, a
checkpoint every second step. Runs take turns until there were so many kills: SIGKILL when a run has recorded a random
number of bytes, and up to 30 ms later, so in the middle of a step, between micro-steps, at a boundary, or while a
checkpoint is written. At the end weights, the optimizer's state and every line of metrics.jsonl but its times are
those of the run that nobody killed.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from raptr.train.collect_run_info import describe_environment

STEPS, EVERY = 24, 2
TIMES = ("seconds", "tokens_per_second", "mfu")
METHODS = {
    "raptr": {"schedule": "2-3-4"},
    "gradual_stacking": {"schedule": "2-4"},
    "pld": {},
}
GPT2 = {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 16, "resid_pdrop": 0.2}
BERT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2, "feed_forward_proj": "gated-gelu"}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "causal": {"model": {"architecture": "gpt2", "config": GPT2}, "length": 16},
    "masked": {
        "model": {"architecture": "roberta-prelayernorm", "config": {**BERT, "max_position_embeddings": 32}},
        "length": 16,
    },
    "denoising": {
        "model": {"architecture": "t5", "config": T5},
        "length": 64,
        "objective": {"denoisers": {"R3": 0.5, "X8": 0.5}, "sentinels": 20},
    },
}


def config_of(method: str, objective: str, workers: int) -> dict[str, Any]:
    """A run that takes a few seconds."""
    given = OBJECTIVES[objective]
    return {
        "name": "chaos",
        "method": method,
        "methods": {method: METHODS[method]},
        "model": given["model"],
        "data": {"max_bytes": 300_000, "tokenizer": 320, "sequence_length": given["length"]},
        "objective": {"name": objective, **given.get("objective", {})},
        "training": {
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.01,
            "dataloader_num_workers": workers,
        },
        "evaluation": {"every": 6, "sequences": 8},
        "checkpoints": {"every": EVERY, "keep_last": True},
    }


class Run:
    """One run in peace and the same under fire, in a folder of their own."""

    def __init__(self, name: str, config: dict[str, Any], root: Path, cache: Path) -> None:
        self.name, self.kills, self.killed_at = name, 0, list[int]()
        self._file, self._cache = root / f"{name}.yaml", cache
        self._file.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.peace, self.fire = root / name / "peace", root / name / "fire"
        self._finished(self._start(self.peace))
        self.goal = recorded(self.peace)

    def kill_once(self, share: float, rng: random.Random) -> None:
        """Start it, and kill it when it has recorded so much of all."""
        process = self._start(self.fire)
        while process.poll() is None and recorded(self.fire) < share * self.goal:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            self.kills += 1
            self.killed_at.append(recorded(self.fire))
        else:
            self._finished(process)

    def finish(self) -> list[str]:
        """Let it come to its end; and what differs from the one in peace."""
        self._finished(self._start(self.fire))
        return differences(self.peace, self.fire)

    def _start(self, folder: Path) -> "subprocess.Popen[str]":
        return started(["train", str(self._file), "--output", str(folder), "--cache", str(self._cache)])

    def _finished(self, process: "subprocess.Popen[str]") -> None:
        _, said = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"{self.name}: exit code {process.returncode}\n{said}")


def started(arguments: list[str]) -> "subprocess.Popen[str]":
    """The `raptr` command, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "raptr", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def recorded(folder: Path) -> int:
    """How many bytes of metrics a run has written."""
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same at the end of two runs, but for times."""
    found = []
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (one, other)]
    if weights[0] != weights[1]:
        found.append("the weights differ")
    last = f"checkpoints/checkpoint-{STEPS}/optimizer.pt"
    states = [torch.load(folder / last, weights_only=True) for folder in (one, other)]
    if not same(*states):
        found.append("the optimizer's state differs")
    lines = [timeless(folder / "metrics.jsonl") for folder in (one, other)]
    if lines[0] != lines[1]:
        pairs = itertools.zip_longest(*lines)
        place, (a, b) = next((number, pair) for number, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
        found.append(f"metrics.jsonl differs from line {place} on: {a} and {b}")
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    if {**results[0], "seconds": 0} != {**results[1], "seconds": 0}:
        found.append(f"result.json differs: {results[0]} and {results[1]}")
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two trees of dictionaries, lists, tensors and numbers are equal, bit for bit."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def timeless(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file without their times."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def main() -> int:
    """Kill, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="names of runs: METHOD-OBJECTIVE-WORKERS")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    kinds = [
        (f"{method}-{objective}-{workers}", method, objective, workers)
        for (method, objective), workers in zip(itertools.product(METHODS, OBJECTIVES), itertools.cycle((0, 2)))
    ]
    if args.only:
        every = itertools.product(METHODS, OBJECTIVES, (0, 2))
        kinds = [(f"{m}-{o}-{w}", m, o, w) for m, o, w in every if f"{m}-{o}-{w}" in args.only]
    failures, totals = dict[str, list[str]](), dict[str, int]()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, method, objective, workers) in enumerate(kinds):
            run = Run(name, config_of(method, objective, workers), Path(folder), Path(folder) / "cache")
            wanted = args.kills * (number + 1) // len(kinds) - args.kills * number // len(kinds)
            for kill in range(wanted):
                run.kill_once((kill + rng.random()) / (wanted + 1), rng)
            failures[name], totals[name] = run.finish(), run.kills
            print(f"{name:42}{run.kills:4} kills   {'; '.join(failures[name]) or 'the same'}", flush=True)
    bad = sum(map(bool, failures.values()))
    print(f"{sum(totals.values())} kills, {bad} of {len(kinds)} runs differ, {time.monotonic() - start:.0f} s")
    if args.output:
        machine = {**describe_environment(), "kills_asked": args.kills, "seed": args.seed}
        content = {"machine": machine, "kills": totals, "differences": failures}
        args.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
