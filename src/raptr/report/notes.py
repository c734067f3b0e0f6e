"""What stands under the headings: how each figure and table was made, and what it cannot say."""

from collections.abc import Sequence

from raptr.config import own_model_of
from raptr.report.figures.boundary_loss import boundaries_of, levels_of
from raptr.report.figures.common import CROWD
from raptr.report.figures.path_panels import Panel
from raptr.report.recorded_paths import Source
from raptr.report.table import values_text
from raptr.report.verdict import budget_text
from raptr.results.active_loss import grows
from raptr.results.equal_loss import FEWEST, RESAMPLES
from raptr.results.folder import Comparison, Method
from raptr.rundir.boundary_jump import WINDOW

MANY = 10  # seeds: with fewer, the bootstrap's intervals are clearly too short
COVERAGE = "in simulations 75% with 3 seeds, 83% with 5 and 89% with 10"

GROWN = (
    "Here the curve of a method that grows begins at its first evaluation after its last boundary: until then a "
    "smaller model is trained, and whatever that reaches, it is another model. What such a method had reached when it "
    "became whole counts as reached at that evaluation, which can be late by one interval between evaluations: the "
    "saving is then marked ≥, at least. Where that is so of more than 2.5% of the draws, its interval has no upper end."
)

READING = (
    "Validation loss is that of the full model, all layers running, on held-out data. Only the curves of a method "
    "that grows show the part trained so far until its last boundary, before which the full model still holds "
    "untrained layers. Final losses and savings are always those of the full model. "
    "Training loss is that of the part that was trained in the step: while a part is trained, "
    "the two are not comparable.",
    "Layer FLOPs count the transformer's layers only; total FLOPs add what does not shrink with the path: "
    "embeddings, head and loss. Seconds leave out validation.",
    "Intervals are 95% t-intervals over seeds. The difference is paired: method minus baseline within each seed, "
    "so below zero is better. Where its interval includes zero, the runs were too short or too few to decide.",
)


def result_note(comparison: Comparison) -> str:
    """Under the table of methods."""
    seeds = sorted({len(method.outcome.seeds) for method in comparison.methods})
    counted = " to ".join(str(number) for number in {seeds[0]: 0, seeds[-1]: 0})
    parts = [f"Compared at {budget_text(comparison.budget)}." if comparison.budget else ""]
    parts.append(f"n = {counted} {'seed' if seeds == [1] else 'seeds'} a method; costs are means over them.")
    parts.append("Under a loss and a difference stands the 95% interval. Difference: method minus baseline.")
    controls = dict.fromkeys(method.control for method in comparison.methods if own_model_of(method.control))
    for control in controls:
        names = [method.name for method in comparison.methods if method.control == control]
        parts.append(
            f"{'; '.join(names)}: {own_model_of(control)}, trained whole, as a control. "
            "It has parameters and FLOPs of a step of its own, and its loss is that of all its layers."
        )
    return " ".join(part for part in parts if part)


def tuning_note(comparison: Comparison) -> tuple[str, str] | None:
    """What was tuned: a label, and what it means; None for a single run."""
    if comparison.single:
        return None
    if comparison.sweep is not None:
        keys = " and ".join(key.removeprefix("training.") for key in comparison.sweep.grid)
        return f"Tuned: {keys}", "for every method, with the same number of trials; see below."
    if comparison.tuned:
        return "Tuning is not finished", "the trials come before the runs that are reported."
    return "Nothing was tuned", (
        "all methods use one learning rate and batch size, which may suit one of them better than the others."
    )


