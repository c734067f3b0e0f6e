"""What the command line prints, and how it reads small values."""

import re
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from raptr.errors import RaptrError
from raptr.plan import LayerCosts, Plan, plan_cost
from raptr.report.units import count, quantity


def parse_lengths(text: str) -> Any:
    """Stage lengths: equal, proportional, steps ("100-200-700") or shares of the run ("10%-20%-70%")."""
    if not re.match(r"\d", text):
        return text
    parts = text.split("-")
    try:
        if all(part.endswith("%") for part in parts):
            return tuple(float(part[:-1]) / 100 for part in parts)
        return tuple(int(part) for part in parts)
    except ValueError as error:
        raise RaptrError(
            f"--lengths {text!r} is not 'equal', 'proportional', steps ('100-200-700') or shares ('10%-20%-70%')."
        ) from error


def parse_warmup(text: str) -> int | float:
    """A count of steps, or a share of the run: "100", "10%", "0.1"."""
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if re.fullmatch(r"\d+", text) else float(text)
    except ValueError as error:
        raise RaptrError(f"--warmup {text!r} is neither a number of steps nor a share such as 10%.") from error


def parse_layers(text: str) -> tuple[int, ...]:
    """Layer numbers joined by commas; nothing for none."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise RaptrError(f"--fixed {text!r} is not a list of layer numbers such as 0,-1.") from error


def show_plan(console: Console, label: str, plan: Plan, costs: LayerCosts | None) -> None:
    """A table of the stages and the expected saving."""
    given = costs or LayerCosts.uniform(plan.shape)
    stages = plan_cost(plan, given)
    steps = plan.stages[-1].stop
    layers, total = sum(stage.layers for stage in stages), sum(stage.total for stage in stages)
    title = f"{label}: {count(steps)} steps, {' + '.join(f'{s.layers} layers of {s.name}' for s in plan.shape.stacks)}"
    table = Table("stage", title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("steps", "number", "layers", "layer FLOPs of full", *(["total FLOPs of full"] if costs else [])):
        table.add_column(column, justify="right")
    for number, stage in enumerate(stages, start=1):
        span = stage.stage
        table.add_row(
            "warm-up" if span.warmup else str(number - plan.stages[0].warmup),
            f"{span.start} to {span.stop - 1}",
            str(span.steps),
            "+".join(map(str, span.sizes)),
            f"{stage.layers / (span.steps * given.all_layers):.1%}",
            *([f"{stage.total / (span.steps * given.total):.1%}"] if costs else []),
        )
    console.print(table)
    whole_layers, whole = steps * given.all_layers, steps * given.total
    lines = [f"layer FLOPs: {layers / whole_layers:.1%} of full training, {whole_layers / layers:.3f}x fewer"]
    if costs:
        lines.append(
            f"total FLOPs: {total / whole:.1%} of full training, {whole / total:.3f}x fewer "
            f"({_flops(total)} instead of {_flops(whole)}; "
            f"layers are {given.all_layers / given.total:.0%} of a full step)"
        )
    lines.append("A saving in FLOPs is not a saving at equal loss: `raptr compare` measures that.")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def show_summary(console: Console, summary: Any) -> None:
    """The table of a comparison."""
    seeds = len(summary["seeds"])
    title = f"{summary['name']}: equal {summary['budget']}, {seeds} seed{'s' if seeds != 1 else ''}"
    table = Table("method", title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("steps", "layer\nFLOPs", "total\nFLOPs", "seconds", "tokens", "epochs"):
        table.add_column(column, justify="right")
    for column in ("validation loss\n(95 % interval)", f"difference from\n{summary['baseline']} (95 %)", "verdict"):
        table.add_column(column)
    for entry in summary["methods"].values():
        table.add_row(
            entry["label"],
            str(entry["steps"]),
            _flops(entry["layer_flops"]),
            _flops(entry["total_flops"]),
            f"{entry['seconds']:.0f}",
            quantity(entry["tokens"]),
            f"{entry['epochs']:.2f}",
            _with_interval(entry["mean"], entry["interval"], ".3f"),
            ""
            if entry["difference"] is None
            else _with_interval(entry["difference"], entry["difference_interval"], "+.3f"),
            entry["verdict"],
        )
    console.print(table)
    for note in summary["notes"]:
        console.print(f"- {note}", highlight=False, style="dim")


def show_result(console: Console, result: Any) -> None:
    """What a single run did."""
    show_facts(
        console,
        {
            "steps": f"{result['steps']:.0f}",
            "tokens": f"{quantity(result['tokens'])} ({result['epochs']:.2f} epochs)",
            "layer FLOPs": _flops(result["layer_flops"]),
            "total FLOPs": _flops(result["total_flops"]),
            "seconds": f"{result['seconds']:.1f}",
            "validation loss of the full model": f"{result['eval_loss']:.4f}",
        },
    )


def show_facts(console: Console, facts: dict[str, Any]) -> None:
    """Names and values, one a line; nested values are joined."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), text)
    console.print(table, highlight=False)


def _flops(value: float) -> str:
    return quantity(value, "FLOP")


def _with_interval(value: float, interval: Any, form: str) -> str:
    return f"{value:{form}}" + ("" if interval is None else f"\n[{interval[0]:{form}}, {interval[1]:{form}}]")
