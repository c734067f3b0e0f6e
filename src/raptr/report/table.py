"""The tables of a comparison: cells with what is shown, what stands under it, and what it is sorted by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raptr import units
from raptr.config import own_model_of
from raptr.report.figures.boundary_loss import boundaries_of
from raptr.report.figures.stage_speed import speeds_of
from raptr.results.boundaries import Boundary
from raptr.results.equal_loss import Measure
from raptr.results.folder import Comparison, Method
from raptr.results.outcome import Losses, verdict_text
from raptr.results.statistics import DECIDED
from raptr.results.sweep_record import Sweep, Values


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table: what is shown, a second line under it, and the value to sort by."""

    text: str
    note: str = ""
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: the method's key (its colour is shown), its name, its cells by column; ``note`` is under the name."""

    method: str
    name: str
    cells: Mapping[str, Cell]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns that sort, but for those of words, and rows."""

    columns: tuple[str, ...]
    words: tuple[str, ...]
    rows: Sequence[Row]
    first: str = "Method"


RESULT = (
    "Validation loss",
    "Difference",
    "Verdict",
    "Total FLOPs",
    "Layer FLOPs",
    "Time",
    "Steps",
    "Tokens",
    "Epochs",
)


def cells(method: Method) -> dict[str, Cell]:
    """Returns the cells of one method's row, by column of ``RESULT``."""
    outcome, costs = method.outcome, method.outcome.costs
    finished, expected = len(outcome.seeds), len(method.runs) + len(method.missing)
    return {
        "Validation loss": loss_cell(outcome.loss),
        "Difference": difference_cell(outcome.loss),
        "Verdict": Cell(
            text=verdict_text(outcome),
            note=f"{finished} of {expected} runs finished" if method.unfinished else "",
            kind=outcome.decision.value,
        ),
        "Steps": Cell(text=units.count(costs["steps"]), value=costs["steps"]),
        "Layer FLOPs": Cell(text=units.quantity(costs["layer_flops"], "FLOP"), value=costs["layer_flops"]),
        "Total FLOPs": Cell(text=units.quantity(costs["total_flops"], "FLOP"), value=costs["total_flops"]),
        "Time": Cell(text=units.duration(costs["seconds"]), value=costs["seconds"]),
        "Tokens": Cell(text=units.quantity(costs["tokens"]), value=costs["tokens"]),
        "Epochs": Cell(text=units.decimal(costs["epochs"], digits=2), value=costs["epochs"]),
    }


def control_note(method: Method) -> str:
    """Returns what a control is, in words; nothing for a method.

    The size of a known control's model is given: its parameters and its FLOPs of a step are its own.
    """
    kind = own_model_of(method.control)
    if not kind:
        return f"control: {method.control}" if method.control else ""
    run = method.runs[0]
    parameters = units.quantity(run.info.model.get("parameters"))
    return f"{kind}: {units.layers([size for _, size in run.stacks])} layers, {parameters} parameters"


def loss_cell(losses: Losses) -> Cell:
    """Returns a mean loss with its interval and number of seeds."""
    spread = f"{units.interval(losses.interval)}, " if losses.interval else ""
    seeds = len(losses.values)
    return Cell(text=units.decimal(losses.mean), note=f"{spread}n = {seeds}" if seeds else "", value=losses.mean)


def difference_cell(losses: Losses) -> Cell:
    """Returns a paired difference with its interval."""
    return Cell(
        text=units.decimal(losses.difference, signed=True),
        note=units.interval(losses.difference_interval, signed=True) if losses.difference_interval else "",
        value=losses.difference,
    )


def saving_cell(method: Method, measure: Measure) -> Cell:
    """Returns the share saved at equal loss with its interval; it says so where the losses themselves are undecided."""
    saving = method.outcome.savings.get(measure)
    decided = method.outcome.decision in DECIDED
    if saving is None or saving.saving is None:
        return Cell(text=units.MISSING)
    note = ""
    if saving.interval:
        note = units.share_interval(saving.interval)
    if not decided:
        note = f"{note}\nundecided" if note else "undecided"
    text = units.share(saving.saving, at_least=saving.at_least)
    return Cell(text=text, note=note, value=saving.saving, kind="" if decided else "soft")


def result_table(comparison: Comparison) -> Table:
    """Returns the table of all methods."""
    rows = [Row(method=one.key, name=one.name, cells=cells(one), note=control_note(one)) for one in comparison.methods]
    return Table(columns=RESULT, words=("Verdict",), rows=rows)


def source_table(comparison: Comparison, sources: Sequence[str]) -> Table | None:
    """Returns the final losses and differences by validation source; None where there is one source."""
    if len(sources) < 2:
        return None
    columns = tuple(f"{name}{what}" for name in sources for what in ("", ": difference"))
    rows = []
    for method in comparison.methods:
        found = {name: method.outcome.sources[name] for name in sources if name in method.outcome.sources}
        own = {name: loss_cell(losses) for name, losses in found.items()}
        own |= {f"{name}: difference": difference_cell(losses) for name, losses in found.items()}
        missing = {column: Cell(text=units.MISSING) for column in columns}
        rows.append(Row(method=method.key, name=method.name, cells={**missing, **own}))
    return Table(columns=columns, words=(), rows=rows)


