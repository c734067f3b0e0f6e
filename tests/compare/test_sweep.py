"""Hyper-parameters: what can be tuned, and what is chosen."""

import math

import pytest

from raptr.compare import parse_sweep
from raptr.compare.sweep import choose, combinations
from raptr.errors import RaptrError


def test_every_combination_once() -> None:
    grid = parse_sweep(["training.learning_rate=1e-3,2e-3", "training.weight_decay=0.0,0.1"])
    assert combinations(grid) == [
        {"training.learning_rate": rate, "training.weight_decay": decay}
        for rate in (1e-3, 2e-3)
        for decay in (0.0, 0.1)
    ]


def test_lowest_finite_loss_is_chosen() -> None:
    trials = [
        {"method": "full", "values": {"training.learning_rate": rate}, "mean": mean}
        for rate, mean in [(1, 3.0), (2, 2.5), (3, math.nan), (4, 2.5)]
    ]
    assert choose(trials) == {"training.learning_rate": 2}
    with pytest.raises(RaptrError, match=r"every trial of full diverged"):
        choose(trials[2:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["learning_rate=1,2"], r"not of the form training.KEY=VALUE"),
        (["training.learning_rate"], r"not of the form"),
        (["methods.raptr.fixed=1,2"], r"not of the form"),
        (["training.learning_rate=1e-3"], r"nothing to choose from"),
        (["training.learning_rate=1e-3,0.001"], r"nothing to choose from"),
        (["training.learning_rate=1,2", "training.learning_rate=3,4"], r"given twice"),
        (["training.max_steps=10,20"], r"cannot be tuned: it decides how much is trained"),
        (["training.learning_rate=1,[2"], r"YAML"),
    ],
)
def test_what_cannot_be_tuned_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(RaptrError, match=message):
        parse_sweep(options)
