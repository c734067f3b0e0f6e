"""What the method cards say by computation: settings, savings, and what was measured.

    python benchmarks/cards.py            # write these parts of docs/methods again
    python benchmarks/cards.py FOLDER     # first keep a comparison's result as benchmarks/results/methods.json

Each such part stands between two marks, `<!-- settings -->` and `<!-- /settings -->` for one, and nothing between
them is written by hand. The settings come from the fields of the specs and their docstrings, the savings from plans,
the measurements from those of docs/results.md (src/raptr/cli/measured.json) and from benchmarks/results/methods.json;
without the latter they say that nothing was measured yet. A test fails when a page is not what this script would write.
"""

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from raptr.cli.outlook import points
from raptr.config.catalogue import SHAPE, STEPS, default_share, entries
from raptr.config.methods import SETTINGS
from raptr.config.smaller import SMALLER
from raptr.plan import METHODS, ModelShape, RaPTr, Schedule
from raptr.plan.cost import layer_share, plan_cost
from raptr.plan.methods import (
    MIDAS,
    ConstantSize,
    GStack,
    LateExpansion,
    LayerDrop,
    ProgressiveLayerDropping,
    ProgressiveStacking,
    SequenceLayerDropout,
    StochasticDepth,
    WidthRaPTr,
)
from raptr.units import count, decimal, duration, quantity, share

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "docs" / "methods"
RESULTS = ROOT / "benchmarks" / "results" / "methods.json"

NOT_YET = "Not measured yet."

OTHERS: dict[str, list[tuple[str, Any]]] = {
    "raptr": [
        ("lengths proportional (1:2:3:4)", RaPTr(Schedule.parse("6-8-10-12", lengths="proportional"))),
        ("the first 10 % of the steps with the full model", RaPTr(Schedule.parse("6-8-10-12", warmup=0.1))),
    ],
    "width_raptr": [
        ("only heads are drawn", WidthRaPTr(narrowed="heads")),
        ("only neurons are drawn", WidthRaPTr(narrowed="neurons")),
    ],
    "constant_size": [("half of the layers", ConstantSize("50%"))],
    "layerdrop": [("rate 0.5", LayerDrop(rate=0.5))],
    "stochastic_depth": [("last 0.8", StochasticDepth(last=0.8))],
    "pld": [("DeepSpeed's variant", ProgressiveLayerDropping(variant="deepspeed"))],
    "sequence_layer_dropout": [("rate 0.8", SequenceLayerDropout(rate=0.8))],
    "progressive_stacking": [("one doubling", ProgressiveStacking(doublings=1))],
    "midas": [
        ("equal lengths", MIDAS(Schedule.parse("3-6-9-12"))),
        ("alpha 2", MIDAS(Schedule.parse("3-6-9-12", lengths="proportional", alpha=2.0))),
    ],
    "gstack": [
        ("growth at half of the run", GStack(at=0.5)),
        ("twofold growth at half of the run", GStack(growth=2, at=0.5)),
    ],
    "late_expansion": [
        ("no layer at first", LateExpansion(layers=0, new="fresh")),
        ("6 layers at first", LateExpansion(layers=6)),
    ],
}
"""Other settings whose saving a card shows."""


def settings(key: str) -> str:
    """The settings of a method: those of its spec, then those that only a config has."""
    rows: list[tuple[str, Any, str | None]] = []
    if key != SMALLER:
        spec: Any = METHODS[key]
        texts, defaults = arguments(spec), spec()
        rows = [(each.name, getattr(defaults, each.name), texts[each.name]) for each in dataclasses.fields(defaults)]
    rows += [
        (name, field.default, field.description)
        for name, field in SETTINGS[key].model_fields.items()
        if name != "method" and name not in {known for known, *_ in rows}
    ]
    if not rows:
        return "Nothing can be set."
    return _table(
        ("setting", "default", "what"), [(f"`{name}`", _value(default), text) for name, default, text in rows]
    )


def arguments(spec: Any) -> dict[str, str]:
    """The text of each argument in a docstring's ``Args:``."""
    found = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(spec) or "", flags=re.M | re.S)
    texts = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", found[1] if found else "", flags=re.M | re.S)
    return {name: _sentence(" ".join(text.split()).replace("``", "`")) for name, text in texts}


