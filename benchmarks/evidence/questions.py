"""The questions, and the comparisons that answer them: each is a base file with some values and some of its entries."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raptr.compare.sweep import SEEDS_FROM, combinations, parse_sweep, trial_name

STABLE = (
    "training.lr_scheduler_type=warmup_stable_decay",
    "training.lr_scheduler_kwargs={num_decay_steps: 175, decay_type: linear}",
)
"""Constant, then a decay over the last quarter of the run, which is the last stage of 6-8-10-12."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One `raptr compare`.

    Attributes:
        name: of it, and of its folder.
        methods: names of entries; the first is what the others are compared with.
        values: that are other than in the base file.
        sweep: what is tuned for every method, as options of `--sweep`.
        tuning_seeds: of each trial.
        seeds: of the reported runs.
        base: the name of its file.
        beside: a method with which the others are compared too, where the question is what changes it.
        against: another comparison, with whose full training the methods are compared too.
        figures: of its report that docs/results.md shows.
    """

    name: str
    methods: tuple[str, ...]
    values: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    tuning_seeds: int = 1
    seeds: int = 3
    base: str = "base.yaml"
    beside: str = ""
    against: str = ""
    figures: tuple[str, ...] = ("result",)

    @property
    def needs_gpu(self) -> bool:
        """Whether its runs would take days without one."""
        return self.base == "gpu.yaml"

    @property
    def config(self) -> str:
        """The base file, as a command from here would say it."""
        return os.path.relpath(Path(__file__).parent / self.base)

    def command(self, folder: Path, *more: str) -> list[str]:
        """The arguments of `raptr`."""
        tuned = [part for option in self.sweep for part in ("--sweep", option)]
        if tuned:
            tuned += ["--tuning-seeds", str(self.tuning_seeds)]
        methods = ["--methods", ",".join(self.methods), "--seeds", str(self.seeds)]
        return [
            "compare",
            self.config,
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


RATE = "training.learning_rate"

CHOSEN = f"{RATE}=2e-2"
"""The rate that `tuned` chose for full training."""

FROM_3 = "methods.from_3={method: gradual_stacking, schedule: 3-6-9-12}"
FROM_3_HALF = (
    "methods.from_3_half={method: gradual_stacking, schedule: 3-6-9-12, lengths: [0.1666, 0.1667, 0.1667, 0.5]}"
)
SMALLER_7 = "methods.smaller_7={method: smaller, layers: 7}"
"""As cheap a step as the mean one of 3-6-12."""

RIVALS = ("full", "raptr", "gradual_stacking", "smaller")
"""RaPTr, and what ended before it after the 700 steps of the first and the third question."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The same model trained for shorter and for longer.

    Attributes:
        model: what it is.
        short: names of comparisons; of a method that is in two of them the first counts.
        long: the same.
    """

    model: str
    short: tuple[str, ...]
    long: tuple[str, ...]


LENGTHS = (
    Lengths(model="Llama, 32 wide", short=("recipes", "methods", "stackings"), long=("32_at_20", "32_stackings")),
    Lengths(model="Llama, 64 wide", short=("64_at_2", "64_stackings"), long=("64_at_8",)),
    Lengths(model="BERT, 32 wide, norms after", short=("post_norm_rivals",), long=("post_norm_long",)),
)
"""Of which docs/results.md says how a lead changes with length."""


def sizes(number: int) -> dict[str, int]:
    """What a width of the first question's model is: heads of 32, and 8/3 of it in the MLP, up to a multiple of 8."""
    return {
        "hidden_size": number,
        "intermediate_size": 8 * math.ceil(number / 3),
        "num_attention_heads": number // 32,
        "num_key_value_heads": number // 32,
    }


def width(number: int) -> tuple[str, ...]:
    """The same as values of a comparison."""
    return tuple(f"model.config.{name}={value}" for name, value in sizes(number).items())


def steps(number: int) -> str:
    """Of full training."""
    return f"training.max_steps={number}"


