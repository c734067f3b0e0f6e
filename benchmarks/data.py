"""How fast data gets to the model, and how much memory its preparation takes.

    python benchmarks/data.py                                 # about a minute on one core
    python benchmarks/data.py --memory 100                    # instead: memory for 25 and for 100 MB of text
    python benchmarks/data.py --memory 100 --one-line         # the same for a document of a single line

Times, in one worker and on one thread, reading sequences from the token store and making batches of them, as `raptr
train` does it, for causal and masked language modelling and for denoising (UL2), beside transformers'
DataCollatorForLanguageModeling on the same sequences and beside T5's span corruption in its own steps, one example and
one token at a time. All variants take turns in every round; ratios are to raptr's batches in the same round. It is
the processor time of one thread: what a clock shows on a machine that nobody else uses. The text is Python's sources
(builtin:python).
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch

from raptr.config import DataConfig, parse
from raptr.data import prepare
from raptr.data.text.builtin import read_builtin
from raptr.train.collect_run_info import describe_environment
from raptr.train.task import Task, prepare_task

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
BERT, LLAMA = {"architecture": "bert", "config": TINY}, {"architecture": "llama", "config": TINY}
T5 = {"architecture": "t5", "config": TINY_T5}
DENOISERS = {"R3": 1.0}
RUNS: dict[str, dict[str, Any]] = {
    "causal": {"model": LLAMA, "objective": {"name": "causal"}},
    "masked": {"model": BERT, "objective": {"name": "masked"}},
    "masked, whole words": {"model": BERT, "objective": {"name": "masked", "whole_words": True}},
    "spans, encoder-decoder": {"model": T5, "objective": {"name": "denoising", "denoisers": DENOISERS}},
    "UL2's seven, encoder-decoder": {"model": T5, "objective": {"name": "denoising"}},
    "UL2's seven, decoder-only": {"model": LLAMA, "objective": {"name": "denoising"}},
}
READ, COLLATE, BOTH = "read from the store", "raptr: make the batch", "raptr: both"
THEIRS, PLAIN = "transformers' collator", "plain T5 spans"
TARGETS = {("masked", THEIRS): 5.0, ("spans, encoder-decoder", PLAIN): 20.0}


def task_of(name: str, args: argparse.Namespace, cache: Path) -> Task:
    """A run whose batches are made; its model is not."""
    settings = {
        "name": "data",
        "method": "full",
        "data": {"max_bytes": args.bytes, "tokenizer": 4096, "sequence_length": args.length},
        "training": {"max_steps": 10_000, "per_device_train_batch_size": args.batch},
    }
    given = json.loads(json.dumps({**settings, **RUNS[name]}))
    if given["model"]["architecture"] != "t5":
        given["model"]["config"]["max_position_embeddings"] = args.length
    return prepare_task(parse(given, name), cache)


def variants_of(name: str, task: Task, batch: int) -> tuple[dict[str, Callable[[int], object]], float]:
    """What is timed, as functions of the number of the batch; and the document tokens of a sequence."""
    data, collator = task.training_data(task.steps), task.collator()
    several = getattr(data, "__getitems__", None)

    def read(number: int) -> list[Any]:
        wanted = range(number * batch, (number + 1) * batch)
        return list(several(list(wanted))) if several else [data[sample] for sample in wanted]

    found: dict[str, Callable[[int], object]] = {
        READ: read,
        COLLATE: prepared(read, collator),
        BOTH: lambda number: collator(read(number)),
    }
    if name in ("causal", "masked"):
        found[THEIRS] = prepared(lambda number: as_lists(read(number)), theirs(task, mlm=name == "masked"))
    if name == "spans, encoder-decoder":
        sentinels = list(range(60_000, 60_100))
        found[PLAIN] = prepared(lambda number: as_lists(read(number)), lambda items: plain(items, sentinels))
    tokens = np.mean([len(item["tokens"]) for number in range(40) for item in read(number)])
    return found, float(tokens)


def prepared(make: Callable[[int], Any], use: Callable[[Any], object]) -> Callable[[int], object]:
    """A function whose argument is made ready, and not timed: see `in_turn`."""

    def run(number: int) -> object:
        return use(make(number))

    run.parts = (make, use)  # type: ignore[attr-defined]
    return run


def as_lists(items: list[Any]) -> list[dict[str, list[int]]]:
    """Examples as transformers' collator has them from a dataset; it is faster with lists than with tensors."""
    return [{"input_ids": item["tokens"].tolist()} for item in items]


