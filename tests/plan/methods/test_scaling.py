"""Scales of kept layers, learning rates at boundaries and lengths with an exponent: by hand."""

import math
from typing import Any

import pytest

from raptr.plan import ModelShape, RaPTr, Schedule, Stage, Subnetwork, TransitionLR, lr_factor_of, plan_cost
from raptr.plan.methods import MIDAS, ConstantSize, Full, Reversed

TWELVE = ModelShape.of(layers=12)


def scales(method: Any, step: int, shape: ModelShape = TWELVE, steps: int = 400) -> dict[int, float]:
    """The scale of each kept layer of the first stack."""
    return {layer: part.scale for layer, part in method.plan(shape, steps).subnetwork(step).kept(0)}


@pytest.mark.parametrize("sampler", ["fixed", "bernoulli"])
def test_inverse_divides_by_the_probability_and_leaves_fixed_layers(sampler: Any) -> None:
    method = RaPTr("6-8-10-12", scaling="inverse", sampler=sampler)
    for step, p in ((0, 0.4), (99, 0.4), (100, 0.6), (250, 0.8)):
        found = scales(method, step)
        assert found.pop(0) == found.pop(11) == 1
        assert list(found.values()) == pytest.approx([1 / p] * len(found))
    assert set(scales(method, 300).values()) == {1.0}


def test_inverse_follows_the_fixed_set_of_the_stage() -> None:
    method = RaPTr("6-6-12", fixed=((0, 1, 2), (), (0,)), scaling="inverse")
    first, second = scales(method, 0, steps=300), scales(method, 100, steps=300)
    assert [first[layer] for layer in (0, 1, 2)] == [1, 1, 1]
    assert [scale for layer, scale in first.items() if layer > 2] == pytest.approx([3.0] * 3)  # p = 3 / 9
    assert list(second.values()) == pytest.approx([2.0] * 6)  # p = 6 / 12


def test_sqrt_is_of_the_layers_that_a_step_really_keeps() -> None:
    for step, size in ((0, 6), (100, 8), (200, 10)):
        found = scales(RaPTr("6-8-10-12", scaling="sqrt"), step)
        assert list(found.values()) == pytest.approx([math.sqrt(12 / size)] * size)
    plan = RaPTr("6-12", scaling="sqrt", sampler="bernoulli").plan(TWELVE, 400)
    for step in range(100):
        net = plan.subnetwork(step)
        assert [part.scale for _, part in net.kept(0)] == pytest.approx([math.sqrt(12 / net.sizes[0])] * net.sizes[0])
    assert {len(plan.subnetwork(step).layers[0]) for step in range(100)} > {5, 6, 7}


def test_no_scale_is_nothing_at_all() -> None:
    for method in (RaPTr("6-12"), ConstantSize(), Reversed()):
        assert method.plan(TWELVE, 40).subnetwork(39).parts == ()
    for scaling in ("inverse", "sqrt"):  # neither has the whole model anything to make up for
        assert RaPTr("6-12", scaling=scaling).plan(TWELVE, 40).subnetwork(39) == Subnetwork.full(TWELVE)


def test_an_inverse_scale_makes_up_for_the_steps_that_skip_a_layer() -> None:
    """The mean of the factor on a layer's update is 1: kept with p, times 1 / p. Within six standard errors."""
    steps = 3000
    for sampler in ("fixed", "bernoulli"):
        plan = RaPTr("6-12", sampler=sampler, scaling="inverse", seed=2).plan(TWELVE, 2 * steps)  # type: ignore[arg-type]
        factors = [dict(plan.subnetwork(step).kept(0)) for step in range(steps)]
        error = math.sqrt((1 / 0.4 - 1) / steps)
        for layer in range(12):
            mean = sum(parts[layer].scale for parts in factors if layer in parts) / steps
            assert mean == pytest.approx(1, abs=1e-12 if layer in (0, 11) else 6 * error)