def saving_table(comparison: Comparison) -> Table | None:
    """Returns what each method saves at equal loss; None where there is nothing to compare."""
    others = [method for method in comparison.methods if method.outcome.savings]
    baseline = next((method for method in comparison.methods if method.key == comparison.baseline), None)
    if baseline is None or not others:
        return None
    rows = []
    for method in others:
        flops, seconds = (method.outcome.savings[measure] for measure in ("total_flops", "seconds"))
        reached = "" if flops.reached else f"its own: {baseline.name}'s was not reached"
        rows.append(
            Row(
                method=method.key,
                name=method.name,
                cells={
                    "At the loss": Cell(text=units.decimal(flops.loss), note=reached, value=flops.loss),
                    "Total FLOPs": Cell(
                        text=units.quantity(flops.method, "FLOP"),
                        note=f"{baseline.name}: {units.quantity(flops.baseline, 'FLOP')}",
                        value=flops.method,
                    ),
                    "FLOPs saved": saving_cell(method, "total_flops"),
                    "Time": Cell(
                        text=units.duration(seconds.method),
                        note=f"{baseline.name}: {units.duration(seconds.baseline)}",
                        value=seconds.method,
                    ),
                    "Time saved": saving_cell(method, "seconds"),
                },
            )
        )
    return Table(columns=("At the loss", "Total FLOPs", "FLOPs saved", "Time", "Time saved"), words=(), rows=rows)


def boundary_table(comparison: Comparison) -> Table | None:
    """Returns by how much the loss jumps at each stage boundary; None where there is none."""
    found = {method.key: boundaries_of(method) for method in comparison.methods}
    most = max((len(one) for one in found.values()), default=0)
    if not most:
        return None
    columns = tuple(f"Boundary {number}" for number in range(1, most + 1))
    rows = []
    for method in comparison.methods:
        own = {column: Cell(text=units.MISSING) for column in columns}
        for column, one in zip(columns, found[method.key], strict=False):
            notes = [_sizes_text(one)]
            if one.validation:
                notes.append(f"validation {units.decimal(one.validation[0])} to {units.decimal(one.validation[1])}")
            text = units.decimal(one.jump, signed=True)
            if one.interval:
                text += f" ± {units.decimal((one.interval[1] - one.interval[0]) / 2)}"
            own[column] = Cell(text=text, note="\n".join(notes), value=one.jump)
        if found[method.key]:
            rows.append(Row(method=method.key, name=method.name, cells=own))
    return Table(columns=columns, words=(), rows=rows)


def _sizes_text(boundary: Boundary) -> str:
    before, after = boundary.before, boundary.after
    if before.width == after.width == 1:
        return f"{units.layers(before.sizes)} to {units.layers(after.sizes)} layers"
    return f"{units.stage(before.sizes, before.width)} to {units.stage(after.sizes, after.width)}"


def speed_table(comparison: Comparison) -> Table | None:
    """Returns tokens per second and share of the time by stage; None where nothing was timed."""
    found = {method.key: speeds_of(method) for method in comparison.methods}
    most = max((len(one) for one in found.values()), default=0)
    if not most:
        return None
    columns = ("All stages", *(f"Stage {number}" for number in range(1, most + 1))) if most > 1 else ("All stages",)
    rows = []
    for method in comparison.methods:
        stages = found[method.key]
        own = {column: Cell(text=units.MISSING) for column in columns}
        if stages:
            seconds = sum(one.seconds for one in stages)
            speed = sum(one.tokens_per_second * one.seconds for one in stages) / seconds
            own["All stages"] = Cell(text=f"{units.quantity(speed)}/s", note=units.duration(seconds), value=speed)
        for column, one in zip(columns[1:], stages, strict=False):
            shares = f"{one.share:.0%} of the time, {one.flops_share:.0%} of the FLOPs"
            own[column] = Cell(
                text=f"{units.quantity(one.tokens_per_second)}/s",
                note=f"{units.stage(one.stage.sizes, one.stage.width)}\n{shares}",
                value=one.tokens_per_second,
            )
        rows.append(Row(method=method.key, name=method.name, cells=own))
    return Table(columns=columns, words=(), rows=rows)


def sweep_table(comparison: Comparison, sweep: Sweep) -> Table:
    """Returns the mean loss of every trial, a row a method; the chosen one is marked."""
    names: dict[str, Values] = {values_text(trial.values): trial.values for trial in sweep.trials}
    rows = []
    for method in comparison.methods:
        own = {name: Cell(text=units.MISSING) for name in names}
        for trial in sweep.trials:
            if trial.method == method.key:
                chosen = trial.values == sweep.chosen.get(method.key)
                note = "chosen" if chosen else ""
                if chosen and sweep.edges(method.key):
                    note = "chosen, at the edge"
                own[values_text(trial.values)] = Cell(
                    text=units.decimal(trial.mean) if trial.mean is not None else "diverged",
                    note=note,
                    value=trial.mean,
                    kind="chosen" if chosen else "",
                )
        rows.append(Row(method=method.key, name=method.name, cells=own))
    return Table(columns=tuple(names), words=(), rows=rows)


def values_text(values: Values) -> str:
    """Returns the values of a trial as people read them: ``learning_rate 0.001``."""
    return ", ".join(f"{key.removeprefix('training.')} {value}" for key, value in values.items())