QUESTIONS = (
    Question(
        name="recipe",
        asked="Which choice moves RaPTr's difference from full training at equal total FLOPs, and by how much?",
        comparisons=(
            Comparison(name="tuned", methods=("full", "raptr"), sweep=(f"{RATE}=6e-3,1e-2,2e-2",)),
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
                beside="raptr",
            ),
            Comparison(
                name="stable", methods=("full", "raptr", "last_40", "smaller"), values=(CHOSEN, *STABLE), beside="raptr"
            ),
            Comparison(
                name="micro",
                methods=("full", "raptr", "micro"),
                values=(CHOSEN, "training.per_device_train_batch_size=8", "training.gradient_accumulation_steps=2"),
                beside="raptr",
            ),
        ),
    ),
    Question(
        name="horizon",
        asked="At which width and after how many tokens for each parameter does RaPTr gain, or stacking?",
        comparisons=(
            # width 32 after 9.5 is in `recipes` and `methods`
            Comparison(name="32_at_2", methods=RIVALS, values=(CHOSEN, steps(147)), beside="smaller"),
            Comparison(name="32_at_20", methods=RIVALS, values=(CHOSEN, steps(1475)), beside="smaller"),
            Comparison(
                name="64_at_2",
                methods=RIVALS,
                values=(*width(64), steps(580)),
                sweep=(f"{RATE}=6e-3,1e-2,2e-2",),
                beside="smaller",
                figures=("result", "loss-flops", "path-map"),
            ),
            # the lowest of those rates was the best for three of the four
            Comparison(
                name="64_at_2_lower",
                methods=RIVALS,
                values=(*width(64), steps(580)),
                sweep=(f"{RATE}=1.5e-3,3e-3",),
                beside="smaller",
            ),
            Comparison(
                name="64_at_8",
                methods=("full", "raptr", "gradual_stacking"),
                values=(*width(64), steps(2360)),
                sweep=(f"{RATE}=6e-3,1e-2",),
            ),
            # 4.7 M tokens of full training, and 6.2 M of RaPTr: twice the text, so that nothing is read twice
            Comparison(
                name="128_at_2",
                methods=("full", "raptr"),
                values=(*width(128), steps(2315), "data.max_bytes=24_000_000"),
                sweep=(f"{RATE}=3e-3,6e-3",),
            ),
        ),
    ),
    Question(
        name="method",
        asked="Which method ends lowest at full training's FLOPs?",
        comparisons=(
            Comparison(
                name="methods",
                methods=(
                    "full",
                    "constant_size",
                    "reversed",
                    "pld",
                    "layerdrop",
                    "stochastic_depth",
                    "sequence_layer_dropout",
                    "gradual_stacking",
                    "midas",
                    "gstack",
                    "late_expansion",
                ),
                values=(CHOSEN,),
            ),
            Comparison(
                name="widths",
                methods=("full", "raptr", "width_raptr", "depth_width_raptr"),
                values=(CHOSEN, "model.config.num_attention_heads=4", "model.config.num_key_value_heads=4"),
            ),
        ),
    ),
    Question(
        name="bert",
        asked="Is it the same for BERT, with the norm after the layer as in the paper, and before it?",
        comparisons=(
            Comparison(
                name="post_norm",
                methods=("full", "raptr"),
                values=("model.architecture=bert",),
                sweep=(f"{RATE}=1e-3,3e-3,6e-3,1e-2",),
                base="bert.yaml",
            ),
            Comparison(
                name="post_norm_rivals",
                methods=("full", "raptr", "gradual_stacking", "constant_size", "smaller"),
                values=("model.architecture=bert", f"{RATE}=3e-3"),
                base="bert.yaml",
                beside="raptr",
            ),
            Comparison(
                name="post_norm_long",
                methods=RIVALS,
                # 8.2 M tokens of full training, 10.6 M of the others: more text, so that nothing is read twice
                values=("model.architecture=bert", f"{RATE}=3e-3", steps(4000), "data.max_bytes=30_000_000"),
                base="bert.yaml",
                beside="smaller",
            ),
            Comparison(
                name="pre_norm",
                methods=("full", "raptr"),
                values=("model.architecture=roberta-prelayernorm",),
                sweep=(f"{RATE}=3e-3,6e-3,1e-2,2e-2",),
                base="bert.yaml",
            ),
        ),
    ),
    Question(
        name="best",
        asked="Which configuration saves the most at full training's loss?",
        comparisons=(
            Comparison(
                name="stackings",
                methods=("full", "gradual_stacking", "from_3", "from_3_half", "progressive_stacking", "smaller_7"),
                values=(CHOSEN, FROM_3, FROM_3_HALF, SMALLER_7),
                beside="gradual_stacking",
            ),
            # whether what they save is there after twice as many tokens; 6-9-12 is in 32_at_20
            Comparison(
                name="32_stackings",
                methods=("full", "from_3", "progressive_stacking", "smaller_7"),
                values=(CHOSEN, steps(1475), FROM_3, SMALLER_7),
                beside="smaller_7",
            ),
            Comparison(
                name="64_stackings",
                methods=("full", "gradual_stacking", "from_3", "progressive_stacking", "smaller_7"),
                values=(f"{RATE}=6e-3", *width(64), steps(580), FROM_3, SMALLER_7),  # the rate that 64_at_2 chose
                beside="smaller_7",
            ),
            # planned for half of its FLOPs: does it end where full training does with all of them?
            Comparison(
                name="64_half",
                methods=("full", "from_3", "progressive_stacking", "smaller_7"),
                values=(f"{RATE}=6e-3", *width(64), steps(290), FROM_3, SMALLER_7),
                against="64_stackings",
            ),
        ),
    ),
    Question(
        name="gpu",
        asked="Does it gain at widths 512 and 768, and which method does?",
        comparisons=(  # seconds a run on an H100 or H200, expected at 150 and 250 TFLOP/s: 120 and 370
            Comparison(
                name="512_at_2",
                methods=("full", "raptr"),
                sweep=(f"{RATE}=1e-3,2e-3,4e-3",),
                base="gpu.yaml",
            ),
            Comparison(
                name="512_methods",
                methods=("full", "last_40", "constant_size", "gradual_stacking", "midas", "late_expansion", "smaller"),
                base="gpu.yaml",
            ),
            Comparison(
                name="768_at_2",
                methods=("full", "raptr"),
                values=(
                    "model.config.hidden_size=768",
                    "model.config.intermediate_size=2048",
                    "model.config.num_attention_heads=12",
                    "model.config.num_key_value_heads=12",
                    steps(2600),
                ),
                base="gpu.yaml",
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