def saving_note(comparison: Comparison) -> str:
    """Above the savings."""
    pairs = max((method.outcome.pairs for method in comparison.methods), default=0)
    parts = [
        "How much less a method had spent than the baseline when both first reached the same validation loss, "
        "the higher of their two final ones; below zero it had spent more. "
        "Where the difference between the final losses is undecided, so is the saving."
    ]
    if pairs < FEWEST:
        parts.append(f"Fewer than {FEWEST} seeds: no interval.")
    else:
        parts.append("Dots: single pairs of seeds; bar: 95% bootstrap interval over seeds.")
        if any(_is_open(method) for method in comparison.methods):
            parts.append("A bar that runs to the edge has no upper end: the method may have saved more.")
    return " ".join(parts)


def _is_open(method: Method) -> bool:
    intervals = [saving.interval for saving in method.outcome.savings.values()]
    return any(interval is not None and interval[1] is None for interval in intervals)


def saving_details(comparison: Comparison) -> tuple[str, ...]:
    """How the savings were computed, and how far they can be trusted."""
    pairs = max((method.outcome.pairs for method in comparison.methods), default=0)
    few = (
        f"With {pairs} seeds the bootstrap hardly does more than show their range: an interval that is called 95% "
        f"covers the truth clearly less often ({COVERAGE})."
    )
    return (
        "Curves are means over seeds at equal shares of the run, made monotone by isotonic regression and linearly "
        "interpolated between evaluations.",
        *([GROWN] if growing(comparison) else []),
        "One of the two methods is looked at before its end, where its learning rate had not yet come down: a run "
        "planned to end there would mostly have been better. That draws the figure towards zero, for savings and for "
        "losses alike.",
        f"The interval: pairs of seeds are drawn with replacement ({RESAMPLES:,} times, from a fixed seed), and all of "
        "it is computed again from each draw.",
        *([few] if FEWEST <= pairs < MANY else []),
    )


def growing(comparison: Comparison) -> list[str]:
    """The names of the methods that have recorded the loss of a trained part."""
    return [method.name for method in comparison.methods if any(grows(run) for run in method.runs)]


def loss_note(comparison: Comparison) -> str:
    """Above the loss curves."""
    parts, crowded = ["Lower is better."], len(comparison.methods) > CROWD
    if any(len(method.runs) > 1 for method in comparison.methods):
        parts.append(
            "Line: mean over seeds; band: its 95% t-interval; faint lines: the seeds. "
            "The band of a few seeds is wide and is cut off where it would flatten the curves."
            + (f" Bands and seeds are shown while {CROWD} methods or fewer are switched on." if crowded else "")
        )
    if any(len(run.stages) > 1 for run in comparison.runs):
        parts.append("A diamond marks where a method begins its next stage.")
    if grown := growing(comparison):
        parts.append(
            "Until its last boundary a growing method's curve is that of the part trained so far "
            f"({'; '.join(grown)}); point at it to see the full model's loss, which can be far above this axis."
        )
    if len(comparison.methods) > 1:
        parts.append("Press a method to switch it off everywhere; point at a curve for its numbers.")
    return " ".join(parts)


def boundary_note(comparison: Comparison) -> str:
    """Above the figures of stage boundaries."""
    seeds = "" if comparison.single else ", mean over seeds with its 95% t-interval"
    grown = " (of the part trained so far, of a method that grows)" if growing(comparison) else ""
    unknown = [method.name for method in comparison.methods if any(one.jump is None for one in boundaries_of(method))]
    no_line = [method.name for method in comparison.methods if method.name not in unknown and _lacks_line(method)]
    missing = (
        f" No jump (–) and no line where the steps on both sides were not all recorded: {'; '.join(unknown)}."
        if unknown
        else ""
    )
    if no_line:
        missing += f" The jump was recorded, but not every step before it, so there is no line: {'; '.join(no_line)}."
    return (
        "Line: training loss of the trained part, from its level just before the boundary; diamonds: validation loss "
        f"of the full model{grown} at the evaluations around it, from the first of them. "
        f"Jump in the table: mean training loss of the first {WINDOW} steps of the new stage (all, if it has fewer) "
        f"minus that of the last {WINDOW} before it{seeds}. A larger part fits better by itself, so a fall is no gain; "
        "a rise means that the new layers disturb."
        f"{missing}"
    )


