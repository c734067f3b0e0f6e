"""What the command line prints, and how it reads small values."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.plan import LayerCosts, Plan, plan_cost
from raptr.rundir.run_record import Result
from raptr.units import count, decimal, duration, quantity, share


def parse_lengths(text: str) -> Any:
    """Stage lengths: equal, proportional, steps ("100-200-700") or shares of the run ("10%-20%-70%")."""
    words = ("equal", "proportional")
    if text in words:
        return text
    parts = text.split("-")
    try:
        if all(part.endswith("%") for part in parts):
            return [float(part[:-1]) / 100 for part in parts]
        return [int(part) for part in parts]
    except ValueError as error:
        near = did_you_mean(text, words)
        raise RaptrError(
            f"--lengths is {text!r}; expected equal, proportional, or lengths such as 10%-20%-70% or 100-200-700"
            + (f"; {near}" if near else ".")
        ) from error


def parse_warmup(text: str) -> int | float:
    """A count of steps, or a share of the run: "100", "10%", "0.1"."""
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if re.fullmatch(r"\d+", text) else float(text)
    except ValueError as error:
        raise RaptrError(f"--warmup {text!r} is neither a number of steps nor a share such as 10%.") from error


def parse_layers(text: str) -> list[int]:
    """Layer numbers joined by commas; nothing for none."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise RaptrError(f"--fixed {text!r} is not a list of layer numbers such as 0,-1.") from error


