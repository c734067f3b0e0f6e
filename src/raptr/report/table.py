"""The verdict in one sentence, and the table of methods as cells."""

from dataclasses import dataclass

from raptr.report import units
from raptr.report.comparison import UNFINISHED, Comparison, Method

BUDGETS = {
    "flops": "equal total FLOPs",
    "steps": "an equal number of steps",
    "tokens": "an equal number of tokens",
    "seconds": "equal wall-clock time",
}
KINDS = ("better", "worse", "too short", "one seed", "baseline", UNFINISHED)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table: what is shown, a second line under it, and the value to sort by."""

    text: str
    note: str = ""
    value: float | None = None


COLUMNS = (
    "Steps",
    "Layer FLOPs",
    "Total FLOPs",
    "Time",
    "Tokens",
    "Epochs",
    "Validation loss",
    "Difference",
    "Verdict",
)


def verdict_kind(method: Method) -> str:
    """Returns which of ``KINDS`` the method's verdict is, "other" if none."""
    verdict = method.outcome.verdict.lower()
    return next((kind for kind in KINDS if verdict.startswith(kind)), "other")


def cells(method: Method) -> dict[str, Cell]:
    """Returns the cells of one method's row, by column."""
    outcome, costs = method.outcome, method.outcome.costs
    seeds = len(outcome.losses)
    spread = f"{units.interval(outcome.interval)}, " if outcome.interval else ""
    notes = [method.outcome.verdict or units.MISSING]
    if method.unfinished and notes[0] != UNFINISHED:
        notes.append("unfinished runs")
    done = len(method.runs) - method.unfinished
    return {
        "Validation loss": Cell(
            text=units.decimal(outcome.mean),
            note=f"{spread}n = {seeds}" if seeds else "",
            value=outcome.mean,
        ),
        "Difference": Cell(
            text=units.decimal(outcome.difference, signed=True),
            note=units.interval(outcome.difference_interval, signed=True) if outcome.difference_interval else "",
            value=outcome.difference,
        ),
        "Verdict": Cell(
            text=" · ".join(notes),
            note=f"{done} of {len(method.runs)} runs finished" if method.unfinished else "",
        ),
        "Steps": Cell(text=units.count(costs["steps"]), value=costs["steps"]),
        "Layer FLOPs": Cell(text=units.quantity(costs["layer_flops"], "FLOP"), value=costs["layer_flops"]),
        "Total FLOPs": Cell(text=units.quantity(costs["total_flops"], "FLOP"), value=costs["total_flops"]),
        "Time": Cell(text=units.duration(costs["seconds"]), value=costs["seconds"]),
        "Tokens": Cell(text=units.quantity(costs["tokens"]), value=costs["tokens"]),
        "Epochs": Cell(text=units.decimal(costs["epochs"], digits=2), value=costs["epochs"]),
    }


def verdict_sentence(comparison: Comparison) -> str:
    """Returns what came out, in one plain sentence."""
    if comparison.single:
        return _single_sentence(comparison)
    baseline = next((one for one in comparison.methods if one.key == comparison.baseline), None)
    others = [one for one in comparison.methods if one is not baseline]
    if all(not one.outcome.verdict or verdict_kind(one) == UNFINISHED for one in comparison.methods):
        done = sum(run.finished for run in comparison.runs)
        if done == len(comparison.runs):
            return f"All {done} runs are finished, but their summary has not been written yet."
        return f"Not finished yet: {done} of {len(comparison.runs)} runs are done, and nothing is decided."
    if baseline is None or not others:
        return "There is nothing to compare with: this comparison holds one method."
    if len(others) == 1:
        return _pair_sentence(others[0], baseline, comparison.budget)
    return _many_sentence(others, baseline, comparison.budget)


def _single_sentence(comparison: Comparison) -> str:
    run, method = comparison.runs[0], comparison.methods[0]
    if run.finished:
        return (
            f"{method.name} finished {units.count(run.steps)} steps in "
            f"{units.duration(method.outcome.costs['seconds'])} "
            f"with a validation loss of {units.decimal(method.outcome.mean)}."
        )
    reached = int(run.train.step[-1]) if len(run.train.step) else 0
    return f"{method.name} is unfinished: {units.count(reached)} of {units.count(run.steps)} steps are done."


def _budget(budget: str) -> str:
    return f" at {BUDGETS.get(budget, f'equal {budget}')}" if budget else ""


def _pair_sentence(method: Method, baseline: Method, budget: str) -> str:
    outcome, kind = method.outcome, verdict_kind(method)
    if outcome.difference is None:
        return f"{method.name} against {baseline.name}{_budget(budget)}: {outcome.verdict}."
    direction = "lower" if outcome.difference < 0 else "higher"
    size = units.decimal(abs(outcome.difference))
    bounds = units.interval(outcome.difference_interval, signed=True)
    seeds = f"{len(outcome.losses)} paired seeds"
    if kind in ("better", "worse"):
        return (
            f"{method.name} ends {kind} than {baseline.name}{_budget(budget)}: its validation loss is "
            f"{size} {direction} (95% interval of the difference {bounds}, {seeds})."
        )
    if kind == "one seed":
        return (
            f"One seed only: {method.name} ends {size} {direction} than {baseline.name}{_budget(budget)}, "
            "and nothing says how much of that is chance."
        )
    if kind == "too short":
        return (
            f"Too short to decide: {method.name} ends {size} {direction} than {baseline.name}"
            f"{_budget(budget)}, but the 95% interval of the difference ({bounds}, {seeds}) includes zero."
        )
    return f"{method.name} ends {size} {direction} than {baseline.name}{_budget(budget)}: {outcome.verdict}."


def _many_sentence(others: list[Method], baseline: Method, budget: str) -> str:
    groups = {kind: [one.name for one in others if verdict_kind(one) == kind] for kind in KINDS}
    undecided = len(groups["too short"]) + len(groups["one seed"])
    open_ = len(others) - undecided - len(groups["better"]) - len(groups["worse"])
    parts = [
        f"{len(names)} {'ends' if len(names) == 1 else 'end'} {kind} ({_names(names)})"
        for kind in ("better", "worse")
        if (names := groups[kind])
    ]
    if undecided:
        parts.append(f"{undecided} of {len(others)} cannot be told apart from it")
    if open_:
        parts.append(f"{open_} of {len(others)} {'has' if open_ == 1 else 'have'} no result (see the table)")
    seeds = max(len(one.outcome.losses) for one in others)
    counted = f"{seeds} paired seeds" if seeds > 1 else "one seed"
    return f"Against {baseline.name}{_budget(budget)} over {counted}: {'; '.join(parts)}."


def _names(names: list[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
