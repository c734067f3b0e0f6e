"""Jumps of the loss at stage boundaries."""

import math

import pytest

from raptr import RaPTr
from raptr.plan import ModelShape, Schedule
from raptr.rundir.metrics_lines import BoundaryLine
from raptr.train.callbacks.boundary import Boundaries

PLAN = RaPTr(Schedule.parse("2-3-4", lengths=(8, 4, 8))).plan(ModelShape.of(layers=4), 20)  # stages of 8, 4 and 8 steps


def all_of(losses: list[float], window: int) -> list[BoundaryLine]:
    seen = Boundaries(window)
    return [found for step, loss in enumerate(losses) if (found := seen.add(PLAN, step, loss)) is not None]


def test_the_stages_are_as_this_test_needs_them() -> None:
    assert [(stage.start, stage.stop) for stage in PLAN.stages] == [(0, 8), (8, 12), (12, 20)]


@pytest.mark.parametrize("window", [1, 3, 5])
def test_each_boundary_is_compared_with_what_was_before_it(window: int) -> None:
    losses = [10 - 0.3 * step + (step == 8) * 2 - (step >= 12) for step in range(20)]
    first, second = all_of(losses, window)
    assert (first.step, first.stage, first.window) == (8, 1, min(window, 4))
    assert (second.step, second.stage, second.window) == (12, 2, window)
    before, after = losses[8 - window : 8], losses[8 : 8 + min(window, 4)]
    assert first.jump == pytest.approx(sum(after) / len(after) - sum(before) / len(before))
    assert first.peak == pytest.approx(losses[8] - sum(before) / len(before))
    before = losses[max(0, 12 - window) : 12]
    after = losses[12 : 12 + window]
    assert second.jump == pytest.approx(sum(after) / len(after) - sum(before) / len(before))


def test_a_loss_that_is_no_number_gives_none() -> None:
    losses = [1.0] * 20
    losses[8] = math.nan
    first, second = all_of(losses, 3)
    assert math.isnan(first.jump)
    assert second.jump == 0
    assert not math.isnan(all_of([1.0] * 20, 3)[0].jump)


def test_it_goes_on_from_its_losses() -> None:
    losses = [1 / (step + 1) for step in range(20)]
    for stop in range(20):
        seen, again = Boundaries(4), Boundaries(4)
        found = [seen.add(PLAN, step, loss) for step, loss in enumerate(losses[:stop])]
        again.losses = list(seen.losses)
        found += [again.add(PLAN, step, loss) for step, loss in enumerate(losses[stop:], start=stop)]
        assert [one for one in found if one] == all_of(losses, 4), stop
