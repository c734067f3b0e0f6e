"""Draw what is kept in benchmarks/evidence/stored: docs/results.md with its figures, and what `raptr plan` knows.

Of benchmarks/results/steps.json too, which benchmarks/steps.py leaves behind, the page has a table.

    python benchmarks/evidence/draw.py

Each computed part stands between two marks, `<!-- recipes -->` and `<!-- /recipes -->` for the comparison `recipes`;
the sentences around them are written by hand. A figure is the one of the comparison's own report: `raptr report
benchmarks/evidence/stored/NAME --output FOLDER` makes all of it. A comparison whose runs are not all there has a table
of those that are, and no verdict. A test fails when the page is not what this script would write.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import points
from chart import draw_lengths, draw_map
from lengths import baseline, changes, differences
from points import is_finished
from questions import Comparison, comparisons
from store import missing

from raptr.report import write_report
from raptr.results import read_folder
from raptr.results.folder import Comparison as Found
from raptr.results.folder import Method
from raptr.results.outcome import verdict_text
from raptr.results.statistics import DECIDED, mean, t_interval
from raptr.units import count, decimal, quantity, share, share_interval

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).parent / "stored"
PAGE = ROOT / "docs" / "results.md"
FIGURES = ROOT / "docs" / "results"
STEPS = ROOT / "benchmarks" / "results" / "steps.json"

NOT_RUN = "Not run yet."

TITLES = {
    "result": "Final validation loss: each seed, mean and 95 % interval",
    "loss-flops": "Validation loss against total FLOPs, with 95 % intervals",
    "path-map": "Which layer was trained when",
}
"""Figures of a report, and what they show."""


def main() -> None:
    """Write the page and its figures again."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), STORED), encoding="utf-8")
    points.FILE.write_text(points.points(STORED), encoding="utf-8")
    FIGURES.mkdir(exist_ok=True)
    known = json.loads(points.points(STORED))
    draw_map(known, FIGURES / "map.png")
    draw_lengths(known, FIGURES / "lengths.png")
    for comparison in comparisons([]):
        folder = STORED / comparison.name
        if not is_finished(comparison, folder):
            continue
        with tempfile.TemporaryDirectory() as place:
            write_report(folder, output=Path(place))
            for figure in comparison.figures:
                shutil.copyfile(Path(place) / "figures" / f"{figure}.png", FIGURES / name_of(comparison, figure))


def page(text: str, stored: Path) -> str:
    """The page with its computed parts as the stored runs say."""
    parts = {comparison.name: part_of(comparison, stored / comparison.name) for comparison in comparisons([])}
    for name, part in {"steps": steps(STEPS), "lengths": lengths(stored), **parts}.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.S)
        if len(marks.findall(text)) != 1:
            raise SystemExit(f"docs/results.md has not exactly one <!-- {name} --> ... <!-- /{name} -->")
        text = marks.sub(lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}", text)
    return text


def steps(file: Path) -> str:
    """The table of how fast the steps of these models are; benchmarks/steps.py says what is measured."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    facts = kept["machine"]
    rows = [
        (name, label, decimal(stage["milliseconds"]["median"], 0), ratio(stage["time_ratio"]), ratio(stage["eta"]))
        for name, found in kept["results"].items()
        for label, stage in found["stages"].items()
        if int(label) < found["layers"]
    ]
    return (
        f"`{kept['command']}`: {facts['cpu']}, {facts['clock']}, {facts['rounds']} rounds; {versions(facts)}.\n\n"
        f"{table(('model', 'layers', 'ms a step', 'time, full / these', 'as fast as the FLOPs say'), rows)}"
    )


def lengths(stored: Path) -> str:
    """The table of what length does to a lead."""
    rows = [
        (
            change.model,
            change.method,
            " and ".join(decimal(tokens, 1) for tokens in change.tokens),
            *(bounds(mean(values), t_interval(values), signed=True) for values in change.differences),
            bounds(change.mean, change.interval, signed=True),
        )
        for change in changes(stored)
    ]
    head = ("model", "method", "tokens for each parameter", "short: difference (95 %)", "long", "change (95 %)")
    return table(head, rows) if rows else NOT_RUN


def ratio(found: dict[str, float]) -> str:
    """A median with its quartiles."""
    return f"{decimal(found['median'], 2)} ({decimal(found['low'], 2)} to {decimal(found['high'], 2)})"


def part_of(comparison: Comparison, folder: Path) -> str:
    """A comparison's table, with where it was run and the command."""
    names = [*comparison.trials(), *comparison.runs()]
    there = len(names) - len(missing(folder, names))
    if not there:
        return NOT_RUN
    if not any((folder / name).is_dir() for name in comparison.runs()):
        return f"Not finished: {there} of {len(names)} runs, all of them to choose with."
    found = read_folder(folder)
    whole = there == len(names)
    other = next((method for method in found.methods if method.key == comparison.beside and method.runs), None)
    others = {f"difference from {other.key} (95 %)": other} if other else {}
    if comparison.against:
        head = f"difference from full training of {comparison.against} (95 %)"
        others[head] = baseline(read_folder(folder.parent / comparison.against))
    rows = [
        (*row(method, found), *(from_other(method, one) for one in others.values()))
        for method in found.methods
        if method.runs
    ]
    parts = [where(found, comparison), table((*HEAD, *others), rows)]
    if tried := trials(found):
        parts.append(tried)
    if whole:
        parts += [f"![{TITLES[figure]}](results/{name_of(comparison, figure)})" for figure in comparison.figures]
    else:
        parts.insert(0, f"Not finished: {there} of {len(names)} runs.")
    return "\n\n".join(parts)


