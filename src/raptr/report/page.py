"""The HTML page: everything the template says, from a comparison."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from raptr.report import embed, table, theme, units
from raptr.report.comparison import Comparison
from raptr.report.figures.build import AXES, has_final, page_specs, panel_title
from raptr.report.figures.common import Palette
from raptr.report.figures.paths import Panel
from raptr.report.figures.training import QUANTITIES
from raptr.report.read import Run

Facts = list[tuple[str, str]]
RUN_FILES = {"config.yaml": "config", "run.json": "facts", "metrics.jsonl": "metrics", "result.json": "result"}
NOTES = (
    "Validation loss is always that of the full model, all layers running, on held-out data. "
    "Training loss is that of the part that was trained in the step: while a part is trained, "
    "the two are not comparable.",
    "Layer FLOPs count the transformer's layers only; total FLOPs add what does not shrink with the path: "
    "embeddings, head and loss. Seconds leave out validation.",
    "Intervals are 95% t-intervals over seeds. The difference is paired: method minus baseline within each seed, "
    "so below zero is better. Where its interval includes zero, the runs were too short or too few to decide.",
)


def render(comparison: Comparison, palette: Palette, panels: list[Panel]) -> str:
    """Returns the whole page; text from the folder is escaped, wherever it comes from."""
    commands = sorted({str(run.info.get("command") or "") for run in comparison.runs})
    bundle, script = embed.bundle(), Markup(embed.asset("page.js"))
    figures = {
        "methods": palette.names,
        "light": theme.vega_config(dark=False),
        "dark": theme.vega_config(dark=True),
        "charts": page_specs(comparison, palette, panels),
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(embed.asset("report.html.j2")).render(
        title=comparison.name,
        sentence=table.verdict_sentence(comparison),
        single=_single_facts(comparison) if comparison.single else None,
        columns=table.COLUMNS,
        methods=_methods(comparison, palette),
        table_note=_table_note(comparison),
        has_final=has_final(comparison),
        paired=any(method.outcome.difference_interval for method in comparison.methods),
        axes=list(AXES.items()),
        loss_note=_loss_note(comparison),
        paths_note=_paths_note(comparison),
        training_note=_training_note(comparison),
        panels=[
            {"index": palette.names.index(one.method), "title": panel_title(one), "chart": f"path-{number}"}
            for number, one in enumerate(panels)
        ],
        training=[(quantity.column, quantity.title) for quantity in QUANTITIES],
        notes=[*comparison.notes, *NOTES],
        runs=[_run(run, comparison) for run in comparison.runs],
        command=commands[0] if len(commands) == 1 else "",
        tables=_tables(comparison),
        configs=_configs(comparison),
        figures=embed.script_json(figures),
        style=Markup(_style()),
        bundle=bundle,
        script=script,
        policy=embed.policy(bundle, script),
    )


def _style() -> str:
    css = embed.asset("page.css").replace("FONT", theme.FONT)
    return css.replace("RAMP_LIGHT", ", ".join(theme.RAMP_LIGHT)).replace("RAMP_DARK", ", ".join(theme.RAMP_DARK))


def _methods(comparison: Comparison, palette: Palette) -> list[dict[str, Any]]:
    return [
        {
            "name": method.name,
            "colour": colour,
            "dash": "" if tuple(dashes) == theme.DASHES[0] else " ".join(str(one) for one in dashes),
            "cells": table.cells(method),
            "kind": table.verdict_kind(method),
        }
        for method, colour, dashes in zip(comparison.methods, palette.colours, palette.dashes, strict=True)
    ]


def _table_note(comparison: Comparison) -> str:
    seeds = sorted({len(method.outcome.losses) for method in comparison.methods})
    counted = " to ".join(str(number) for number in {seeds[0]: 0, seeds[-1]: 0})
    budget = table.BUDGETS.get(comparison.budget, f"equal {comparison.budget}")
    parts = [f"Compared at {budget}." if comparison.budget else ""]
    parts.append(f"n = {counted} {'seed' if seeds == [1] else 'seeds'} a method; costs are means over them.")
    parts.append("Under a loss and a difference stands the 95% interval. Difference: method minus baseline.")
    return " ".join(part for part in parts if part)


def _loss_note(comparison: Comparison) -> str:
    parts = ["Lower is better."]
    if any(len(method.runs) > 1 for method in comparison.methods):
        parts.append(
            "Line: mean over seeds; band: its 95% t-interval; faint lines: the seeds. "
            "The band of a few seeds is wide and is cut off where it would flatten the curves."
        )
    if any(len(run.stages) > 1 for run in comparison.runs):
        parts.append("A diamond marks where a method begins its next stage.")
    if len(comparison.methods) > 1:
        parts.append("Press a method to switch it off everywhere; point at a curve for its numbers.")
    return " ".join(parts)


def _paths_note(comparison: Comparison) -> str:
    one = "" if comparison.single else " Shown is each method's first seed; all panels have the same step axis."
    return (
        "A column is a step (or a few neighbouring ones), a row is a layer, layer 0 at the bottom: "
        "the stronger the colour, the larger the share of these steps in which the layer was trained. "
        f"The gaps are stage boundaries, the number above is how many layers each step of the stage trained.{one}"
    )


def _training_note(comparison: Comparison) -> str:
    which = "" if comparison.single else ", each method's first seed"
    return (
        f"By step{which}. Loss and gradient norm are of the trained part; line: moving average over a fortieth "
        "of the run; faint: the values themselves (means of neighbours in long runs)."
    )


def _single_facts(comparison: Comparison) -> Facts:
    run, cells = comparison.runs[0], table.cells(comparison.methods[0])
    reached = int(run.train.step[-1]) if len(run.train.step) else 0
    state = "finished" if run.finished else f"unfinished: step {reached:,} of {run.steps:,}"
    names = [name for name in table.COLUMNS if name not in ("Difference", "Verdict", "Validation loss")]
    evals = run.evals
    loss = f"{units.decimal(evals.columns['eval_loss'][-1])} at step {evals.step[-1]:,}" if len(evals.step) else "–"
    return [
        ("Method", run.label),
        ("Seed", str(run.seed)),
        ("State", state),
        *((name, cells[name].text) for name in names),
        ("Validation loss", cells["Validation loss"].text if run.finished else loss),
    ]


def _run(run: Run, comparison: Comparison) -> dict[str, Any]:
    prefix = "" if comparison.single else f"{quote(run.folder.name, safe='')}/"
    reached = int(run.train.step[-1]) if len(run.train.step) else 0
    state = f"unfinished: step {reached:,} of {run.steps:,}"
    if run.result is not None:
        state = f"{run.steps:,} steps, validation loss {units.decimal(run.result.get('eval_loss'))}"
    return {
        "name": run.folder.name,
        "state": state,
        "links": [(f"{prefix}{name}", label) for name, label in RUN_FILES.items() if (run.folder / name).is_file()],
        "command": str(run.info.get("command") or ""),
    }


def _tables(comparison: Comparison) -> list[tuple[str, Facts]]:
    run = comparison.runs[0]
    found = [(name.capitalize(), _flat(run.info.get(name))) for name in ("data", "model", "environment")]
    first = dict(found[2][1])
    other = {
        name
        for one in comparison.runs
        for name, value in _flat(one.info.get("environment"))
        if first.get(name) != value
    }
    if other:
        found[2][1].append(("differs between runs", ", ".join(sorted(other))))
    flops = run.info.get("flops")
    if isinstance(flops, dict) and flops.get("convention"):
        found[1][1].append(("FLOPs convention", str(flops["convention"])))
    return found


def _flat(value: object) -> Facts:
    if not isinstance(value, Mapping):
        return [] if value is None else [("", str(value))]
    return [(str(name), _shown(one)) for name, one in value.items()]


def _shown(value: object) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return json.dumps(value, ensure_ascii=False, default=str)


def _configs(comparison: Comparison) -> list[tuple[str, str]]:
    """The resolved configuration: the comparison's, and that of each method's first run."""
    found = [] if comparison.single else [("comparison.yaml", comparison.config)]
    for method in comparison.methods:
        for run in method.runs[:1]:
            found.append((f"config.yaml of {run.folder.name}", run.config))
    return [(name, text) for name, text in found if text]
