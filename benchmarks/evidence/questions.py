"""The questions, and the comparisons that answer them: each is `base.yaml` with some values and some of its entries."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raptr.compare.sweep import SEEDS_FROM, combinations, parse_sweep, trial_name

BASE = Path(os.path.relpath(Path(__file__).parent / "base.yaml"))  # as a command from here would say it

STABLE = (
    "training.lr_scheduler_type=warmup_stable_decay",
    "training.lr_scheduler_kwargs={num_decay_steps: 250, decay_type: linear}",
)
"""Constant, then a decay over the last quarter of the run, which is the last stage of 6-8-10-12."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One `raptr compare`.

    Attributes:
        name: of it, and of its folder.
        methods: names of entries; the first is what the others are compared with.
        values: that are other than in `base.yaml`.
        sweep: what is tuned for every method, as options of `--sweep`.
        tuning_seeds: of each trial.
        seeds: of the reported runs.
    """

    name: str
    methods: tuple[str, ...]
    values: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    tuning_seeds: int = 1
    seeds: int = 3

    def command(self, folder: Path, *more: str) -> list[str]:
        """The arguments of `raptr`."""
        tuned = [part for option in self.sweep for part in ("--sweep", option)]
        if tuned:
            tuned += ["--tuning-seeds", str(self.tuning_seeds)]
        methods = ["--methods", ",".join(self.methods), "--seeds", str(self.seeds)]
        return [
            "compare",
            str(BASE),
            f"name={self.name}",
            *self.values,
            *methods,
            *tuned,
            "--output",
            str(folder),
            *more,
        ]

    def trials(self) -> list[str]:
        """The names of the runs that tune."""
        grid: dict[str, list[Any]] = parse_sweep(self.sweep)
        return [
            trial_name(method, values, SEEDS_FROM + k)
            for k in range(self.tuning_seeds)
            for values in (combinations(grid) if grid else [])
            for method in self.methods
        ]

    def runs(self) -> list[str]:
        """The names of the reported runs, methods in turn."""
        return [f"{method}-seed{seed}" for seed in range(self.seeds) for method in self.methods]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        name: of it.
        asked: the question.
        comparisons: that answer it.
    """

    name: str
    asked: str
    comparisons: tuple[Comparison, ...]


CHOSEN = "training.learning_rate=2e-2"
"""The rate that `tuned` chose for full training."""

RATES = "training.learning_rate=6e-3,1e-2,2e-2,3e-2"

QUESTIONS = (
    Question(
        name="recipe",
        asked="Which choice moves RaPTr's difference from full training at equal total FLOPs, and by how much?",
        comparisons=(
            Comparison(name="tuned", methods=("full", "raptr"), sweep=(RATES,), tuning_seeds=2),
            Comparison(
                name="recipes",
                methods=(
                    "full",
                    "raptr",
                    "zero",
                    "bernoulli",
                    "sqrt",
                    "inverse",
                    "nothing_fixed",
                    "from_8",
                    "from_9",
                    "last_40",
                    "last_60",
                    "warmup_10",
                    "rewarm",
                    "constant_size",
                    "smaller",
                ),
                values=(CHOSEN,),
            ),
            Comparison(name="stable", methods=("full", "raptr", "last_40", "smaller"), values=(CHOSEN, *STABLE)),
            Comparison(
                name="micro",
                methods=("full", "raptr", "micro"),
                values=(CHOSEN, "training.per_device_train_batch_size=8", "training.gradient_accumulation_steps=2"),
            ),
        ),
    ),
)


def comparisons(names: list[str]) -> Iterator[Comparison]:
    """Those of some questions, or single ones by name; of all if none is named."""
    known = {one.name for question in QUESTIONS for one in question.comparisons} | {q.name for q in QUESTIONS}
    if unknown := sorted(set(names) - known):
        raise SystemExit(f"no question or comparison {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    for question in QUESTIONS:
        for comparison in question.comparisons:
            if not names or question.name in names or comparison.name in names:
                yield comparison
