"""What came out, in one or two plain sentences."""

from raptr import units
from raptr.results.folder import Comparison, Method
from raptr.results.outcome import verdict_text
from raptr.results.statistics import DECIDED, Decision

BUDGETS = {
    "flops": "equal total FLOPs",
    "steps": "an equal number of steps",
    "tokens": "an equal number of tokens",
    "seconds": "equal wall-clock time",
}


def verdict_sentence(comparison: Comparison) -> str:
    """Returns what came out, for a reader who reads nothing else."""
    if comparison.single:
        return _single_sentence(comparison)
    if comparison.unfinished:
        runs = len(comparison.methods) * len(comparison.seeds)
        done = runs - comparison.unfinished
        return f"Not finished yet: {done} of {runs} runs are done, and nothing is decided."
    baseline = next((one for one in comparison.methods if one.key == comparison.baseline), None)
    others = [one for one in comparison.methods if one is not baseline]
    if baseline is None or not others:
        return "There is nothing to compare with: this comparison holds one method."
    if len(others) == 1:
        return _pair_sentence(others[0], baseline, comparison.budget) + _saving_sentence(others[0], baseline)
    return _many_sentence(others, baseline, comparison.budget)


def budget_text(budget: str) -> str:
    """Returns what is held equal, in words."""
    return BUDGETS.get(budget, f"equal {budget}")


def _single_sentence(comparison: Comparison) -> str:
    run, method = comparison.runs[0], comparison.methods[0]
    if run.finished:
        return (
            f"{method.name} finished {units.count(run.steps)} steps in "
            f"{units.duration(method.outcome.costs['seconds'])} "
            f"with a validation loss of {units.decimal(method.outcome.loss.mean)}."
        )
    return f"{method.name} is unfinished: {units.count(run.reached)} of {units.count(run.steps)} steps are done."


def _at(budget: str) -> str:
    return f" at {budget_text(budget)}" if budget else ""


def _pair_sentence(method: Method, baseline: Method, budget: str) -> str:
    outcome, loss = method.outcome, method.outcome.loss
    if loss.difference is None:
        return f"{method.name} against {baseline.name}{_at(budget)}: {verdict_text(outcome)}."
    direction = "lower" if loss.difference < 0 else "higher"
    size = units.decimal(abs(loss.difference))
    bounds = units.interval(loss.difference_interval, signed=True)
    seeds = f"{outcome.pairs} paired seeds"
    if outcome.decision in DECIDED:
        return (
            f"{method.name} ends {outcome.decision} than {baseline.name}{_at(budget)}: its validation loss is "
            f"{size} {direction} (95% interval of the difference {bounds}, {seeds})."
        )
    if outcome.decision is Decision.ONE_SEED:
        return (
            f"One seed only: {method.name} ends {size} {direction} than {baseline.name}{_at(budget)}, "
            "and nothing says how much of that is chance."
        )
    return (
        f"Too short to decide: {method.name} ends {size} {direction} than {baseline.name}"
        f"{_at(budget)}, but the 95% interval of the difference ({bounds}, {seeds}) includes zero."
    )


def _saving_sentence(method: Method, baseline: Method) -> str:
    """At which cost the two reach the same loss; only where the difference itself was decided."""
    saving = method.outcome.savings.get("total_flops")
    if saving is None or saving.saving is None or method.outcome.decision not in DECIDED:
        return ""
    bounds = ""
    if saving.interval:
        bounds = f" (saved: {units.share_interval(saving.interval)} over seeds)"
    more = saving.saving < 0
    bound = ("at most " if more else "at least ") if saving.at_least else ""
    flops = f"{bound}{abs(saving.saving):.0%} {'more' if more else 'fewer'} FLOPs"
    if saving.reached:
        return f" It reaches {baseline.name}'s final loss with {flops}{bounds}."
    return f" For its own final loss it spends {flops} than {baseline.name}{bounds}."


def _many_sentence(others: list[Method], baseline: Method, budget: str) -> str:
    undecided = sum(one.outcome.decision in (Decision.UNDECIDED, Decision.ONE_SEED) for one in others)
    open_ = len(others) - undecided - sum(one.outcome.decision in DECIDED for one in others)
    parts = [
        f"{len(names)} {'ends' if len(names) == 1 else 'end'} {decision} ({_names(names)})"
        for decision in DECIDED
        if (names := [one.name for one in others if one.outcome.decision is decision])
    ]
    if undecided:
        parts.append(f"{undecided} of {len(others)} cannot be told apart from it")
    if open_:
        parts.append(f"{open_} of {len(others)} {'has' if open_ == 1 else 'have'} no result (see the table)")
    seeds = max(one.outcome.pairs for one in others)
    counted = f"{seeds} paired seeds" if seeds > 1 else "one seed"
    return f"Against {baseline.name}{_at(budget)} over {counted}: {'; '.join(parts)}."


def _names(names: list[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
