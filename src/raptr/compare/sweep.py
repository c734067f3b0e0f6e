"""Hyper-parameters, chosen for every method alike, on validation text that is not the reported one.

Every method is trained once with every combination of the values (and every tuning seed), as long as it
will be trained for the comparison. Its choice is the combination with the lowest validation loss on the
first half of the validation text; what the comparison reports is measured on the second half, with other
seeds.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from raptr.config import RunConfig
from raptr.config.yaml import read_value
from raptr.errors import RaptrError
from raptr.rundir.paths import TRIALS

Grid = Mapping[str, Sequence[Any]]
"""Config key -> the values that are tried."""

Values = dict[str, Any]
"""Config key -> one value."""

SEEDS_FROM = 1000  # tuning seeds are this far from the reported ones, so that no reported run was tuned on

_NOT_TUNED = ("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps")


def parse_sweep(options: Sequence[str]) -> dict[str, list[Any]]:
    """The grid of options such as "training.learning_rate=1e-3,2e-3,4e-3".

    Raises:
        RaptrError: an option of another form, a key that is no argument of ``training`` or that decides
            the budget, or fewer than two different values.

    Example:
        >>> parse_sweep(["training.learning_rate=1e-3,2e-3"])
        {'training.learning_rate': [0.001, 0.002]}
    """
    grid: dict[str, list[Any]] = {}
    for option in options:
        key, separator, text = option.partition("=")
        section, _, name = key.partition(".")
        if not separator or section != "training" or not name or "." in name:
            raise RaptrError(
                f"--sweep {option!r} is not of the form training.KEY=VALUE,VALUE,..., "
                "e.g. training.learning_rate=1e-3,2e-3."
            )
        if name in _NOT_TUNED:
            raise RaptrError(
                f"--sweep {key} cannot be tuned: it decides how much is trained, which is what is held equal."
            )
        if key in grid:
            raise RaptrError(f"--sweep {key} is given twice; give all its values in one option.")
        values = [read_value(part, f"--sweep {option}") for part in text.split(",")]
        if len(values) < 2 or any(a == b for a, b in itertools.combinations(values, 2)):
            raise RaptrError(f"--sweep {option!r} gives nothing to choose from; give two or more different values.")
        grid[key] = values
    return grid


def combinations(grid: Grid) -> list[Values]:
    """Every combination of the grid's values, in order.

    Example:
        >>> combinations({"training.learning_rate": [1, 2]})
        [{'training.learning_rate': 1}, {'training.learning_rate': 2}]
    """
    return [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]


def with_values(config: RunConfig, values: Values) -> RunConfig:
    """A config with values of a grid in it."""
    training = {key.removeprefix("training."): value for key, value in values.items()}
    return config.model_copy(update={"training": {**config.training, **training}})


def on_part(config: RunConfig, part: str) -> RunConfig:
    """A config that measures its loss on a part of the validation text, "tuning" or "report"."""
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"part": part})})


def trial_name(label: str, values: Values, seed: int) -> str:
    """The folder of a trial within the comparison: ``sweep/full-learning_rate-0.001-seed1000``."""
    given = "-".join(f"{key.removeprefix('training.')}-{value}" for key, value in values.items())
    return f"{TRIALS}/{label}-{given.replace('/', '_')}-seed{seed}"


def tuning_seeds(config: RunConfig, count: int) -> list[int]:
    """The seeds of the trials: 1000 and more after the config's own."""
    return [config.seed + SEEDS_FROM + k for k in range(count)]


def choose(trials: Sequence[Mapping[str, Any]]) -> Values:
    """The values of the trial with the lowest mean loss; of equal ones the first.

    Raises:
        RaptrError: every trial diverged.
    """
    finite = [trial for trial in trials if math.isfinite(trial["mean"])]
    if not finite:
        label = trials[0]["method"]
        raise RaptrError(f"every trial of {label} diverged; give --sweep smaller values.")
    values: Values = min(finite, key=lambda trial: float(trial["mean"]))["values"]
    return values
