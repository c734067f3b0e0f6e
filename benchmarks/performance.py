"""docs/performance.md from benchmarks/results: no figure on that page is written by hand.

    python benchmarks/performance.py

Each computed part stands between two marks, `<!-- cpu -->` and `<!-- /cpu -->` for one. Without a result a part says
that nothing was measured. A test fails when the page is not what this script would write.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speed.record import RESULTS
from speed.targets import Answers, found, of_peak

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

UNMEASURED_GPU = (
    "eta at every stage, at least 0.97: BERT-base, Llama-1B",
    "time attached / untouched, at most 1.01",
    "saved activations, within 5 % of proportional; peak memory",
    "graphs compiled in a run, one for each class of layer, mode and shape",
    "microseconds to choose and set, below 50",
    "time of full training / of RaPTr 6-8-10-12, whole runs, at least 1.30: BERT-base",
    "time of raptr train / of a plain loop, at most 1.02",
    "utilisation of full training, at least 0.5 for Llama-1B and 0.45 for BERT-base",
)
"""What is aimed at on a GPU, for as long as there is no result."""


def main() -> None:
    """Write the page again."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


def page(text: str, results: Path) -> str:
    """The page with its computed parts as these results say."""
    for mark in ("cpu", "gpu", "data"):
        result = read(results / f"{mark}.json")
        pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
        if not re.search(pattern, text, flags=re.S):
            raise SystemExit(f"the page has no marks <!-- {mark} --> and <!-- /{mark} -->")
        if result is None:
            part = missing(mark)
        elif mark == "data":
            part = "\n\n".join([batches(result), *map(memory_of_text, filter(None, map(read, memory_files(results))))])
        else:
            part = report(result, mark)
        text = re.sub(pattern, lambda marks, part=part: f"{marks[1]}{part}\n{marks[2]}", text, flags=re.S)
    return text


def read(file: Path) -> Any:
    """A result; None if there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def memory_files(results: Path) -> tuple[Path, Path]:
    """The results of memory: of documents, and of one document of a single line."""
    return results / "data-memory.json", results / "data-one-line.json"


def batches(result: Mapping[str, Any]) -> str:
    """How fast batches are made."""
    rows = [
        (
            task,
            name,
            f"{row['sequences_per_second']:,.0f}",
            f"{row['tokens_per_second'] / 1e6:.2f}",
            f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
        )
        for task, answer in result["results"].items()
        for name, row in answer["variants"].items()
    ]
    head = ("batches of", "what", "sequences/s", "M tokens/s", "time, to making the batch")
    facts = result["machine"]
    return (
        f"`python benchmarks/data.py`: one worker, processor time of one thread, {facts['rounds']} rounds of "
        f"{facts['calls']} batches of {facts['batch']}, {facts['length']} positions; {where(facts)}.\n\n"
    ) + table(head, rows)


def memory_of_text(result: Mapping[str, Any]) -> str:
    """The most memory while text is tokenized and read."""
    facts = result["machine"]
    one = facts.get("one_line", False)
    rows = [
        (size, f"{row['peak_mb']:,.0f} MB", f"{row['of_it_not_of_files_mb']:,.0f} MB", f"{row['seconds']:,.0f} s")
        for size, row in result["results"].items()
        if isinstance(row, dict)
    ]
    head = ("one document, of a single line" if one else "text", "most resident", "of it not of files", "time")
    given = f"python benchmarks/data.py --memory {facts['memory']:g}{' --one-line' if one else ''}"
    return f"`{given}`: tokenizing and reading, {facts['workers']} processes; {where(facts)}.\n\n{table(head, rows)}"


def where(facts: Mapping[str, Any]) -> str:
    """The machine and the versions of a result of `benchmarks/data.py`."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "transformers", "numpy", "raptr"))
    return f"{facts['cpu']}, {facts['cores']} cores, {versions}"


def missing(device: str) -> str:
    """What is said without a result."""
    if device != "gpu":
        return "Not measured yet."
    rows = [(what, "not measured") for what in UNMEASURED_GPU]
    return "Nothing was measured on a GPU yet; nothing is claimed.\n\n" + table(("target", "found"), rows)


def report(result: Mapping[str, Any], device: str) -> str:
    """The targets, and a table for each question that was asked."""
    answers: Answers = result["results"]
    rows = [(one.what, one.aim, number(one.value), "yes" if one.met else "**no**") for one in found(answers, device)]
    parts = [machine(result), "### Targets\n", table(("what", "aim", "found", "met"), rows)]
    for title, question, write in (
        ("Skipping", "skipping", skipping),
        ("Attached and full", "overhead", overhead),
        ("Memory", "memory", memory),
        ("Choosing a subnetwork", "choosing", choosing),
        ("Whole runs", "runs", runs),
        ("Side by side", "peers", peers),
    ):
        if question in answers:
            later = result.get("again", {}).get(question)  # measured by itself, after the others
            where_from = machine(later) if later else f"`{command(result, question)}`\n"
            parts += [f"\n### {title}\n", where_from, write(answers)]
    return "\n".join(parts)