def theirs(task: Task, *, mlm: bool) -> Callable[[Any], object]:
    """transformers' collator, with the run's tokenizer."""
    from transformers import DataCollatorForLanguageModeling

    made: Callable[[Any], object] = DataCollatorForLanguageModeling(task.tokenizer, mlm=mlm)
    return made


def plain(items: list[dict[str, list[int]]], sentinels: list[int]) -> dict[str, torch.Tensor]:
    """T5's span corruption (15 %, spans of 3) in its own steps, one example and one token at a time."""
    inputs, targets = [], []
    for item in items:
        tokens = item["input_ids"]
        mask = noise_mask(len(tokens))
        inputs.append([*with_sentinels(tokens, mask, sentinels), 1])
        targets.append([*with_sentinels(tokens, [not noise for noise in mask], sentinels), 1])
    return {"input_ids": torch.tensor(inputs), "labels": torch.tensor(targets)}


def noise_mask(length: int) -> list[bool]:
    """Which tokens are taken out: kept and taken segments in turn."""
    noise = round(0.15 * length)
    spans = round(noise / 3)
    mask: list[bool] = []
    for kept, taken in zip(segments(length - noise, spans), segments(noise, spans), strict=True):
        mask += [False] * kept + [True] * taken
    return mask


def with_sentinels(tokens: list[int], mask: list[bool], sentinels: list[int]) -> list[int]:
    """A sentinel for every run of tokens that the mask names, and the others as they are."""
    found, before, number = [], False, 0
    for token, noise in zip(tokens, mask, strict=True):
        if not noise:
            found.append(token)
        elif not before:
            found.append(sentinels[number])
            number += 1
        before = noise
    return found


def segments(total: int, count: int) -> list[int]:
    """A number as the sum of so many at least 1, as T5's code draws them: ones among zeros, shuffled."""
    begins = [1] * (count - 1) + [0] * (total - count)
    random.shuffle(begins)
    lengths = [1]
    for begin in begins:
        if begin:
            lengths.append(1)
        else:
            lengths[-1] += 1
    return lengths