STAGES = tuple(Stage(start=a, stop=b, sizes=(1,)) for a, b in ((0, 10), (10, 12), (12, 30)))


def test_the_rate_warms_up_again_after_each_boundary() -> None:
    rule = TransitionLR(rewarm=4)
    assert [rule.factor(STAGES, step) for step in range(8, 19)] == [
        *(1, 1),
        *(0.25, 0.5),  # this stage is too short
        *(0.25, 0.5, 0.75, 1, 1, 1, 1),
    ]
    assert [rule.factor(STAGES, step) for step in range(8)] == [1.0] * 8


def test_the_rate_is_scaled_at_each_boundary() -> None:
    assert [TransitionLR(scale=0.5).factor(STAGES, step) for step in (0, 9, 10, 11, 12, 29)] == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    assert TransitionLR(scale=2).factor(STAGES, 12) == 4.0
    assert type(TransitionLR(scale=2).factor(STAGES, 12)) is float


def test_a_full_warm_up_is_followed_by_a_boundary() -> None:
    schedule = Schedule.parse("6-12", warmup=10)
    plan = RaPTr(schedule, transition_lr=TransitionLR(scale=0.1)).plan(TWELVE, 30)
    assert [lr_factor_of(plan, step) for step in (9, 10, 20)] == pytest.approx([1, 0.1, 0.01])
    assert lr_factor_of(Full().plan(TWELVE, 30), 29) == 1.0
    assert lr_factor_of(ConstantSize().plan(TWELVE, 30), 29) == 1.0


@pytest.mark.parametrize(
    ("alpha", "stages"),
    [
        (1, [100, 200, 300, 400]),
        (2, [33, 134, 300, 533]),  # 1 : 4 : 9 : 16 of 30: ends at 33.3, 166.7, 466.7
        (3, [10, 80, 270, 640]),  # 1 : 8 : 27 : 64 of 100
        (0.5, [163, 230, 282, 325]),  # 1 : 1.4142 : 1.7321 : 2 of 6.1463: ends at 162.7, 392.8, 674.6
    ],
)
def test_lengths_are_proportional_to_a_power(alpha: float, stages: list[int]) -> None:
    schedule = Schedule.parse("3-6-9-12", lengths="proportional", alpha=alpha)
    assert [stage.steps for stage in schedule.bind(TWELVE, 1000)] == stages
    assert [stage.steps for stage in MIDAS(schedule).plan(TWELVE, 1000).stages] == stages
    with_warmup = Schedule.parse("3-6-9-12", lengths="proportional", alpha=alpha, warmup=500)
    assert [stage.steps for stage in with_warmup.bind(TWELVE, 1500)] == [500, *stages]


@pytest.mark.parametrize(("lengths", "alpha", "saving"), [("equal", 1, 4 / 3), ("proportional", 1, 1.2)])
def test_savings_by_hand(lengths: str, alpha: float, saving: float) -> None:
    plan = RaPTr(Schedule.parse("6-8-10-12", lengths=lengths, alpha=alpha)).plan(TWELVE, 1000)
    assert 1000 * 12 / sum(cost.layers for cost in plan_cost(plan)) == pytest.approx(saving, rel=1e-12)


def test_a_steeper_exponent_saves_less() -> None:
    # (6 + 8*4 + 10*9 + 12*16) / 30 = 320/30 layers on average.
    plan = RaPTr(Schedule.parse("6-8-10-12", lengths="proportional", alpha=2)).plan(TWELVE, 3000)
    assert 3000 * 12 / sum(cost.layers for cost in plan_cost(plan)) == pytest.approx(12 * 30 / 320, rel=1e-12)
    # Constant 9 of 12 and reversed cost what RaPTr costs in equal stages.
    for method in (ConstantSize("9"), Reversed("12-10-8-6"), RaPTr("6-8-10-12")):
        costs = plan_cost(method.plan(TWELVE, 400))  # type: ignore[attr-defined]
        assert sum(cost.layers for cost in costs) == pytest.approx(400 * 9, rel=1e-12)