def machine(result: Mapping[str, Any]) -> str:
    """Where and with what it was measured."""
    facts = result["machine"]
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "transformers", "accelerate", "raptr"))
    busy = "" if facts["load"] is None else f" Load of the machine at the end: {facts['load']:.1f}."
    small = " **Tiny models: these numbers say nothing about speed.**" if facts["tiny"] else ""
    return (
        f"`{result['command']}`\n\nOn {facts['device']}, {facts['cpu']}, {facts['cores']} cores, {facts['threads']} "
        f"threads; {versions}. Clock: {facts['clock']}. {facts['rounds']} rounds of steps, {facts['runs']} of whole "
        f"runs.{busy}{small}\n"
    )


def command(result: Mapping[str, Any], question: str) -> str:
    """What measures one question."""
    given = re.sub(r" --only( (?!--)\S+)+| --output \S+", "", result["command"])
    return f"{given} --only {question}"


def skipping(answers: Answers) -> str:
    """Efficiency by stage; utilisation where the peak was measured."""
    rows = []
    for case, answer in answers["skipping"].items():
        for stage, row in answer["stages"].items():
            times = (number(row["milliseconds"]["median"]), number(row["flops_ratio"]), spread(row["time_ratio"]))
            rows.append((case, stage, *times, spread(row["eta"])))
    head = ("model", "layers", "ms a step", "FLOPs, full / stage", "time, full / stage", "eta")
    used = [f"{case} {of_peak(answers, case):.0%}" for case in answers["skipping"] if "peak" in answers]
    after = ""
    if used:
        peak = answers["peak"]
        after = (
            f"\n\nFull training's share of the measured peak of a matrix product ({number(peak['teraflops'])} TFLOP/s, "
            f"{peak['dtype']}, {peak['size']} x {peak['size']}): {', '.join(used)}."
        )
    return table(head, rows) + after


def overhead(answers: Answers) -> str:
    """Times and ratios to the untouched model."""
    rows = [
        (case, name, number(row["milliseconds"]["median"]), spread(row["ratio"]))
        for case, variants in answers["overhead"].items()
        for name, row in variants.items()
    ]
    return table(("model", "", "ms a step", "ratio"), rows)


def memory(answers: Answers) -> str:
    """Saved activations and peaks."""
    rows = [
        (case, stage, *(number(row[key]) for key in ("saved_mb", "saved_over_proportional", "peak_mb", "peak_ratio")))
        for case, stages in answers["memory"].items()
        for stage, row in stages.items()
    ]
    return table(("model", "layers", "saved, MB", "of proportional", "peak, MB", "of full"), rows)


def choosing(answers: Answers) -> str:
    """Microseconds by method."""
    rows = [
        (method, spread(times["choose"]), spread(times["choose and set"]))
        for method, times in answers["choosing"].items()
    ]
    return table(("method", "choose, µs", "choose and set, µs"), rows)


def runs(answers: Answers) -> str:
    """Seconds, throughput and the ratios between them."""
    parts = []
    for case, answer in answers["runs"].items():
        rows = [
            (name, spread(answer["seconds"][name]), spread(answer["tokens_per_second"][name]))
            for name in answer["seconds"]
        ]
        parts += [
            f"{case}, {answer['steps']} steps of {answer['batch']} x {answer['length']} tokens, by the wall clock:\n",
            table(("", "seconds", "tokens a second"), rows),
            f"\nRaPTr {answer['schedule']}: {spread(answer['saving_on_the_clock'])} times faster on the clock, "
            f"{number(answer['saving_in_flops'])} in FLOPs. raptr train / plain loop: "
            f"{spread(answer['engine_over_plain'])}.",
        ]
    return "\n".join(parts)


def peers(answers: Answers) -> str:
    """Time of a step at a half of the layers."""
    parts = []
    for case, answer in answers["peers"].items():
        rows = [
            (name, *(number(row[key]) for key in ("milliseconds", "time_ratio", "share_that_ran")))
            for name, row in answer["ways"].items()
        ]
        rows += [(name, reason, "", "") for name, reason in answer["not_measured"].items()]
        parts += [f"An OPT as large as {case}:\n", table(("", "ms a step", "of full", "layers that ran"), rows)]
    return "\n".join(parts)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Mapping[str, float]) -> str:
    """A median with its quartiles."""
    return f"{number(values['median'])} ({number(values['low'])} to {number(values['high'])})"


def number(value: float) -> str:
    """Three digits after the point below 10, and as many as matter above."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


if __name__ == "__main__":
    main()