def in_turn(variants: dict[str, Callable[[int], object]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds of a batch, for each variant in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    number = 0
    for turn in range(rounds + 1):
        for name, run in variants.items():
            make, use = getattr(run, "parts", (lambda number: number, run))
            ready = [make(number + call) for call in range(calls)]
            start = time.thread_time()
            for one in ready:
                use(one)
            if turn:  # the first one warms up
                seconds[name].append((time.thread_time() - start) / calls)
        number += calls
    return seconds


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and print a table."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in RUNS:
            task = task_of(name, args, Path(folder))
            variants, tokens = variants_of(name, task, args.batch)
            seconds = in_turn(variants, args.rounds, args.calls)
            base = seconds[COLLATE]
            print(f"\n{name}: {tokens:.0f} tokens a sequence\n{'':28}{'sequences/s':>12}{'M tokens/s':>12}{'time':>9}")
            rows = {}
            for variant, times in seconds.items():
                low, middle, high = quantiles([t / b for t, b in zip(times, base, strict=True)], n=4)
                rate = args.batch / median(times)
                rows[variant] = {"sequences_per_second": rate, "tokens_per_second": rate * tokens}
                rows[variant] |= {"ratio": middle, "low": low, "high": high}
                target = TARGETS.get((name, variant))
                note = "" if target is None else f"   target: {target:g}"
                line = f"{variant:28}{rate:12,.0f}{rate * tokens / 1e6:12.2f}{middle:9.3f}"
                print(f"{line}   {low:.3f} to {high:.3f}{note}")
            results[name] = {"tokens_per_sequence": tokens, "variants": rows}
    return results


# Memory


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """The most resident memory while text is tokenized and all its sequences are read, for a quarter and for all."""
    results: dict[str, Any] = {}
    for size in (args.memory / 4, args.memory):
        with tempfile.TemporaryDirectory() as folder:
            write_text(Path(folder, "text.jsonl"), round(size * 1e6), args.one_line)
            command = [sys.executable, __file__, "--prepare", folder, "--workers", str(args.workers)]
            start = time.monotonic()
            process = subprocess.Popen(command)
            row = {"peak_mb": 0.0, "of_it_not_of_files_mb": 0.0, "main_process_mb": 0.0}
            while process.poll() is None:
                found = [resident(number) for number in [process.pid, *children(process.pid)]]
                now = (sum(whole for whole, _ in found), sum(own for _, own in found), found[0][0])
                row = {name: max(most, value) for (name, most), value in zip(row.items(), now, strict=True)}
                time.sleep(0.05)
            assert process.returncode == 0
            row["seconds"] = time.monotonic() - start
        results[f"{size:g} MB"] = row
        told = ", ".join(f"{name.removesuffix('_mb').replace('_', ' ')} {row[name]:.0f} MB" for name in list(row)[:3])
        print(f"{size:6g} MB of text: {told}", flush=True)
    (_, small), (_, large) = results.items()
    slope = (large["peak_mb"] - small["peak_mb"]) / (args.memory * 0.75)
    results["mb_per_mb_of_text"] = slope
    print(f"{slope:.3f} MB for each MB of text; for 1 GB, {large['peak_mb'] + slope * (1000 - args.memory):.0f} MB")
    return results


def write_text(path: Path, size: int, one_line: bool) -> None:
    """Distinct documents of real text, as much as is asked for; or one of them, without an end of a line."""
    if one_line:
        content = " ".join(itertools.chain.from_iterable(text.split() for text in up_to(size)))
        path.write_text(json.dumps({"text": content}) + "\n", encoding="utf8")
        return
    with path.open("w", encoding="utf8") as file:
        for number, text in enumerate(up_to(size)):
            file.write(json.dumps({"text": f"# {number}\n{text}"}) + "\n")


def up_to(size: int) -> Iterator[str]:
    """Python's sources, again and again, until there are so many bytes."""
    while True:
        for _, content in read_builtin():
            yield content.decode("utf8", errors="ignore")
            size -= len(content)
            if size <= 0:
                return


def prepare_and_read(folder: Path, workers: int) -> None:
    """What the memory of is measured."""
    made = prepare(DataConfig(source=str(folder / "text.jsonl"), tokenizer=4096), folder / "cache", workers)
    sequences = made.training(512).sources[0]
    read = sum(
        int(sequences.rows(range(start, min(start + 256, len(sequences)))).sum() > 0) for start in batches(sequences)
    )
    print(f"{made.facts(512)['tokenized now']}; {read} batches read", flush=True)


def batches(sequences: Any) -> range:
    """Where batches of 256 begin."""
    return range(0, len(sequences), 256)


def resident(number: int) -> tuple[float, float]:
    """Resident MB of a process, and how many of them are not of files."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    told = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return int(told.get("VmRSS", 0)) / 1e3, int(told.get("RssAnon", 0)) / 1e3


def children(number: int) -> list[int]:
    """The processes that a process started."""
    try:
        found = [
            int(child)
            for task in os.listdir(f"/proc/{number}/task")  # noqa: PTH208
            for child in Path(f"/proc/{number}/task/{task}/children").read_text().split()
        ]
    except OSError:
        return []
    return [one for child in found for one in (child, *children(child))]


def main() -> None:
    """Measure, print tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=8, help="batches of each variant in a round")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--bytes", type=int, default=8_000_000, help="of text")
    parser.add_argument("--memory", type=float, help="MB of text whose preparation's memory is measured")
    parser.add_argument("--one-line", action="store_true", help="a document of a single line, for --memory")
    parser.add_argument("--workers", type=int, default=2, help="processes that tokenize, for --memory")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/data.json or data-memory.json")
    args = parser.parse_args()
    if args.prepare is not None:
        prepare_and_read(args.prepare, args.workers)
        return
    torch.set_num_threads(1)
    results = speed(args) if args.memory is None else memory(args)
    asked = {key: value for key, value in vars(args).items() if key not in ("prepare", "output")}
    machine = {**describe_environment(), **asked}
    print(f"\n{machine}")
    name = "data.json" if args.memory is None else "data-memory.json"
    output = args.output or Path(__file__).parent / "results" / name
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
