"""The draw, by statistics.

Every test here has a false-alarm rate below 1e-6: were the draw ideal, fewer than one seed in a
million would fail it (Bonferroni over all comparisons of a test). The seeds are fixed, so a test that
passes goes on passing. The controls are samplers that are wrong in one respect and must be caught.
"""

from collections import Counter
from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import pytest
from scipy.stats import binomtest, chisquare

from raptr.plan import ModelShape, RaPTr, Stage

ALARM = 1e-6
SAMPLERS = ["fixed", "bernoulli"]
Draw = Callable[[int], tuple[int, ...]]


def keep_pvalue(draw: Draw, stage: Stage, free: range, probability: float) -> float:
    """The smallest two-sided binomial p-value over the free layers' keep counts, times their number."""
    counts = Counter(layer for step in range(stage.start, stage.stop) for layer in draw(step))
    values = [binomtest(counts[layer], stage.steps, probability).pvalue for layer in free]
    return min(values) * len(values)


# shape, schedule, fixed, stack, free layers, the probability of each stage: (n - fixed) / (layers - fixed)
KEPT = [
    ((12,), "6-8-10-12", (0, -1), 0, range(1, 11), (0.4, 0.6, 0.8)),
    ((24,), "12-16-20-24", (0, 1, -2, -1), 0, range(2, 22), (0.4, 0.6, 0.8)),
    ((8,), "2-8", (), 0, range(8), (0.25,)),
    ((6, 10), "50%-100%", (0, -1), 0, range(1, 5), (0.25,)),
    ((6, 10), "50%-100%", (0, -1), 1, range(1, 9), (0.375,)),
]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("layers", "schedule", "fixed", "stack", "free", "probabilities"), KEPT)
def test_every_layer_is_kept_as_often_as_it_should(
    sampler: Any,
    layers: tuple[int, ...],
    schedule: str,
    fixed: tuple[int, ...],
    stack: int,
    free: range,
    probabilities: tuple[float, ...],
) -> None:
    method = RaPTr(schedule, fixed=fixed, sampler=sampler, seed=1)
    plan = method.plan(ModelShape.of(layers=layers), steps=1000 * (len(probabilities) + 1))
    for stage, probability in zip(plan.stages, probabilities, strict=False):
        value = keep_pvalue(lambda step: plan.subnetwork(step).layers[stack], stage, free, probability)
        assert value * len(probabilities) > ALARM
        assert [plan.keep(stage)[stack][layer] for layer in free] == pytest.approx([probability] * len(free))
        assert all(plan.keep(stage)[stack][layer] == 1 for layer in fixed)


def test_a_layer_that_is_kept_too_often_is_caught() -> None:
    plan = RaPTr("6-12", seed=1).plan(ModelShape.of(layers=12), steps=2000)

    def biased(step: int) -> tuple[int, ...]:
        path = plan.subnetwork(step).layers[0]
        return path if step % 4 else (*[layer for layer in path if layer != 5], 5)

    def unbiased(step: int) -> tuple[int, ...]:
        return plan.subnetwork(step).layers[0]

    assert keep_pvalue(unbiased, plan.stages[0], range(1, 11), 0.4) > ALARM
    assert keep_pvalue(biased, plan.stages[0], range(1, 11), 0.4) < ALARM
    assert keep_pvalue(unbiased, plan.stages[0], range(1, 11), 0.5) < ALARM


def test_the_bernoulli_sampler_keeps_the_size_on_average() -> None:
    plan = RaPTr("6-8-10-12", sampler="bernoulli", seed=2).plan(ModelShape.of(layers=12), steps=4000)
    for stage, probability in zip(plan.stages, (0.4, 0.6, 0.8), strict=False):
        sizes = [plan.subnetwork(step).sizes[0] for step in range(stage.start, stage.stop)]
        free = sum(sizes) - 2 * stage.steps
        assert binomtest(free, 10 * stage.steps, probability).pvalue * 3 > ALARM
        assert len(set(sizes)) > 3
        assert binomtest(free, 10 * stage.steps, probability + 0.04).pvalue < ALARM


