"""One matrix for all methods: pure, the same everywhere, valid at every step, and as expensive as they say."""

import dataclasses
import hashlib
import math
import os
import pickle
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

import raptr.plan
from raptr.errors import RaptrError
from raptr.plan import (
    METHODS,
    WHOLE,
    LayerCosts,
    Plan,
    Stage,
    Subnetwork,
    lr_factor_of,
    plan_cost,
    skips_of,
    steps_for,
    width_of,
)
from reference.methods import (
    BY_SEQUENCE,
    CASES,
    DROPPED,
    GROWING,
    RANDOM_PATHS,
    WIDTHS,
    WRITTEN,
    Case,
    case,
    derived_cases,
)

pytestmark = pytest.mark.filterwarnings("ignore:the fixed set was enlarged", "ignore:layers that cannot be left out")

STEPS = 60
ALARM = 1e-6

every = pytest.mark.parametrize("case", CASES, ids=str)


def bound(case: Case, steps: int = STEPS) -> Plan:
    """The plan of a case."""
    plan: Plan = case.method.plan(case.shape, steps)
    return plan


def test_every_method_is_in_the_matrix_with_its_defaults_and_other_settings() -> None:
    for key in METHODS:
        of_method = [case for case in CASES if case.key == key]
        assert any(not case.settings for case in of_method), key
        assert len(of_method) > 1, key
        shapes = {len(case.shape.stacks) for case in of_method}
        assert shapes == {1, 2}, key


def test_a_method_without_cases_gets_some() -> None:
    """As of a new one: its defaults for one and two stacks, every other choice, and what else its fields allow."""
    found = list(derived_cases("layerdrop"))
    assert [one.settings for one in found] == [
        (),
        (),
        (("scaling", "inverse"),),
        (("redraw", "micro_step"),),
        (("seed", 2**63),),
        (("fixed", (0, -1)),),
    ]
    assert {len(one.shape.stacks) for one in found} == {1, 2}
    assert len([one.method for key in METHODS for one in derived_cases(key)]) > 3 * len(METHODS)


def test_a_line_in_the_package_of_methods_is_a_method() -> None:
    package = raptr.plan.methods
    lines = re.findall(r"^from \S+ import (\w+) as \1$", Path(package.__file__).read_text(), flags=re.M)
    assert [spec.__name__ for spec in METHODS.values()] == lines
    assert sorted(package.__all__) == sorted(["METHODS", *lines])


def skipped(plan: Plan) -> set[str]:
    """What some step of a plan leaves out, in the words of `skips_of`."""
    found = set()
    for step in range(STEPS):
        net = plan.subnetwork(step)
        parts = [part for i in range(len(net.layers)) for _, part in net.kept(i)]
        found |= {"layers"} if tuple(map(len, net.layers)) != plan.shape.layers else set()
        found |= {"width"} if any(part.heads or part.neurons for part in parts) else set()
        found |= {"sequences"} if any(part.sequences for part in parts) else set()
    return found


@pytest.mark.parametrize("key", METHODS)
def test_a_method_skips_what_it_says(key: str) -> None:
    """The settings of a config depend on it: ``inactive`` is for methods that skip layers or width."""
    found = set().union(*(skipped(bound(case)) for case in CASES if case.key == key))
    said = METHODS[key].__name__ + f": give it skips = {tuple(sorted(found))}"
    assert skips_of(METHODS[key]) == found, said


@every
def test_a_name_is_a_key(case: Case) -> None:
    assert case.method.name == case.key
    assert METHODS[case.key] is type(case.method)
    assert str(case.method)


@every
def test_any_step_in_any_order_gives_the_same_answer(case: Case) -> None:
    places = [(step, micro) for step in range(STEPS) for micro in range(2)]
    plan = bound(case)
    first = {place: plan.subnetwork(*place) for place in places}
    copies = [plan.transition(step) for step in range(STEPS)]
    random.Random(1).shuffle(places)
    other = bound(case)
    assert other == plan
    assert {place: other.subnetwork(*place) for place in places} == first
    assert [other.transition(step) for step in reversed(range(STEPS))] == copies[::-1]
    assert {place: plan.subnetwork(*place) for place in places} == first
    if getattr(case.method, "redraw", "step") == "step":
        assert all(first[step, 0] == first[step, 1] for step in range(STEPS))


