"""Expected cost: what the plan says is what is counted; a budget finds its number of steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raptr.errors import RaptrError
from raptr.plan import (
    Full,
    LayerCosts,
    LayerPart,
    ModelShape,
    Plan,
    RaPTr,
    Schedule,
    SequenceKey,
    StackShape,
    Stage,
    Subnetwork,
    plan_cost,
    steps_for,
)

TWELVE = ModelShape.of(layers=12)
TWO = ModelShape.of(layers=(6, 10))
RISING = LayerCosts(layers=(tuple(float(layer + 1) for layer in range(12)),), other=5.0)
RISING_TWO = LayerCosts(layers=((1.0, 2.0, 4.0, 8.0, 16.0, 32.0), tuple(10.0 - i for i in range(10))), other=7.5)


def test_costs_of_a_step_are_sums_of_its_parts() -> None:
    costs = LayerCosts(layers=((1.0, 2.0), (4.0, 8.0, 16.0)), other=100.0)
    assert costs.all_layers == 31
    assert costs.total == 131
    assert costs.of_layers(Subnetwork.of((1,), (0, 2))) == 22
    assert costs.step(Subnetwork.of((1,), (0, 2))) == 122
    assert costs.step(Subnetwork.of((), ())) == 100
    assert costs.scaled(3) == LayerCosts(layers=((3.0, 6.0), (12.0, 24.0, 48.0)), other=300.0)
    uniform = LayerCosts.uniform(TWO)
    assert (uniform.layers, uniform.other) == (((1.0,) * 6, (1.0,) * 10), 0.0)


def test_a_stage_costs_its_keep_probabilities_times_its_layers() -> None:
    # By hand: 100 steps; layers 0 and 11 (1 + 12) always, the others (2 + ... + 11 = 65) with 0.4; 5 besides.
    first = plan_cost(RaPTr("6-12").plan(TWELVE, steps=200), RISING)[0]
    assert first.layers == pytest.approx(100 * (13 + 0.4 * 65), rel=1e-12)
    assert first.total == pytest.approx(100 * (13 + 0.4 * 65 + 5), rel=1e-12)


def counted(plan: Plan, stage: Stage, costs: LayerCosts) -> list[float]:
    """The cost of every step of a stage, by running through it."""
    return [costs.step(plan.subnetwork(step)) for step in range(stage.start, stage.stop)]


@pytest.mark.parametrize("schedule", ["6-8-10-12", "50%-75%-100%", "3-12"])
@pytest.mark.parametrize("warmup", [0, 17, 0.1])
@pytest.mark.parametrize("lengths", ["equal", "proportional"])
def test_expected_cost_is_exact_for_the_fixed_sampler_with_equal_layers(
    schedule: str, warmup: int | float, lengths: str
) -> None:
    plan = RaPTr(Schedule.parse(schedule, lengths=lengths, warmup=warmup)).plan(TWELVE, steps=203)
    costs = LayerCosts(layers=((3.0,) * 12,), other=2.0)
    for cost in plan_cost(plan, costs):
        assert cost.total == pytest.approx(sum(counted(plan, cost.stage, costs)), rel=1e-12)
        assert cost.total - cost.layers == pytest.approx(2 * cost.stage.steps, rel=1e-9)


def step_variance(free: Sequence[float], kept: int, sampler: str) -> float:
    """The variance of a step's cost: of a sum of independent layers, or of a sample without replacement."""
    p = kept / len(free)
    if sampler == "bernoulli":
        return sum(cost**2 for cost in free) * p * (1 - p)
    mean = sum(free) / len(free)
    return kept * (1 - p) * sum((cost - mean) ** 2 for cost in free) / (len(free) - 1)


@pytest.mark.parametrize("sampler", ["fixed", "bernoulli"])
@pytest.mark.parametrize(
    ("shape", "schedule", "costs"),
    [(TWELVE, "6-8-10-12", RISING), (TWELVE, "3-12", RISING), (TWO, "50%-75%-100%", RISING_TWO)],
    ids=["6-8-10-12", "3-12", "two stacks"],
)
def test_expected_cost_is_the_mean_of_counted_costs(
    sampler: Any, shape: ModelShape, schedule: str, costs: LayerCosts
) -> None:
    """Within six standard errors, by a hand-derived variance: a false alarm in 5e8 stages."""
    stages = schedule.count("-") + 1
    plan = RaPTr(schedule, sampler=sampler, seed=4).plan(shape, steps=800 * stages)
    expected = plan_cost(plan, costs)
    for number, cost in enumerate(expected):
        variance = sum(
            step_variance(stack[1:-1], size - 2, sampler)
            for stack, size in zip(costs.layers, cost.stage.sizes, strict=True)
        )
        mean = sum(counted(plan, cost.stage, costs)) / cost.stage.steps
        error = math.sqrt(variance / cost.stage.steps)
        assert abs(mean - cost.total / cost.stage.steps) <= 6 * error + 1e-9
        if number:
            before = expected[number - 1]  # control: the stage before costs something else
            assert abs(mean - before.total / before.stage.steps) > 6 * error + 1e-9