def name_of(comparison: Comparison, figure: str) -> str:
    """A figure's file: the result has the comparison's own name."""
    return f"{comparison.name}.png" if figure == "result" else f"{comparison.name}-{figure}.png"


HEAD = ("method", "steps", "validation loss (95 %)", "difference (95 %)", "verdict", "FLOPs saved at equal loss")


def row(method: Method, found: Found) -> tuple[str, ...]:
    """A method's numbers."""
    outcome, loss = method.outcome, method.outcome.loss
    difference = "" if method.key == found.baseline else bounds(loss.difference, loss.difference_interval, signed=True)
    saving = outcome.savings.get("total_flops")
    saved = ""
    if saving is not None and saving.saving is not None:
        saved = share(saving.saving, at_least=saving.at_least)
        saved += f" ({share_interval(saving.interval)})" if saving.interval else ""
        if outcome.decision not in DECIDED:
            saved = f"undecided, {saved}"
    chosen = found.sweep.chosen[method.key] if found.sweep else {}
    name = ", ".join([method.key, *(f"{key.split('.')[-1]} {value:g}" for key, value in chosen.items())])
    verdict = verdict_text(outcome)
    return (name, count(outcome.costs["steps"]), bounds(loss.mean, loss.interval), difference, verdict, saved)


def from_other(method: Method, other: Method) -> str:
    """A method's paired difference from one that is not the baseline."""
    found = list(differences(method, other).values())
    if method is other or not found:
        return ""
    return bounds(mean(found), t_interval(found), signed=True)


def bounds(value: float | None, ends: tuple[float, float] | None, *, signed: bool = False) -> str:
    """A number with its interval."""
    if value is None:
        return ""
    around = f" ({decimal(ends[0], 3, signed)} to {decimal(ends[1], 3, signed)})" if ends else ""
    return decimal(value, 3, signed) + around


def trials(found: Found) -> str:
    """What was tried before: the mean loss of each value on the tuning half of the validation text."""
    if found.sweep is None:
        return ""
    tried = []
    for one in found.sweep.trials:
        tried.append((one.method, *(f"{value:g}" for value in one.values.values()), decimal(one.mean, 3)))
    keys = [key.split(".")[-1] for key in found.sweep.grid]
    return f"Tried, with seeds that are not reported:\n\n{table(('method', *keys, 'mean loss'), tried)}"


def where(found: Found, comparison: Comparison) -> str:
    """What was trained, on which machine, and the command."""
    info = found.runs[0].info
    facts, model, data = info.environment, info.model, info.data
    flops = max((method.outcome.costs["total_flops"] or 0 for method in found.methods), default=0)
    return (
        f"`python benchmarks/evidence/run.py {comparison.name}`: {model['architecture']}, {count(model['parameters'])} "
        f"parameters, {count(model['layer_parameters'])} of them in the layers; {data['source']} (content hash "
        f"{data['content_hash'][:12]}); {quantity(flops, 'FLOP')} a run, seeds {', '.join(map(str, found.seeds))}. "
        f"{facts['cpu']}, {facts['threads']} thread(s) a run, {facts['device']}; {versions(facts)}."
    )


def versions(facts: Mapping[str, Any]) -> str:
    """Of what it ran on."""
    return ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "transformers", "raptr"))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