def show_plan(console: Console, label: str, plan: Plan, costs: LayerCosts | None, outlook: Sequence[str] = ()) -> None:
    """A table of the stages and the expected saving, and what was measured of a gain."""
    given = costs or LayerCosts.uniform(plan.shape)
    stages = plan_cost(plan, given)
    steps = plan.stages[-1].stop
    layers, total = sum(stage.layers for stage in stages), sum(stage.total for stage in stages)
    stacks = [f"{s.layers} layers" + ("" if s.name == "layers" else f" of {s.name}") for s in plan.shape.stacks]
    title = f"{label}: {count(steps)} steps, {' + '.join(stacks)}"
    table = Table("stage", title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("steps", "number", "layers", "layer FLOPs of full", *(["total FLOPs of full"] if costs else [])):
        table.add_column(column, justify="right")
    for number, stage in enumerate(stages, start=1):
        span = stage.stage
        table.add_row(
            "warm-up" if span.warmup else str(number - plan.stages[0].warmup),
            f"{span.start} to {span.stop - 1}",
            str(span.steps),
            replace(span, warmup=False).label,
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
    if outlook:
        lines += ["", *outlook]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def show_inspection(console: Console, found: Any) -> None:
    """What raptr sees in a model: parameters, stacks and what they always keep, FLOPs by part."""
    inside = sum(stack.parameters for stack in found.stacks)
    parts = f"{quantity(inside)} in layers, {quantity(found.embedding_parameters)} in embeddings"
    console.print(f"{found.model}: {quantity(found.parameters)} parameters ({parts})", highlight=False, soft_wrap=True)
    table = Table("stack", "layers", box=box.SIMPLE_HEAD)
    for column in ("parameters", "hidden", "heads", "key-value heads", "neurons"):
        table.add_column(column, justify="right")
    for stack in found.stacks:
        numbers = (stack.hidden_size, stack.heads, stack.key_value_heads, stack.neurons)
        known = ["unknown" if number is None else str(number) for number in numbers]
        layers = f"{stack.layers} of {', '.join(stack.kinds)}"
        table.add_row(stack.name, layers, quantity(stack.parameters), *known)
    console.print(table)
    needed = [(stack.name, *pair) for stack in found.stacks for pair in stack.required]
    lines = [f"always kept: layer {layer} of {name}, since {reason}" for name, layer, reason in needed]
    lines += (
        []
        if needed
        else ["No layer must be kept: any path can be trained (RaPTr keeps the first and the last by default)."]
    )
    lines += [_flops_by_part(found)] if found.costs is not None else [f"FLOPs are not known: {found.uncounted}"]
    if found.half_depth is not None:
        lines.append(
            f"RaPTr from half the layers in four equal stages takes {found.half_depth:.1%} of the FLOPs of full "
            "training for as many steps; what that saves at equal loss, `raptr compare` measures."
        )
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _flops_by_part(found: Any) -> str:
    size = "one image" if found.length is None else f"{count(found.length)} tokens"
    lines = [f"training FLOPs of {size}: {_flops(found.costs.total)}"]
    for stack, costs in zip(found.stacks, found.costs.layers, strict=True):
        for cost in dict.fromkeys(costs):
            which = f"{costs.count(cost)} of its layers" if len(set(costs)) > 1 else "its layers"
            share = costs.count(cost) * cost / found.costs.total
            lines.append(f"  {stack.name}: {_flops(cost)} in each of {which}, together {share:.1%}")
    rest = found.costs.other / found.costs.total
    return "\n".join([*lines, f"  head and the rest: {_flops(found.costs.other)}, {rest:.1%}"])


def show_summary(console: Console, summary: Any) -> None:
    """What a comparison found and what it took, in two tables that fit 100 columns."""
    seeds = len(summary["seeds"])
    title = f"{summary['name']}: equal {summary['budget']}, {seeds} seed{'s' if seeds != 1 else ''}"
    found = _table(
        title, "validation loss\n(95 %)", f"difference from\n{summary['baseline']} (95 %)", "FLOPs / time\nsaved*"
    )
    found.add_column("verdict", no_wrap=True)
    spent = _table("", "steps", "layer\nFLOPs", "total\nFLOPs", "time", "tokens", "epochs")
    for entry in summary["methods"].values():
        found.add_row(
            entry["label"],
            _with_interval(decimal(entry["mean"], 3), entry["interval"]),
            _with_interval(decimal(entry["difference"], 3, signed=True), entry["difference_interval"], signed=True)
            if entry["difference"] is not None
            else "",
            _saved(entry),
            entry["verdict"],
        )
        spent.add_row(
            entry["label"],
            count(entry["steps"]),
            _flops(entry["layer_flops"]),
            _flops(entry["total_flops"]),
            duration(entry["seconds"]),
            quantity(entry["tokens"]),
            decimal(entry["epochs"], 2),
        )
    console.print(found)
    if any(entry["savings"] for entry in summary["methods"].values()):
        console.print("  * until both had the same loss (undecided: in parentheses)", highlight=False, style="dim")
    if any(saving["at_least"] for entry in summary["methods"].values() for saving in entry["savings"].values()):
        console.print("  ≥ it was there at its first evaluation as a whole model", highlight=False, style="dim")
    console.print(spent)
    for warning in summary["warnings"]:
        console.print(f"! {warning}", highlight=False, style="red")
    for note in summary["notes"]:
        console.print(f"- {note}", highlight=False, style="dim")


def _table(title: str, *columns: str) -> Table:
    table = Table("method", title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _saved(entry: Any) -> str:
    """FLOPs and time saved; in parentheses where the losses themselves are undecided."""
    from raptr.results.statistics import DECIDED  # here, so that other commands do not load scipy

    if not entry["savings"]:
        return ""
    both = [entry["savings"][measure] for measure in ("total_flops", "seconds")]
    text = " / ".join(share(one["saving"], 0, at_least=one["at_least"]) for one in both)
    return text if entry["decision"] in DECIDED else f"({text})"


def show_result(console: Console, result: Result) -> None:
    """What a single run did."""
    sources, totals = result.eval_losses, result.totals
    show_facts(
        console,
        {
            "steps": f"{result.steps:.0f}",
            "tokens": f"{quantity(totals.tokens)} ({result.epochs:.2f} epochs)",
            "layer FLOPs": _flops(totals.layer_flops),
            "total FLOPs": _flops(totals.total_flops),
            "seconds": f"{totals.seconds:.1f}",
            **({"updates that were not made": str(skipped)} if (skipped := result.skipped_updates) else {}),
            "validation loss of the full model": f"{result.eval_loss:.4f}",
            **({f"  on {name}": f"{loss:.4f}" for name, loss in sources.items()} if len(sources) > 1 else {}),
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


def _with_interval(text: str, interval: Any, *, signed: bool = False) -> str:
    if interval is None:
        return text
    low, high = (decimal(end, 3, signed=signed) for end in interval)
    return f"{text}\n[{low}, {high}]"