def _lacks_line(method: Method) -> bool:
    """Whether at some boundary a run has not recorded the steps before it."""
    runs = [run for run in method.runs if run.finished] or list(method.runs)
    return any(None in levels_of(runs, one) for one in boundaries_of(method))


def paths_note(comparison: Comparison, panels: Sequence[Panel]) -> str:
    """Above the path maps."""
    one = "" if comparison.single else " Shown is each method's first seed; all panels have the same step axis."
    narrow = any(stage.width < 1 for run in comparison.runs for stage in run.stages)
    width = " (× 50 %: with this share of the heads and neurons of each)" if narrow else ""
    return (
        "A column is a step (or a few neighbouring ones), a row is a layer, layer 0 at the bottom: "
        "the stronger the colour, the larger the share of these steps in which the layer was trained. "
        f"The gaps are stage boundaries, the number above is how many layers each step of the stage trained{width}."
        f"{one}"
        f"{_known_note(comparison, panels)}"
    )


def _known_note(comparison: Comparison, panels: Sequence[Panel]) -> str:
    """Of which methods not every step was recorded, and what is drawn of the others."""
    sources: dict[str, Source] = {one.method: one.source for one in panels}
    thinned = _thinned(comparison)
    planned = "; ".join(told for name, told in thinned.items() if sources[name] == "plan")
    some = "; ".join(told for name, told in thinned.items() if sources[name] == "some")
    parts = []
    if planned:
        parts.append(
            f" Of {planned} not every step has a record: the others are drawn as the plan of the run says, "
            "which trains what was recorded wherever there is a record."
        )
    if some:
        parts.append(
            f" Of {some} not every step has a record, and of the white between nothing is known: a thin line is one "
            "recorded step (or a few neighbouring ones, where there are many)."
        )
    return "".join(parts)


def _thinned(comparison: Comparison) -> dict[str, str]:
    """The methods of whose first run not every step has a record, each told with how many have one."""
    runs = {method.name: method.runs[0] for method in comparison.methods if method.runs}
    return {
        name: f"{name} ({len(run.train.step):,} of {run.reached:,})"
        for name, run in runs.items()
        if len(run.train.step) < run.reached
    }


def training_note(comparison: Comparison) -> str:
    """Above the curves of training."""
    which = "" if comparison.single else ", each method's first seed"
    thinned = "; ".join(_thinned(comparison).values())
    return (
        f"By step{which}. Loss and gradient norm are of the trained part; line: moving average over a fortieth "
        "of the run; faint: the values themselves (means of neighbours in long runs)"
        + (f", shown while {CROWD} methods or fewer are switched on." if len(comparison.methods) > CROWD else ".")
        + (f" Not every step has a record, and averages are of those that have one: {thinned}." if thinned else "")
    )


def sweep_note(comparison: Comparison) -> str:
    """Above the trials."""
    sweep = comparison.sweep
    if sweep is None:
        return ""
    seeds = f"{len(sweep.seeds)} seed{'s' if len(sweep.seeds) != 1 else ''}"
    return (
        f"Mean validation loss of every trial over {seeds}, on the part of the validation text that is not reported, "
        "with seeds that are not reported either. Every method was given the same trials; the lowest loss chose."
    )


def edge_warning(comparison: Comparison) -> str:
    """Which methods' choices lie at the end of what was tried."""
    sweep = comparison.sweep
    if sweep is None:
        return ""
    found = [
        f"{method.name} ({values_text({key: sweep.chosen[method.key][key] for key in keys})})"
        for method in comparison.methods
        if (keys := sweep.edges(method.key))
    ]
    if not found:
        return ""
    return (
        f"Chosen at the edge of the grid: {'; '.join(found)}. A better value may lie beyond it; "
        "such a method is not at its best here. Compare again with a wider sweep."
    )