PRINT = """
import hashlib, sys, warnings
sys.path.insert(0, TESTS)
warnings.simplefilter("ignore")
from reference.methods import CASES
found = []
for case in CASES:
    changed = SETTINGS if hasattr(case.method, "seed") else {}
    plan = case.with_settings(**changed).plan(case.shape, 30)
    found.append(repr([(plan.subnetwork(step, step % 3), plan.transition(step)) for step in range(30)]))
    found.append(repr((plan.stages, [plan.keep(stage) for stage in plan.stages])))
print(hashlib.sha256("".join(found).encode()).hexdigest())
"""


def _digest(hashseed: str, settings: str) -> str:
    tests = str(Path(__file__).parents[1])
    code = PRINT.replace("TESTS", repr(tests)).replace("SETTINGS", settings)
    package = str(Path(raptr.plan.__file__).parents[2])
    environment = {**os.environ, "PYTHONHASHSEED": hashseed, "PYTHONPATH": package}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_two_processes_agree_on_every_method() -> None:
    first, second, other = _digest("0", "{}"), _digest("4711", "{}"), _digest("0", "{'seed': 77}")
    assert len(first) == len(hashlib.sha256().hexdigest())
    assert first == second
    assert first != other  # control: another seed


@every
def test_specs_and_plans_are_frozen_hashable_picklable_and_read_as_they_are_written(case: Case) -> None:
    spec, plan = case.method, bound(case)
    plan.subnetwork(STEPS // 2)
    for value in (spec, plan):
        again = pickle.loads(pickle.dumps(value))
        assert again == value
        assert hash(again) == hash(value)
        for field in dataclasses.fields(value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)
    assert dataclasses.replace(spec) == spec == case.method
    names = {name: getattr(raptr.plan.methods, name) for name in raptr.plan.methods.__all__}
    names |= {name: getattr(raptr.plan, name) for name in raptr.plan.__all__} | {"Fraction": Fraction}
    assert eval(repr(spec), names) == spec
    assert 0 < len(dataclasses.fields(spec)) <= 10 or case.key == "full"


@every
def test_every_subnetwork_is_a_part_of_the_model_with_its_required_layers(case: Case) -> None:
    plan = bound(case)
    for step in range(STEPS):
        net = plan.subnetwork(step, step % 2)
        net.check(case.shape)
        for i, stack in enumerate(case.shape.stacks):
            assert {layer for layer, _ in stack.required} <= set(net.layers[i])
        assert all(type(layer) is int for path in net.layers for layer in path)
        looked_at = Subnetwork(net.layers, net.parts)  # refuses what is not in order
        assert (looked_at, looked_at.parts, looked_at.narrow) == (net, net.parts, net.narrow)
    if all(p == 1 for stack in plan.keep(plan.stages[-1]) for p in stack):
        assert plan.subnetwork(STEPS - 1).layers == Subnetwork.full(case.shape).layers
    if case.key in {c.key for c in (*RANDOM_PATHS, *WIDTHS, *GROWING)} - {"constant_size", "reversed"}:
        assert plan.subnetwork(STEPS - 1) == Subnetwork.full(case.shape)


@every
def test_stages_cover_the_run_and_their_sizes_are_what_is_kept(case: Case) -> None:
    plan = bound(case)
    assert plan.shape == case.shape
    assert [plan.stage(step) for step in range(STEPS)] == [
        stage for stage in plan.stages for _ in range(stage.start, stage.stop)
    ]
    for stage in plan.stages:
        keep = plan.keep(stage)
        assert tuple(map(len, keep)) == case.shape.layers
        assert all(0 <= p <= 1 for stack in keep for p in stack)
        assert [sum(stack) for stack in keep] == pytest.approx(list(stage.sizes), abs=1e-5)
        for stack, shares in zip(case.shape.stacks, keep, strict=True):
            assert all(shares[layer] == 1 for layer, _ in stack.required)
        assert stage.label
    for step in (-1, STEPS):
        for ask in (plan.subnetwork, plan.stage):
            with pytest.raises(RaptrError, match=rf"step {step} is not in the plan.*0 to {STEPS - 1}"):
                ask(step)


@every
def test_copies_are_made_at_stage_starts_from_trained_layers_onto_new_ones(case: Case) -> None:
    plan = bound(case)
    made = {step: plan.transition(step) for step in range(STEPS) if plan.transition(step)}
    starts = [stage.start for stage in plan.stages[1:]]
    assert set(made) <= set(starts)
    fresh = dict(case.settings).get("new") == "fresh"
    if case in GROWING and not fresh:
        assert list(made) == starts
    elif case in WRITTEN and not fresh:
        assert not made
    for step, copies in made.items():
        before, now = plan.subnetwork(step - 1), plan.subnetwork(step)
        places = [(copy.stack, copy.target) for copy in copies]
        assert len(set(places)) == len(places)
        new = {(i, layer) for i, path in enumerate(now.layers) for layer in path if layer not in before.layers[i]}
        assert set(places) == new
        for copy in copies:
            assert copy.source in before.layers[copy.stack] or (copy.silent and copy.source == copy.target)
            assert copy.reset == (dict(case.settings).get("state") == "reset" or copy.silent)


@every
def test_the_learning_rate_changes_after_boundaries_and_only_where_asked(case: Case) -> None:
    plan, rule = bound(case), dict(case.settings).get("transition_lr")
    factors = [lr_factor_of(plan, step) for step in range(STEPS)]
    boundaries = [stage.start for stage in plan.stages[1:]]
    if rule is None:
        assert factors == [1.0] * STEPS
    elif rule.scale is not None:
        assert factors == [rule.scale ** sum(start <= step for start in boundaries) for step in range(STEPS)]
    else:
        since = [min((step - start for start in boundaries if start <= step), default=99) for step in range(STEPS)]
        assert factors == [min(1.0, (ago + 1) / rule.rewarm) for ago in since]


def costs_of(case: Case) -> LayerCosts:
    """Costs of which no two layers have the same, with what shrinks with width; and something besides."""
    layers = tuple(tuple(3.0 + i + 0.5 * layer for layer in range(count)) for i, count in enumerate(case.shape.layers))
    part = tuple(tuple(cost * 0.25 for cost in stack) for stack in layers)
    return LayerCosts(layers=layers, other=2.5, heads=part, neurons=tuple(tuple(2 * c for c in s) for s in part))


def exact(case: Case) -> bool:
    """Whether every step of a stage keeps as many layers, each with the same part of it."""
    if case in WRITTEN:
        return case.key not in {c.key for c in DROPPED} and dict(case.settings).get("sampler") != "bernoulli"
    plan = bound(case)
    sizes = {
        (stage, tuple(map(len, plan.subnetwork(step).layers))) for stage in plan.stages for step in steps_of(stage)
    }
    return len(sizes) == len(plan.stages)


def steps_of(stage: Stage) -> range:
    """The steps of a stage."""
    return range(stage.start, stage.stop)


def drawn(case: Case) -> bool:
    """Whether some layer is kept at some steps of a stage only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = bound(case)
    shares = [p for stage in plan.stages for stack in plan.keep(stage) for p in stack]
    return "sequences" not in skips_of(case.method) and any(0 < p < 1 for p in shares)


@every
def test_expected_cost_is_the_counted_cost_of_a_run(case: Case) -> None:
    """Exactly where sizes are fixed; by sequences, of the expected numbers; else see the statistics below."""
    plan = bound(case)
    equal = LayerCosts.uniform(case.shape)
    uneven = costs_of(case)
    for costs in [equal] * exact(case) + [uneven] * (exact(case) and not drawn(case)):
        counted = [
            sum(costs.step(plan.subnetwork(step), case.shape) for step in range(stage.start, stage.stop))
            for stage in plan.stages
        ]
        expected = plan_cost(plan, costs)
        assert [cost.total for cost in expected] == pytest.approx(counted, rel=1e-9)
        assert [cost.total - cost.layers for cost in expected] == pytest.approx(
            [costs.other * stage.steps for stage in plan.stages], abs=1e-6
        )


@every
def test_a_budget_finds_a_number_of_steps(case: Case) -> None:
    costs = costs_of(case)

    def total(steps: int) -> float:
        return sum(cost.total for cost in plan_cost(bound(case, steps), costs))

    budget = 0.8 * total(600)
    steps = steps_for(budget, lambda n: bound(case, n), costs)
    off = abs(total(steps) - budget)
    assert off <= costs.total
    assert off <= min(abs(total(steps + more) - budget) for more in (-1, 1)) + 1e-9
    # 0.8 of the cost is 0.8 of the steps, except for methods whose shares depend on the number of the step.
    if case.key == "pld":
        assert steps < 482  # its later steps are the cheaper ones
    elif case in WRITTEN:
        assert abs(steps - 480) <= 2


# Statistics. Every test below has a false-alarm rate below 1e-6: see tests/plan/methods/test_statistics.py.

RUN = 2400
BATCH = 40
DRAWN = [
    *[case for case in RANDOM_PATHS if case.shape.layers != (1,)],
    *DROPPED,
    *[case for case in WIDTHS if case.key == "depth_width_raptr"],
    *[case for case in CASES if case not in WRITTEN and drawn(case)],
]
Ask = Callable[[int], Subnetwork]


def kept_pvalue(ask: Ask, plan: Plan, stage: Stage) -> float:
    """The smallest p-value of the counts of all layers in a stage, times their number; 0 if one is impossible.

    Of steps with probabilities that fall or rise, the count varies less than a binomial one of the same mean, so that
    the test alarms less often than it says.
    """
    counts = [[0] * layers for layers in plan.shape.layers]
    for step in range(stage.start, stage.stop):
        for i, path in enumerate(ask(step).layers):
            for layer in path:
                counts[i][layer] += 1
    values = []
    for found, keep in zip(counts, plan.keep(stage), strict=True):
        for count, p in zip(found, keep, strict=True):
            possible = 0 < p < 1 or count == p * stage.steps
            values.append(binomtest(count, stage.steps, min(p, 1.0)).pvalue if possible else 0.0)
    return min(values) * len(values)


@pytest.mark.slow
@pytest.mark.parametrize("case", DRAWN, ids=str)
def test_every_layer_is_kept_as_often_as_the_plan_says(case: Case) -> None:
    plan = bound(case, RUN)
    for stage in plan.stages:
        assert kept_pvalue(plan.subnetwork, plan, stage) * len(plan.stages) > ALARM


@pytest.mark.parametrize("key", ["raptr", "constant_size", "layerdrop", "stochastic_depth", "pld"])
def test_shares_that_are_a_little_off_are_caught(key: str) -> None:
    """Controls: of one layer every tenth step is changed; and the plan's own steps, held against another plan."""
    settings: dict[str, Any] = {"pld": {"gamma": 0.02}}.get(key, {})
    plan = bound(case(key, **settings), RUN)
    stage = plan.stages[0]

    def biased(step: int) -> Subnetwork:
        (path,) = plan.subnetwork(step).layers
        return Subnetwork.of(path if step % 10 else tuple(layer for layer in path if layer != 6))

    def more(step: int) -> Subnetwork:
        (path,) = plan.subnetwork(step).layers
        return Subnetwork.of(path if step % 5 else tuple(sorted({*path, 6})))

    assert kept_pvalue(plan.subnetwork, plan, stage) > ALARM
    assert min(kept_pvalue(biased, plan, stage), kept_pvalue(more, plan, stage)) < ALARM


def test_the_public_implementations_off_by_one_is_caught() -> None:
    """Control: paths of one variant of PLD, held against the other one's probabilities."""
    paper, other = (bound(case("pld", gamma=0.02, variant=variant), RUN) for variant in ("paper", "deepspeed"))
    assert kept_pvalue(other.subnetwork, paper, paper.stages[0]) < ALARM
    assert kept_pvalue(paper.subnetwork, other, other.stages[0]) < ALARM


def sequences_pvalue(plan: Plan, claimed: Any) -> float:
    """Like `kept_pvalue`, of the sequences that run through each layer."""
    counts = [[0] * layers for layers in plan.shape.layers]
    steps = range(0, 600)
    for step in steps:
        net = plan.subnetwork(step)
        for i in range(len(net.layers)):
            for layer, part in net.kept(i):
                counts[i][layer] += len(part.rows(layer, BATCH))
    values = []
    for found, keep in zip(counts, claimed, strict=True):
        for count, p in zip(found, keep, strict=True):
            possible = p < 1 or count == len(steps) * BATCH
            values.append(binomtest(count, len(steps) * BATCH, p).pvalue if possible else 0.0)
    return min(values) * len(values)


@pytest.mark.parametrize(
    "case", [*BY_SEQUENCE, *(c for c in CASES if c not in WRITTEN and "sequences" in skips_of(c.method))], ids=str
)
def test_every_layer_runs_on_as_many_sequences_as_the_plan_says(case: Case) -> None:
    plan = bound(case, 600)
    keep = plan.keep(plan.stages[0])
    assert sequences_pvalue(plan, keep) > ALARM
    if any(p < 1 for stack in keep for p in stack):  # control: one part in forty off
        off = tuple(tuple(p if p == 1 else p - 0.025 for p in stack) for stack in keep)
        assert sequences_pvalue(plan, off) < ALARM


@pytest.mark.slow
@pytest.mark.parametrize("case", DRAWN, ids=str)
def test_expected_cost_is_the_mean_of_counted_costs(case: Case) -> None:
    """Within six standard errors, by a bound on the variance: layers that exclude each other vary less together."""
    steps = 1200
    plan, costs = bound(case, steps), costs_of(case)
    for cost in plan_cost(plan, costs):
        stage = cost.stage
        counted = [costs.step(plan.subnetwork(step), case.shape) for step in range(stage.start, stage.stop)]
        widths = width_of(plan, stage)
        variance = sum(
            p * (1 - p) * costs.of_layer(i, layer, widths[i]) ** 2
            for i, stack in enumerate(plan.keep(stage))
            for layer, p in enumerate(stack)
        )
        error = math.sqrt(variance / stage.steps)
        off = abs(sum(counted) - cost.total) / stage.steps
        assert off <= 6 * error + 1e-9 * cost.total
        assert abs(1.25 * sum(counted) - cost.total) / stage.steps > 6 * error  # control: layers a quarter dearer


def test_a_batchs_sequences_cost_what_is_expected_of_them() -> None:
    steps = 600
    chosen = case("sequence_layer_dropout")
    plan, costs = bound(chosen, steps), costs_of(chosen)
    (expected,) = plan_cost(plan, costs)
    of_expected = sum(costs.step(plan.subnetwork(step), chosen.shape) for step in range(steps))
    assert of_expected == pytest.approx(expected.total, rel=1e-12)
    counted = sum(costs.step(plan.subnetwork(step), chosen.shape, sequences=BATCH) for step in range(steps))
    variance = sum(p * (1 - p) * cost**2 for p, cost in zip(plan.keep(plan.stages[0])[0], costs.layers[0], strict=True))
    error = math.sqrt(variance * steps / BATCH)
    assert abs(counted - expected.total) < 6 * error
    full = steps * costs.total
    assert abs(full - expected.total) > 6 * error  # control
    # Of the layers' FLOPs a quarter of the rate is saved, where all layers cost the same: rate 0.6.
    (uniform,) = plan_cost(plan)
    assert 1 - uniform.total / (steps * 12) == pytest.approx(0.6 / 4, rel=1e-12)


def test_whole_layers_say_nothing_more() -> None:
    """A plan without scaling, width or sequences gives plain paths, which compare and print as such."""
    for one in CASES:
        plan = bound(one)
        nets = [plan.subnetwork(step) for step in range(STEPS)]
        plain = all(part == WHOLE for net in nets for parts in net.parts for part in parts)
        assert plain == all(net.parts == () for net in nets)
