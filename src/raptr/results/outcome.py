"""A method's numbers, and their paired differences from the baseline's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raptr.results.equal_loss import Measure, Saving, curve_of, savings
from raptr.results.run_files import Run
from raptr.results.statistics import DECIDED, Decision, Interval, decide, mean, t_interval
from raptr.rundir.metrics_lines import COUNTERS
from raptr.units import usable

COSTS = ("steps", "tokens", "epochs", "layer_flops", "total_flops", "seconds")


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Final validation losses over seeds, and their paired difference from the baseline's.

    ``mean`` and ``interval`` are None where a seed has no loss; the difference is over the seeds that both
    methods have finished.
    """

    values: tuple[float | None, ...]
    mean: float | None
    interval: Interval | None
    difference: float | None = None
    difference_interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one method came to.

    Attributes:
        costs: means over finished runs, of each of `COSTS`, but those that diverged, as long as others have not: what
            they took until then is no cost of the method; of the first run so far if none has finished.
        seeds: of the finished runs, in the order of the losses.
        loss: of all validation sources together.
        sources: of each validation source, where there are several.
        pairs: the number of seeds that method and baseline have both finished.
        decision: about the method, from the difference in ``loss`` and its interval; see `verdict_text`.
        savings: at equal loss; empty for the baseline, and where a run is missing or diverged.
    """

    costs: Mapping[str, float | None]
    seeds: tuple[int, ...]
    loss: Losses
    sources: Mapping[str, Losses]
    pairs: int
    decision: Decision
    savings: Mapping[Measure, Saving]


def outcome_of(runs: Sequence[Run], baseline: Sequence[Run] | None, *, complete: bool) -> Outcome:
    """Returns the numbers of a method.

    Args:
        runs: the method's, sorted by seed.
        baseline: those of the baseline; None if the method is the baseline, or if there is nothing to compare with.
        complete: whether all runs of both methods are there and finished.
    """
    done = [run for run in runs if run.finished]
    theirs = {run.seed: run for run in baseline or () if run.finished}
    paired = [run for run in done if run.seed in theirs]
    names = dict.fromkeys(name for run in done for name in run.evals.sources)
    loss = _losses(done, paired, theirs, None)
    decision = Decision.BASELINE
    if not complete:
        decision = Decision.UNFINISHED
    elif baseline is not None:
        decision = decide(loss.difference, loss.difference_interval)
    elif loss.mean is None:
        decision = Decision.DIVERGED
    ours, others = curve_of(paired), curve_of([theirs[run.seed] for run in paired])
    return Outcome(
        costs=_costs(runs, done),
        seeds=tuple(run.seed for run in done),
        loss=loss,
        sources={name: _losses(done, paired, theirs, name) for name in names},
        pairs=len(paired),
        decision=decision,
        savings=savings(ours, others) if ours is not None and others is not None else {},
    )


_VERDICTS = {
    Decision.UNDECIDED: "too short to decide",
    Decision.ONE_SEED: "one seed: no interval",
    Decision.DIVERGED: "diverged",
    Decision.UNFINISHED: "unfinished",
    Decision.BASELINE: "baseline",
}


def verdict_text(outcome: Outcome) -> str:
    """Return the decision as text with its number, such as "better by 0.050"."""
    decision, loss = outcome.decision, outcome.loss
    if decision in DECIDED:
        assert loss.difference is not None
        return f"{decision} by {abs(loss.difference):.3f}"
    if decision is Decision.DIVERGED and loss.mean is not None:  # the method itself has a loss
        return "the baseline diverged"
    return _VERDICTS[decision]


def final_loss(run: Run, source: str | None = None) -> float | None:
    """Returns the last validation loss of a finished run, of all sources or of one; None if it is no number."""
    if run.result is None:
        return None
    if source is None:
        return usable(run.result.eval_loss)
    return usable(run.result.eval_losses.get(source))


def _losses(done: Sequence[Run], paired: Sequence[Run], theirs: Mapping[int, Run], source: str | None) -> Losses:
    values = tuple(final_loss(run, source) for run in done)
    centre, interval = _centre(values)
    gaps = []
    for run in paired:
        ours, other = final_loss(run, source), final_loss(theirs[run.seed], source)
        gaps.append(None if ours is None or other is None else ours - other)
    difference, difference_interval = _centre(gaps)
    return Losses(
        values=values,
        mean=centre,
        interval=interval,
        difference=difference,
        difference_interval=difference_interval,
    )


def _centre(values: Sequence[float | None]) -> tuple[float | None, Interval | None]:
    """Mean and interval; nothing where a value is missing: the other seeds are not a fair sample."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return mean(known), t_interval(known)


def _costs(runs: Sequence[Run], done: Sequence[Run]) -> dict[str, float | None]:
    costs: dict[str, float | None] = {}
    whole = [run for run in done if final_loss(run) is not None]
    for name in COSTS:
        results = [run.result for run in whole or done if run.result is not None]
        values = [value for result in results if (value := usable(result.cost(name))) is not None]
        costs[name] = mean(values) if values else _so_far(runs[0], name) if runs else None
    return costs


def _so_far(run: Run, name: str) -> float | None:
    if name == "steps":
        return float(run.reached)
    return usable(float(run.train.columns[name][-1])) if name in COUNTERS and run.reached else None
