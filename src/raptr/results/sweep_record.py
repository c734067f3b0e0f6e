"""``sweep.json``: what was tried for each method before the comparison, and what was chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raptr.errors import RaptrError
from raptr.rundir.paths import SWEEP, read_json
from raptr.units import usable

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination of values tried for one method; ``mean`` is None if a run of it diverged."""

    method: str
    values: Values
    losses: tuple[float | None, ...]
    mean: float | None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was tuned, with the same grid for every method.

    Attributes:
        grid: config key -> the values tried.
        seeds: of the trials; they are not those that are reported.
        trials: every method with every combination.
        chosen: method -> the values that its reported runs use.
    """

    grid: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    chosen: Mapping[str, Values]

    def edges(self, method: str) -> tuple[str, ...]:
        """The keys whose chosen value is the lowest or the highest that was tried: the best may lie beyond it.

        Only numbers have an edge.
        """
        found = []
        for key, values in self.grid.items():
            numbers = [number for value in values if (number := usable(value)) is not None]
            value = usable(self.chosen.get(method, {}).get(key))
            if len(numbers) == len(values) > 1 and value in (min(numbers), max(numbers)):
                found.append(key)
        return tuple(found)


def read_sweep(folder: Path) -> Sweep | None:
    """Returns the sweep of a comparison; None if there was none, or if it is not finished.

    Raises:
        RaptrError: ``sweep.json`` is broken.
    """
    path = folder / SWEEP
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        trials = tuple(
            Trial(
                method=str(trial["method"]),
                values=dict(trial["values"]),
                losses=tuple(usable(loss) for loss in trial["eval_loss"]),
                mean=usable(trial["mean"]),
            )
            for trial in content["trials"]
        )
        return Sweep(
            grid={str(key): tuple(values) for key, values in content["grid"].items()},
            seeds=tuple(int(seed) for seed in content.get("seeds", ())),
            trials=trials,
            chosen={str(label): dict(values) for label, values in content["chosen"].items()},
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RaptrError(
            f"{path} lacks or garbles {error}. Expected are grid, trials (method, values, eval_loss, mean) and chosen; "
            "repeat `raptr compare`, which writes it."
        ) from error