def saving(key: str) -> str:
    """Expected layer FLOPs of a method, with its default and with other settings."""
    own = {entry.key: entry.share for entry in entries()}[key]
    rows = [("default", own)]
    rows += [(what, layer_share(method.plan(SHAPE, STEPS))) for what, method in OTHERS.get(key, [])]
    if key == "pld":
        rows += [
            (f"default, in a run of {count(steps)} steps", layer_share(METHODS[key]().plan(SHAPE, steps)))
            for steps in (1_000, 100_000)
        ]
    if key == SMALLER:
        deeper = default_share(key, ModelShape.of(layers=24))
        rows = [("default, 9 of 12 layers", own), ("default, 18 of 24 layers", deeper)]
    return _table(
        ("settings", "layer FLOPs of full training", "fewer"),
        [(what, share(value), f"{1 / value:.3f}x") for what, value in rows],
    )


def evidence(key: str) -> str:
    """What the comparisons of docs/results.md found of a method."""
    found = [
        (
            f"`{point.comparison}`",
            point.name[:1].upper() + point.name[1:],
            f"{point.architecture}, {quantity(point.parameters)}",
            f"{point.horizon:.1f}",
            f"{decimal(point.difference, 3, signed=True)} ({decimal(point.low, 3, signed=True)} to "
            f"{decimal(point.high, 3, signed=True)})",
        )
        for point in points()
        if point.method == key
    ]
    if not found:
        return ""
    columns = ("comparison", "settings", "model, parameters of the layers", "tokens for each", "difference from full")
    return (
        "In the comparisons of docs/results.md, which says how their rates were chosen: final validation losses at "
        f"equal FLOPs, below 0 a gain, 95 % over {points()[0].seeds} seeds.\n\n{_table(columns, found)}\n\n"
        "Earlier, each method at its own defaults on another base (benchmarks/methods.yaml: 600 steps, 4 heads, one "
        "rate of 1e-2 and a linear decay for all), which scatters more; where the two differ, those above count.\n\n"
    )


def measured(key: str, results: Any) -> str:
    """What the comparison of all methods found of one."""
    if results is None:
        return NOT_YET
    summary = results["summary"]
    if key not in summary["methods"]:
        return f"{NOT_YET.removesuffix('.')}: it was not part of the comparison in docs/methods/README.md."
    baseline = summary["baseline"]
    keys = [key] if key == baseline else [key, baseline]
    entry, lines = summary["methods"][key], []
    for what, cell in _MEASURED:
        lines.append((what, *(cell(results, one) for one in keys)))
    table = _table(("", *(summary["methods"][one]["label"] for one in keys)), lines)
    verdict = "" if key == baseline else f"\n\nAgainst {baseline}: {_difference(entry)}."
    return f"{_how(results)}\n\n{table}{verdict}"


def measured_table(results: Any) -> str:
    """What a comparison found of all methods."""
    if results is None:
        return NOT_YET
    methods = results["summary"]["methods"]
    rows = [
        (f"`{key}`", *(cell(results, key) for _, cell in _MEASURED), _difference(methods[key]))
        for key in sorted(methods, key=lambda key: _order(methods[key]["mean"]))
    ]
    columns = ("method", *(what for what, _ in _MEASURED), f"difference from {results['summary']['baseline']}")
    warnings = "".join(f"\n- Warning: {warning}" for warning in results["summary"]["warnings"])
    notes = "".join(f"\n- {note}" for note in results["summary"]["notes"])
    more = f"\n{warnings}{notes}" if warnings or notes else ""
    return (
        f"{_how(results)} This was before the comparisons of docs/results.md, on another base; where they differ, "
        f"those count. Lowest loss first.\n\n{_table(columns, rows)}{more}\n\n    {results['command']}"
    )


def index() -> str:
    """All methods with a line each."""
    rows = [(f"[`{entry.key}`]({entry.key}.md)", entry.line, share(entry.share)) for entry in entries()]
    return _table(("method", "what it does", "layer FLOPs"), rows)


def pages(results: Any) -> dict[Path, str]:
    """Every page of docs/methods as it should be."""
    found = {}
    for key in SETTINGS:
        path = CARDS / f"{key}.md"
        if not path.is_file():
            raise SystemExit(f"{path} does not exist: write it with the headings and marks of layerdrop.md")
        text = path.read_text(encoding="utf-8")
        for name, block in (
            ("settings", settings(key)),
            ("saving", saving(key)),
            ("measured", evidence(key) + measured(key, results)),
        ):
            text = fill(text, name, block)
        found[path] = text
    path = CARDS / "README.md"
    text = fill(path.read_text(encoding="utf-8"), "index", index())
    found[path] = fill(text, "measured", measured_table(results))
    return found