def total_of(bind: Callable[[int], Plan], costs: LayerCosts, steps: int) -> float:
    """The expected cost of a run."""
    return sum(cost.total for cost in plan_cost(bind(steps), costs))


# total(n) by hand, 12 layers of cost 1: full 12 n; RaPTr 6-8-10-12, equal, 9 n where 4 divides n.
BUDGETS: list[tuple[Any, float, int]] = [
    (Full(), 4800.0, 400),
    (Full(), 4805.0, 400),
    (Full(), 4807.0, 401),
    (RaPTr("6-8-10-12"), 3600.0, 400),
    (RaPTr("6-8-10-12"), 4800.0, 533),  # 4797 with 133 + 134 + 133 + 133 steps; 534 cost 4806
    (RaPTr(Schedule.parse("6-8-10-12", lengths="proportional")), 4800.0, 480),  # 10 n
    (RaPTr(Schedule.parse("6-8-10-12", warmup=100)), 4800.0, 500),  # 1200 + 3600
]


@pytest.mark.parametrize(("method", "budget", "steps"), BUDGETS)
def test_a_budget_gives_the_number_of_steps_counted_by_hand(method: Any, budget: float, steps: int) -> None:
    assert steps_for(budget, lambda n: method.plan(TWELVE, n), LayerCosts.uniform(TWELVE)) == steps


@st.composite
def budgets(draw: st.DrawFn) -> tuple[RaPTr, LayerCosts, float]:
    """A method for 12 layers, its costs, and a budget of 24 to 150 full steps."""
    sizes = sorted(draw(st.lists(st.integers(2, 12), max_size=3)))
    lengths = draw(st.sampled_from(["equal", "proportional"]))
    warmup = draw(st.one_of(st.just(0), st.integers(0, 10), st.floats(0, 0.3)))
    method = RaPTr(
        Schedule.parse("-".join(map(str, [*sizes, 12])), lengths=lengths, warmup=warmup),
        sampler=draw(st.sampled_from(["fixed", "bernoulli"])),
    )
    layers = draw(st.lists(st.floats(0.1, 10), min_size=12, max_size=12).map(tuple))
    costs = LayerCosts(layers=(layers,), other=draw(st.floats(0, 50)))
    return method, costs, draw(st.floats(24, 150)) * costs.total


@given(budgets())
@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_other_number_of_steps_is_nearer_to_the_budget(case: tuple[RaPTr, LayerCosts, float]) -> None:
    method, costs, budget = case

    def bind(steps: int) -> Plan:
        return method.plan(TWELVE, steps)

    steps = steps_for(budget, bind, costs)
    off = abs(total_of(bind, costs, steps) - budget)
    assert off <= costs.total
    # A step costs at least the fixed layers, so 24 more or fewer are beyond every rounding of the stages.
    others = [abs(total_of(bind, costs, other) - budget) for other in range(max(20, steps - 24), steps + 25)]
    assert off <= min(others) + 1e-9 * budget


@pytest.mark.parametrize(("budget", "steps"), [(36.0, 4), (39.0, 4), (43.9, 5), (47.0, 5), (30.0, 4)])
def test_the_shortest_runs_are_found_too(budget: float, steps: int) -> None:
    # By hand: 4 steps cost 6 + 8 + 10 + 12 = 36. 5 steps end at 1, 3, 4, 5 (1.25, 2.5, 3.75) and cost 44.
    found = steps_for(budget, lambda n: RaPTr("6-8-10-12").plan(TWELVE, n), LayerCosts.uniform(TWELVE))
    assert found == steps


@pytest.mark.parametrize("budget", [0.0, -12.0, 10.0, math.nan])
def test_a_budget_below_the_shortest_run_is_refused(budget: float) -> None:
    with pytest.raises(RaptrError):
        steps_for(budget, lambda n: RaPTr("6-8-10-12").plan(TWELVE, n), LayerCosts.uniform(TWELVE))


def test_a_refused_budget_says_what_is_possible() -> None:
    with pytest.raises(RaptrError, match=r"budget of 1\b.*raise the budget"):
        steps_for(1.0, lambda n: RaPTr("6-8-10-12").plan(TWELVE, n), LayerCosts.uniform(TWELVE))


def test_layers_on_some_sequences_cost_what_all_ranks_keep() -> None:
    part = LayerPart(share=0.5, sequences=SequenceKey(seed=1, step=3))
    subnetwork = Subnetwork(((0,),), ((part,),))
    costs = LayerCosts(layers=((8.0, 8.0),))
    kept = [len(part.rows(0, 8, rank)) for rank in range(3)]
    assert len(set(kept)) > 1, "the check needs ranks that keep different numbers"
    assert costs.of_layers(subnetwork, sequences=8, ranks=3) == pytest.approx(8.0 * sum(kept) / 24)
    assert costs.of_layers(subnetwork, sequences=8) == kept[0]
    needed = ModelShape(stacks=(StackShape("layers", 2, required=((0, "makes the bias"),)),))
    assert costs.of_layers(subnetwork, needed) == costs.of_layers(subnetwork, needed, sequences=8) == 8.0