# Seven layers, the first and the last fixed, four kept: two of the five others, ten pairs.
SEVEN, FREE, STEPS = ModelShape.of(layers=(7, 7)), range(1, 6), 4000
PAIRS = list(combinations(FREE, 2))


def seven(sampler: Any = "fixed", seed: int = 3, stack: int = 0, micro: int = 0) -> Draw:
    """The free layers that are kept at a step of the first stage, which has ``STEPS`` steps."""
    plan = RaPTr("4-7", sampler=sampler, redraw="micro_step", seed=seed).plan(SEVEN, steps=2 * STEPS)
    return lambda step: tuple(layer for layer in plan.subnetwork(step, micro).layers[stack] if layer in FREE)


def uniform_pvalue(outcomes: list[Any], possible: list[Any]) -> float:
    """The chi-square p-value of all possible outcomes being equally likely; 0 if another one occurs."""
    counts = Counter(outcomes)
    if set(counts) - set(possible):
        return 0.0
    return float(chisquare([counts[outcome] for outcome in possible]).pvalue)


def test_the_fixed_sampler_draws_every_subset_equally_often() -> None:
    draw = seven()
    assert uniform_pvalue([draw(step) for step in range(STEPS)], PAIRS) > ALARM


def test_a_sampler_of_neighbours_is_caught_though_every_layer_is_kept_equally_often() -> None:
    draw, stage = seven(), Stage(start=0, stop=STEPS, sizes=(4,))

    def neighbours(step: int) -> tuple[int, ...]:
        first = PAIRS.index(draw(step)) % 5
        return tuple(sorted((1 + first, 1 + (first + 1) % 5)))

    assert keep_pvalue(neighbours, stage, FREE, 0.4) > ALARM
    assert uniform_pvalue([neighbours(step) for step in range(STEPS)], PAIRS) < ALARM


def pattern_pvalue(draw: Draw) -> float:
    """The chi-square p-value of independent layers, each kept with probability 0.4: all 32 patterns."""
    patterns = [
        tuple(layer for layer, kept in zip(FREE, bits, strict=True) if kept) for bits in product([0, 1], repeat=5)
    ]
    counts = Counter(draw(step) for step in range(STEPS))
    expected = [STEPS * 0.4 ** len(pattern) * 0.6 ** (5 - len(pattern)) for pattern in patterns]
    return float(chisquare([counts[pattern] for pattern in patterns], expected).pvalue)


def test_the_bernoulli_sampler_draws_every_layer_by_itself() -> None:
    assert pattern_pvalue(seven("bernoulli")) > ALARM


def test_layers_that_are_drawn_together_are_caught() -> None:
    assert pattern_pvalue(seven("fixed")) < ALARM


@pytest.mark.parametrize("other", ["next step", "stack", "micro-step", "seed"])
def test_draws_at_two_places_are_independent(other: str) -> None:
    first = seven()
    if other == "next step":
        pairs = [(first(step), first(step + 1)) for step in range(0, STEPS, 2)]
    else:
        second = {"stack": seven(stack=1), "micro-step": seven(micro=1), "seed": seven(seed=4)}[other]
        pairs = [(first(step), second(step)) for step in range(STEPS)]
    assert uniform_pvalue(pairs, list(product(PAIRS, PAIRS))) * 4 > ALARM


def test_places_that_share_a_draw_are_caught() -> None:
    first, second = seven(), seven(stack=1)

    def half_shared(step: int) -> tuple[int, ...]:
        return second(step) if step % 4 else first(step)

    pairs = [(first(step), half_shared(step)) for step in range(STEPS)]
    assert uniform_pvalue(pairs, list(product(PAIRS, PAIRS))) < ALARM