def fill(text: str, name: str, block: str) -> str:
    """Put a block between its marks."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->\n)", flags=re.S)
    if len(marks.findall(text)) != 1:
        raise SystemExit(f"a page has not exactly one <!-- {name} --> ... <!-- /{name} -->:\n{text[:200]}")
    return marks.sub(lambda found: f"{found[1]}\n{block}\n\n{found[2]}", text)


def take(folder: Path) -> dict[str, Any]:
    """What is kept of a comparison: its summary, the machine, the versions, the command, and the expected FLOPs."""
    from raptr.config import load
    from raptr.train.task import plan_run

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    seed, costs, runs = summary["seeds"][0], {}, {}
    for key in summary["methods"]:
        run = folder / f"{key}-seed{seed}"
        facts = runs[key] = json.loads((run / "run.json").read_text(encoding="utf-8"))
        planned = plan_run(load(str(run / "config.yaml"), [f"training.max_steps={facts['steps']}"]))
        layers = sum(stage.layers for stage in plan_cost(planned.plan, planned.costs))
        costs[key] = (layers / facts["steps"], planned.costs.all_layers)
    full = costs[summary["baseline"]][1]
    facts = runs[summary["baseline"]]
    environment = facts["environment"]
    return {
        "command": facts["command"],
        "machine": f"{environment['cpu']}, {environment['threads']} threads, {environment['device']}",
        "versions": {name: environment[name] for name in ("python", "raptr", "torch", "transformers")},
        "model": {**facts["model"], "layers": [stack["layers"] for stack in facts["plan"]["stacks"]]},
        "text": facts["data"]["content_hash"],
        "expected": {key: layers / full for key, (layers, _) in costs.items()},
        "full_step": full,
        "summary": summary,
    }


def read_results() -> Any:
    """The kept comparison, or None."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else None


def _how(results: Any) -> str:
    summary, model, versions = results["summary"], results["model"], results["versions"]
    layers = "+".join(map(str, model["layers"]))
    return (
        f"{model['architecture']}, {layers} layers, {quantity(model['layer_parameters'])} parameters in them; equal "
        f"{summary['budget']}, {len(summary['seeds'])} seeds; {results['machine']}; "
        f"{', '.join(f'{name} {value}' for name, value in versions.items())}."
        f"{'' if summary['tuned'] else ' Nothing was tuned for any method.'}"
    )


def _counted(results: Any, key: str) -> float:
    entry = results["summary"]["methods"][key]
    return float(entry["layer_flops"] / entry["steps"] / results["full_step"])


_MEASURED: list[tuple[str, Any]] = [
    ("steps", lambda results, key: count(results["summary"]["methods"][key]["steps"])),
    ("layer FLOPs of a full step, expected", lambda results, key: share(results["expected"][key], 2)),
    ("counted", lambda results, key: share(_counted(results, key), 2)),
    ("total FLOPs", lambda results, key: quantity(results["summary"]["methods"][key]["total_flops"], "FLOP")),
    ("time", lambda results, key: duration(results["summary"]["methods"][key]["seconds"])),
    ("validation loss (95 %)", lambda results, key: _loss(results["summary"]["methods"][key])),
]


def _loss(entry: Any) -> str:
    return decimal(entry["mean"], 3) + _interval(entry["interval"])


def _difference(entry: Any) -> str:
    if entry["difference"] is None:
        return str(entry["verdict"])
    interval = _interval(entry["difference_interval"], signed=True)
    return f"{decimal(entry['difference'], 3, signed=True)}{interval}, {entry['verdict']}"


def _interval(ends: Any, *, signed: bool = False) -> str:
    return "" if ends is None else f" ({' to '.join(decimal(end, 3, signed=signed) for end in ends)})"


def _order(mean: float | None) -> float:
    return float("inf") if mean is None else mean


def _value(value: Any) -> str:
    text = str(value) if isinstance(value, Schedule | str) else repr(value)
    return f"`{text}`"


def _sentence(text: str) -> str:
    return text if text[1:2] == "," else text[:1].upper() + text[1:]  # not of a symbol: "g, at least 2"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main(given: list[str]) -> None:
    """Write the pages again, from a comparison's folder if one is given."""
    if given:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(take(Path(given[0])), indent=1) + "\n", encoding="utf-8")
    for path, text in pages(read_results()).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
