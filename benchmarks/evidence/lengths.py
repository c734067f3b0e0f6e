"""What a longer run does to a method's lead: its difference from full training, in a short and in a long comparison.

Both differences are paired by seed, and so is their change: seed k of the long run has the weights and the order of
the text that seed k of the short one began with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from points import is_finished
from questions import LENGTHS, comparisons

from raptr.results import read_folder
from raptr.results.folder import Comparison, Method
from raptr.results.statistics import mean, t_interval


@dataclass(frozen=True, kw_only=True)
class Change:
    """Of one method.

    Attributes:
        model: that is trained.
        method: its key.
        tokens: for each parameter of the layers that full training reads: in the short run, in the long one.
        short: the differences from full training in nats by seed.
        long: the same.
    """

    model: str
    method: str
    tokens: tuple[float, float]
    short: dict[int, float]
    long: dict[int, float]

    @property
    def differences(self) -> tuple[list[float], list[float]]:
        """The short run's and the long one's, of all their seeds."""
        return list(self.short.values()), list(self.long.values())

    @property
    def values(self) -> list[float]:
        """Long less short, for every seed that both have: above 0, the method loses with length."""
        return [self.long[seed] - self.short[seed] for seed in sorted(self.short.keys() & self.long.keys())]

    @property
    def mean(self) -> float:
        """Of them."""
        return mean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of it; None for one seed."""
        return t_interval(self.values)


def changes(stored: Path) -> Iterator[Change]:
    """Those of every method that has both, in the order of the long comparisons."""
    known = {one.name: one for one in comparisons([])}
    for lengths in LENGTHS:
        short, long = (
            [read_folder(stored / name) for name in names if is_finished(known[name], stored / name)]
            for names in (lengths.short, lengths.long)
        )
        for late in long:
            for method in others(late):
                pair = next(((early, one) for early in short for one in others(early) if one.key == method.key), None)
                if pair is None:
                    continue
                early, before = pair
                yield Change(
                    model=lengths.model,
                    method=method.key,
                    tokens=(tokens(early), tokens(late)),
                    short=differences(before, baseline(early)),
                    long=differences(method, baseline(late)),
                )


def baseline(found: Comparison) -> Method:
    """Full training."""
    return next(method for method in found.methods if method.key == found.baseline)


def others(found: Comparison) -> Sequence[Method]:
    """The methods that were trained and are not it."""
    return [method for method in found.methods if method.runs and method.key != found.baseline]


def tokens(found: Comparison) -> float:
    """For each parameter of the layers."""
    full = baseline(found)
    return float(full.outcome.costs["tokens"] or 0) / full.runs[0].info.model["layer_parameters"]


def differences(method: Method, other: Method) -> dict[int, float]:
    """Of the losses by seed, where both have one."""
    ours, theirs = (dict(zip(one.outcome.seeds, one.outcome.loss.values, strict=True)) for one in (method, other))
    pairs = ((seed, ours[seed], theirs.get(seed)) for seed in ours)
    return {seed: one - two for seed, one, two in pairs if one is not None and two is not None}
