"""One comparison (or run) of the page: everything the template says about it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raptr import units
from raptr.report import notes, table
from raptr.report.figures.build import AXES, SAVED, Spec, panel_title, sources_of
from raptr.report.figures.common import CROWD
from raptr.report.figures.path_panels import Panel, compact
from raptr.report.figures.training import QUANTITIES
from raptr.report.verdict import verdict_sentence
from raptr.results.folder import Comparison
from raptr.results.run_files import Run
from raptr.rundir.paths import COMPARISON, CONFIG, METRICS, RESULT, RUN_INFO

Facts = list[tuple[str, str]]
SHOWN_PANELS = 6  # where there are more, the others are folded away
RUN_FILES = {CONFIG: "config", RUN_INFO: "facts", METRICS: "metrics", RESULT: "result"}


def section_of(
    comparison: Comparison, panels: list[Panel], specs: Mapping[str, Spec], target: Path, number: int
) -> dict[str, Any]:
    """Returns what the template says about a comparison.

    Args:
        comparison: what is shown.
        panels: its path maps.
        specs: its charts.
        target: the folder of the page; links are relative to it.
        number: of the comparison in the page.
    """
    commands = sorted({run.info.command for run in comparison.runs})
    sources = sources_of(comparison)
    own_sources = table.source_table(comparison, sources)
    return {
        "number": number,
        "title": comparison.name,
        "sentence": verdict_sentence(comparison),
        "warnings": comparison.warnings,
        "single": _single_facts(comparison) if comparison.single else None,
        "methods": [(one.key, one.name) for one in comparison.methods],
        "table": table.result_table(comparison),
        "table_note": notes.result_note(comparison),
        "tuning": notes.tuning_note(comparison),
        "has_final": "final" in specs,
        "paired": any(method.outcome.loss.difference_interval for method in comparison.methods),
        "sources": own_sources,
        "savings": table.saving_table(comparison),
        "savings_note": notes.saving_note(comparison),
        "savings_details": notes.saving_details(comparison),
        "saved": [(f"saved-{measure}", title) for measure, title in SAVED.items() if f"saved-{measure}" in specs],
        "axes": list(AXES.items()),
        "loss_sources": ["all together", *sources] if len(sources) > 1 else [],
        "loss_title": "Validation loss" + ("" if notes.growing(comparison) else " of the full model"),
        "loss_note": notes.loss_note(comparison),
        "boundaries": table.boundary_table(comparison),
        "boundary_charts": [name for name in specs if name.startswith("boundary-")],
        "boundary_note": notes.boundary_note(comparison),
        "paths_note": notes.paths_note(comparison, panels),
        "training_note": notes.training_note(comparison),
        "crowded": len(comparison.methods) > CROWD,
        "compact": compact(panels),
        "shown_panels": SHOWN_PANELS if compact(panels) else len(panels),
        "panels": [
            {"method": _key_of(comparison, one.method), "title": panel_title(one), "chart": f"path-{count}"}
            for count, one in enumerate(panels)
        ],
        "training": [(quantity.column, quantity.title) for quantity in QUANTITIES],
        "speed": table.speed_table(comparison),
        "speed_chart": "speed" in specs,
        "sweep": table.sweep_table(comparison, comparison.sweep) if comparison.sweep else None,
        "sweep_note": notes.sweep_note(comparison),
        "edges": notes.edge_warning(comparison),
        "notes": comparison.notes,
        "runs": [_run(run, target) for run in comparison.runs],
        "missing": [f"{method.key}-seed{seed}" for method in comparison.methods for seed in method.missing],
        "others": comparison.others,
        "command": commands[0] if len(commands) == 1 else "",
        "tables": _tables(comparison),
        "configs": _configs(comparison),
    }


def _key_of(comparison: Comparison, name: str) -> str:
    return next(method.key for method in comparison.methods if method.name == name)


def _single_facts(comparison: Comparison) -> Facts:
    run, cells = comparison.runs[0], table.cells(comparison.methods[0])
    state = "finished" if run.finished else f"unfinished: step {run.reached:,} of {run.steps:,}"
    names = [name for name in table.RESULT if name not in ("Difference", "Verdict", "Validation loss")]
    evals = run.evals
    loss = f"{units.decimal(evals.columns['eval_loss'][-1])} at step {evals.step[-1]:,}" if len(evals.step) else "–"
    return [
        ("Method", run.label),
        ("Seed", str(run.seed)),
        ("State", state),
        *((name, cells[name].text) for name in names),
        ("Validation loss", cells["Validation loss"].text if run.finished else loss),
        *(
            (f"Validation loss, {name}", units.decimal(losses[-1]))
            for name, losses in (evals.sources.items() if len(evals.sources) > 1 else ())
        ),
    ]


def _run(run: Run, target: Path) -> dict[str, Any]:
    relative = Path(os.path.relpath(run.folder, target)).as_posix()
    prefix = "" if relative == "." else f"{quote(relative)}/"
    state = f"unfinished: step {run.reached:,} of {run.steps:,}"
    if run.result is not None:
        state = f"{run.steps:,} steps, validation loss {units.decimal(run.result.eval_loss)}"
    return {
        "name": run.folder.name,
        "state": state,
        "links": [(f"{prefix}{name}", label) for name, label in RUN_FILES.items() if (run.folder / name).is_file()],
        "command": run.info.command,
    }


def _tables(comparison: Comparison) -> list[tuple[str, Facts]]:
    run = comparison.runs[0]
    found = [(name.capitalize(), _flat(getattr(run.info, name))) for name in ("data", "model", "environment")]
    first = dict(found[2][1])
    other = {name for one in comparison.runs for name, value in _flat(one.info.environment) if first.get(name) != value}
    if other:
        found[2][1].append(("differs between runs", ", ".join(sorted(other))))
    if convention := run.info.flops.get("convention"):
        found[1][1].append(("FLOPs convention", str(convention)))
    return found


def _flat(value: object) -> Facts:
    """Names and values; what is told of each of several sources, under the name of the source."""
    if not isinstance(value, Mapping):
        return [] if value is None else [("", str(value))]
    facts: Facts = []
    for name, one in value.items():
        if isinstance(one, Mapping) and one and all(isinstance(each, Mapping) for each in one.values()):
            facts += [(f"{inner}: {said}", text) for inner, each in one.items() for said, text in _flat(each)]
        else:
            facts.append((str(name).replace("_", " "), _shown(one)))
    return facts


def _shown(value: object) -> str:
    if value is None or (isinstance(value, Mapping | list) and not value):
        return "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)


def _configs(comparison: Comparison) -> list[tuple[str, str]]:
    """The resolved configuration: the comparison's, and that of each method's first run."""
    found = [] if comparison.single else [(COMPARISON, comparison.config)]
    for method in comparison.methods:
        for run in method.runs[:1]:
            found.append((f"{CONFIG} of {run.folder.name}", run.config))
    return [(name, text) for name, text in found if text]
