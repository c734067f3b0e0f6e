"""A budget in seconds: what a step takes, by part."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from helpers.runs import tiny
from raptr.compare.budget import steps_of
from raptr.compare.step_timing import fit, read_clock
from raptr.errors import RaptrError
from raptr.plan import Full, LayerCosts, RaPTr, plan_cost
from raptr.train.task import prepare_task


def test_line_through_the_steps() -> None:
    assert fit([10.0, 20.0, 30.0], [7.0, 12.0, 17.0]) == pytest.approx((0.5, 2.0))
    slope, besides = fit([10.0, 20.0], [1.0, 3.0])  # the line would begin below 0
    assert besides == 0.0
    assert slope == pytest.approx((10 * 1 + 20 * 3) / (10**2 + 20**2))


@pytest.mark.parametrize(("flops", "seconds"), [([1.0, 2.0], [2.0, 2.0]), ([1.0, 2.0], [3.0, 2.0]), ([1.0], [1.0])])
def test_times_that_do_not_rise_are_refused(flops: list[float], seconds: list[float]) -> None:
    with pytest.raises(RaptrError, match=r"not slower here .*--budget flops"):
        fit(flops, seconds)


@pytest.mark.slow
def test_steps_are_timed_once_for_a_comparison(tmp_path: Path, cache: Path) -> None:
    # Large enough a model that its layers are most of a step.
    wide = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 2}
    config = tiny(
        model={"config": wide}, methods__raptr={"schedule": "2-4-6"}, data__sequence_length=64, checkpoints__every=1
    )
    task = prepare_task(config, cache)
    clock = read_clock(task, tmp_path, Console(quiet=True))
    costs = clock.costs(task.costs)
    record = json.loads((tmp_path / "clock.json").read_text())
    assert [part["layers"] for part in record["parts"]] == [[2], [4], [6]]
    assert costs.total == pytest.approx(record["parts"][2]["seconds"], rel=0.5), "the line is near what it goes through"
    assert read_clock(task, tmp_path, Console(quiet=True)) == clock
    assert not list(tmp_path.glob("checkpoints*"))


def test_a_budget_in_seconds_gives_the_time_of_full_training(cache: Path) -> None:
    task = prepare_task(tiny(training__max_steps=60), cache)
    # Half of a full step does not shrink with the path: twice the share of a budget in FLOPs.
    costs = LayerCosts(layers=((1.0,) * 4,), other=4.0)
    method = RaPTr("2-3-4")
    steps = steps_of(method, task, "seconds", costs)
    spent = sum(stage.total for stage in plan_cost(method.plan(task.shape, steps), costs))
    allowed = sum(stage.total for stage in plan_cost(Full().plan(task.shape, 60), costs))
    assert abs(spent - allowed) <= costs.total
    assert 60 < steps < steps_of(method, task, "seconds", LayerCosts(layers=((1.0,) * 4,)))
