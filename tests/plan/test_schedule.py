"""Schedules: tables typed by hand, and every schedule that cannot be right is refused."""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from helpers.refusals import refused
from raptr.errors import RaptrError
from raptr.plan import Full, LayerCosts, ModelShape, RaPTr, Schedule, StackShape, plan_cost

TWELVE = ModelShape.of(layers=12)

# schedule, layers, lengths, steps, steps of each stage, kept layers summed over each stage, times fewer
SAVINGS = [
    ("6-8-10-12", 12, "equal", 400, [100, 100, 100, 100], [600, 800, 1000, 1200], 4 / 3),
    ("6-8-10-12", 12, "proportional", 1000, [100, 200, 300, 400], [600, 1600, 3000, 4800], 1.2),
    ("12-16-20-24", 24, "equal", 400, [100, 100, 100, 100], [1200, 1600, 2000, 2400], 4 / 3),
    ("12-16-20-24", 24, "proportional", 1000, [100, 200, 300, 400], [1200, 3200, 6000, 9600], 1.2),
]


@pytest.mark.parametrize(("text", "layers", "lengths", "steps", "stages", "kept", "fewer"), SAVINGS)
def test_the_papers_schedules_save_what_the_paper_says(
    text: str, layers: int, lengths: str, steps: int, stages: list[int], kept: list[int], fewer: float
) -> None:
    plan = RaPTr(Schedule.parse(text, lengths=lengths)).plan(ModelShape.of(layers=layers), steps)
    assert [stage.steps for stage in plan.stages] == stages
    counted = [
        sum(len(plan.subnetwork(step).layers[0]) for step in range(stage.start, stage.stop)) for stage in plan.stages
    ]
    assert counted == kept
    costs = plan_cost(plan)
    assert [cost.layers for cost in costs] == pytest.approx(kept, rel=1e-12)
    assert [cost.stage for cost in costs] == list(plan.stages)
    assert steps * layers / sum(cost.layers for cost in costs) == pytest.approx(fewer, rel=1e-12)


def test_full_training_saves_nothing() -> None:
    plan = Full().plan(TWELVE, steps=400)
    assert sum(cost.layers for cost in plan_cost(plan)) == 4800


# schedule, lengths, warm-up, steps, where each stage ends (the warm-up first, where there is one)
BOUNDARIES: list[tuple[str, Any, int | float, int, list[int]]] = [
    ("6-8-10-12", "equal", 0, 1001, [250, 501, 751, 1001]),  # 250.25  500.5  750.75
    ("6-8-10-12", "equal", 0, 997, [249, 499, 748, 997]),  # 249.25  498.5  747.75: halves go up
    ("6-8-10-12", "equal", 0, 1003, [251, 502, 752, 1003]),  # 250.75  501.5  752.25
    ("6-8-10-12", "equal", 7, 1001, [7, 256, 504, 753, 1001]),  # 994 left: 248.5  497  745.5
    ("6-8-10-12", "equal", 0.1, 1001, [100, 325, 551, 776, 1001]),  # 901 left: 225.25  450.5  675.75
    ("6-8-10-12", "proportional", 0, 1001, [100, 300, 601, 1001]),  # 100.1  300.3  600.6
    ("6-8-10-12", "proportional", 7, 1001, [7, 106, 305, 603, 1001]),  # 994 left: 99.4  298.2  596.4
    ("6-8-10-12", "proportional", 0.1, 1001, [100, 190, 370, 641, 1001]),  # 901 left: 90.1  270.3  540.6
    ("6-9-12", "equal", 0, 100, [33, 67, 100]),  # 33.33  66.67
    ("6-9-12", "equal", 0, 3, [1, 2, 3]),
    ("12", "equal", 0, 1, [1]),
    ("12", "equal", 3, 4, [3, 4]),
    ("6-8-10-12", (1, 2, 3, 994), 1, 1001, [1, 2, 4, 7, 1001]),
    ("6-8-10-12", (250, 250, 250, 251), 0, 1001, [250, 500, 750, 1001]),
    ("6-8-10-12", (0.1, 0.2, 0.3, 0.4), 0, 1001, [100, 300, 601, 1001]),
    ("6-8-10-12", (0.1, 0.2, 0.3, 0.4), 0.1, 1001, [100, 190, 370, 641, 1001]),
    ("6-12", (0.7, 0.3), 7, 1001, [7, 703, 1001]),  # 994 left: 695.8
]


@pytest.mark.parametrize(("text", "lengths", "warmup", "steps", "ends"), BOUNDARIES)
def test_stages_end_where_the_formula_says(
    text: str, lengths: Any, warmup: int | float, steps: int, ends: list[int]
) -> None:
    stages = Schedule.parse(text, lengths=lengths, warmup=warmup).bind(TWELVE, steps)
    assert [stage.stop for stage in stages] == ends
    assert [stage.start for stage in stages] == [0, *ends[:-1]]
    assert [stage.warmup for stage in stages] == [bool(warmup), *[False] * (len(ends) - 1)]
    assert [stage.sizes for stage in stages if stage.warmup] == [(12,)] * bool(warmup)


@pytest.mark.parametrize("steps", range(4, 60))
@pytest.mark.parametrize("warmup", [0, 1, 0.05])
def test_stages_cover_the_run_without_a_gap_and_equal_ones_differ_by_a_step(steps: int, warmup: int | float) -> None:
    schedule = Schedule.parse("6-9-12", warmup=warmup)
    plan = RaPTr(schedule).plan(TWELVE, steps)
    assert [plan.stage(step) for step in range(steps)] == [
        stage for stage in plan.stages for _ in range(stage.start, stage.stop)
    ]
    grown = [stage.steps for stage in plan.stages if not stage.warmup]
    assert max(grown) - min(grown) <= 1
    assert plan.stages[-1].stop == steps


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        (12, [(6,), (9,), (12,)]),
        (24, [(12,), (18,), (24,)]),
        (5, [(3,), (4,), (5,)]),  # 2.5 and 3.75
        ((12, 24), [(6, 12), (9, 18), (12, 24)]),
        ((6, 5), [(3, 3), (5, 4), (6, 5)]),  # 3 and 2.5, 4.5 and 3.75
    ],
)
def test_shares_are_of_each_stacks_layers(layers: Any, sizes: list[tuple[int, ...]]) -> None:
    stages = RaPTr("50%-75%-100%").plan(ModelShape.of(layers=layers), steps=300).stages
    assert [stage.sizes for stage in stages] == sizes
    assert [stage.steps for stage in stages] == [100, 100, 100]


def test_counts_are_for_every_stack() -> None:
    stages = RaPTr("6-12").plan(ModelShape.of(layers=(12, 12)), steps=10).stages
    assert [stage.sizes for stage in stages] == [(6, 6), (12, 12)]
    assert [stage.label for stage in stages] == ["6+6", "12+12"]


def test_labels_name_the_warm_up() -> None:
    stages = Schedule.parse("6-12", warmup=2).bind(TWELVE, 10)
    assert [stage.label for stage in stages] == ["warm-up 12", "6", "12"]


@pytest.mark.parametrize("text", ["6-8-10-12", "50%-75%-100%", "12.5%-100%", "12", "100%", "4-50%-12"])
def test_a_schedule_reads_as_it_is_written(text: str) -> None:
    assert str(Schedule.parse(text)) == text
    assert Schedule.parse(str(Schedule.parse(text))) == Schedule.parse(text)


def test_parsing_gives_exact_sizes_and_forgives_spaces() -> None:
    assert Schedule.parse("6-8").sizes == (6, 8)
    assert Schedule.parse(" 6 - 8 ").sizes == (6, 8)
    assert Schedule.parse("33.3%-100%").sizes == (Fraction(333, 1000), Fraction(1))


# what is written, what the message repeats of it, what the message expects
NOT_PARSED = [
    ("", ["''"], ["6-8-10-12", "50%-75%-100%"]),
    ("6-8-", ["'6-8-'", "''"], ["6-8-10-12"]),
    ("6--8", ["'6--8'"], ["6-8-10-12"]),
    ("-6-8", ["'-6-8'"], ["6-8-10-12"]),
    ("6,8,10,12", ["'6,8,10,12'"], ["joined by '-'"]),
    ("six-12", ["'six-12'", "'six'"], ["6-8-10-12"]),
    ("6.5-12", ["'6.5-12'", "'6.5'"], ["6-8-10-12"]),
    ("6-8-1e1-12", ["'1e1'"], ["6-8-10-12"]),
    ("50-%", ["'%'"], ["50%-75%-100%"]),
    ("0-6-12", ["size 0"], ["at least 1 layer"]),
    ("0%-100%", ["0%"], ["above 0 %", "at most 100 %"]),
    ("50%-120%", ["120%"], ["above 0 %", "at most 100 %"]),
]


@pytest.mark.parametrize(("text", "given", "expected"), NOT_PARSED)
def test_what_is_not_sizes_is_refused_at_parse(text: str, given: list[str], expected: list[str]) -> None:
    refused(lambda: Schedule.parse(text), given, expected)
    refused(lambda: RaPTr(text), given, expected)


@pytest.mark.parametrize("text", ["9" * 5000, "1" + "0" * 400 + "%", "1" + "0" * 5000 + "%"], ids=len)
def test_absurdly_long_sizes_are_refused_too(text: str) -> None:
    with pytest.raises(RaptrError):
        Schedule.parse(text).bind(TWELVE, 100)


def test_a_schedule_without_stages_is_refused() -> None:
    refused(lambda: Schedule(()), ["no stage"], ["6-8-10-12"])


NAN = math.nan
LENGTHS = [
    ("equall", ["'equall'"], ['"equal"', '"proportional"', "ints", "floats"]),
    ((100, 200, 300), ["3 stage lengths", "(100, 200, 300)", "4 stages"], ["one per stage"]),
    ((0.5, 0.5), ["2 stage lengths", "4 stages"], ["one per stage"]),
    ((), ["0 stage lengths", "4 stages"], ["one per stage"]),
    ((100, 200, 300, 0), ["(100, 200, 300, 0)"], ["above 0"]),
    ((100, 200, -300, 400), ["-300"], ["above 0"]),
    ((0.5, 0.5, 0.5, -0.5), ["-0.5"], ["above 0"]),
    ((100, 200, 0.3, 0.4), ["(100, 200, 0.3, 0.4)"], ["ints", "floats"]),
    ((0.1, 0.2, 0.3, 0.3), ["0.9"], ["1.0"]),
    ((1.0, 2.0, 3.0, 4.0), ["10"], ["1.0"]),
    ((NAN, 0.5, 0.25, 0.25), ["nan"], []),
    ((math.inf, 0.5, 0.25, 0.25), ["inf"], []),
]


@pytest.mark.parametrize(("lengths", "given", "expected"), LENGTHS)
def test_wrong_lengths_are_refused_in_the_spec(lengths: Any, given: list[str], expected: list[str]) -> None:
    refused(lambda: Schedule.parse("6-8-10-12", lengths=lengths), given, expected)


@pytest.mark.parametrize("warmup", [-1, -0.1, 1.0, 1.5, 30000.0, math.inf, -math.inf, NAN])
def test_a_warm_up_that_is_neither_a_count_nor_a_share_is_refused(warmup: int | float) -> None:
    refused(
        lambda: Schedule.parse("6-12", warmup=warmup),
        [f"warmup={warmup}"],
        ["a number of steps", "a share of the run"],
    )


@pytest.mark.parametrize("lengths", [[50, 50], [0.5, 0.5]])
def test_a_list_of_lengths_is_as_good_as_a_tuple(lengths: Any) -> None:
    given, same = Schedule.parse("6-12", lengths=lengths), Schedule.parse("6-12", lengths=tuple(lengths))
    assert given == same
    assert hash(given) == hash(same)


TWO = ModelShape((StackShape("encoder.block", 12), StackShape("decoder.block", 6)))

# what goes wrong, method, shape, steps, what the message repeats, what the message expects
UNFIT: dict[str, tuple[RaPTr, ModelShape, int, list[str], list[str]]] = {
    "larger than the model": (RaPTr("6-8-10-16"), TWELVE, 400, ["6-8-10-16", "16 layers", "'layers'"], ["12"]),
    "larger than one stack": (RaPTr("6-12"), TWO, 400, ["12 layers", "'decoder.block'"], ["has 6", "50%-75%-100%"]),
    "smaller than the fixed set": (RaPTr("1-12"), TWELVE, 400, ["1-12", "1 layers", "(0, 11)"], ["holds 2"]),
    "smaller than a larger fixed set": (
        RaPTr("4-12", fixed=(0, 1, 2, -2, -1)),
        TWELVE,
        400,
        ["4 layers", "(0, 1, 2, 10, 11)"],
        ["holds 5", "fix fewer"],
    ),
    "a share smaller than the fixed set": (RaPTr("5%-100%"), TWELVE, 400, ["5%-100%", "1 layers"], ["holds 2"]),
    "shrinking": (RaPTr("8-6-12"), TWELVE, 400, ["8-6-12", "shrinks"], ["do not fall"]),
    "shrinking in the end": (RaPTr("6-12-8"), TWELVE, 400, ["6-12-8", "shrinks"], ["do not fall"]),
    "not full in the end": (RaPTr("6-8-10"), TWELVE, 400, ["6-8-10", "10 of the 12"], ["end with 12 or 100%"]),
    "not full in one stack": (
        RaPTr("3-6"),
        TWO,
        400,
        ["3-6", "6 of the 12", "'encoder.block'"],
        ["end with 12 or 100%"],
    ),
    "fewer steps than stages": (RaPTr("6-8-10-12"), TWELVE, 3, ["6-8-10-12", "4 stages", "3 steps"], ["at least 1"]),
    "warm-up leaves too little": (
        RaPTr(Schedule.parse("6-8-10-12", warmup=397)),
        TWELVE,
        400,
        ["397 warm-up steps", "4 stages", "400 steps"],
        ["at least 1"],
    ),
    "warm-up longer than the run": (
        RaPTr(Schedule.parse("6-8-10-12", warmup=1000)),
        TWELVE,
        400,
        ["1000 warm-up steps", "400 steps"],
        ["use fewer"],
    ),
    "a stage without a step": (
        RaPTr(Schedule.parse("6-8-10-12", lengths="proportional")),
        TWELVE,
        4,
        ["stage 6", "4 steps"],
        ["train longer"],
    ),
    "a share of a stage without a step": (
        RaPTr(Schedule.parse("50%-75%-100%", lengths=(0.001, 0.499, 0.5))),
        TWELVE,
        10,
        ["stage 50%", "10 steps"],
        ["train longer"],
    ),
    "lengths that do not add up": (
        RaPTr(Schedule.parse("6-8-10-12", lengths=(10, 20, 30, 40))),
        TWELVE,
        101,
        ["(10, 20, 30, 40)", "100 steps"],
        ["101"],
    ),
    "lengths that forget the warm-up": (
        RaPTr(Schedule.parse("6-8-10-12", lengths=(10, 20, 30, 40), warmup=5)),
        TWELVE,
        100,
        ["100 steps"],
        ["95"],
    ),
    "fixed layer out of range": (
        RaPTr("6-12", fixed=(0, 12)),
        TWELVE,
        400,
        ["fixed layer 12", "'layers'"],
        ["0 to 11", "-12 to -1"],
    ),
    "fixed layer out of range from the end": (
        RaPTr("6-12", fixed=(-13,)),
        TWELVE,
        400,
        ["fixed layer -13"],
        ["0 to 11", "-12 to -1"],
    ),
    "fixed layer out of range in one stack": (
        RaPTr("50%-100%", fixed=(0, 7)),
        TWO,
        400,
        ["fixed layer 7", "'decoder.block'"],
        ["0 to 5"],
    ),
    "no steps": (RaPTr("6-12"), TWELVE, 0, ["steps=0"], ["at least 1"]),
    "negative steps": (RaPTr("6-12"), TWELVE, -5, ["steps=-5"], ["at least 1"]),
}


@pytest.mark.parametrize("case", UNFIT.values(), ids=UNFIT.keys())
def test_a_schedule_that_does_not_fit_is_refused_at_plan(
    case: tuple[RaPTr, ModelShape, int, list[str], list[str]],
) -> None:
    method, shape, steps, given, expected = case
    refused(lambda: method.plan(shape, steps), given, expected)


@pytest.mark.parametrize("steps", [0, -3])
def test_full_training_needs_a_step_too(steps: int) -> None:
    refused(lambda: Full().plan(TWELVE, steps), [f"steps={steps}"], ["at least 1"])


@pytest.mark.parametrize("method", [Full(), RaPTr("6-12")], ids=str)
def test_half_a_step_is_refused(method: Any) -> None:
    with pytest.raises(RaptrError, match=re.escape("100.5")):
        method.plan(TWELVE, 100.5)


@pytest.mark.parametrize(
    ("build", "given", "expected"),
    [
        (lambda: RaPTr("6-12", sampler="bernouli"), ["'bernouli'"], ["'fixed'", "'bernoulli'"]),  # type: ignore[arg-type]
        (lambda: RaPTr("6-12", seed=-1), ["seed -1"], ["0 and 2**64 - 1"]),
        (lambda: RaPTr("6-12", seed=2**64), [f"seed {2**64}"], ["0 and 2**64 - 1"]),
        (lambda: RaPTr("6-12", seed=0.5), ["0.5"], []),  # type: ignore[arg-type]
        (lambda: RaPTr("6-12", fixed=(0.5,)).plan(TWELVE, 10), ["0.5"], []),  # type: ignore[arg-type]
        (lambda: RaPTr(Schedule((0.5, 12)), fixed=()).plan(TWELVE, 10), ["0.5"], []),  # type: ignore[arg-type]
    ],
    ids=["sampler", "seed -1", "seed 2**64", "seed 0.5", "fixed 0.5", "size 0.5"],
)
def test_a_wrong_spec_is_refused(build: Callable[[], Any], given: list[str], expected: list[str]) -> None:
    refused(build, given, expected)


def test_what_is_at_the_edge_is_accepted() -> None:
    assert RaPTr("2-12").plan(TWELVE, 2).subnetwork(0).layers == ((0, 11),)
    assert RaPTr("6-6-12-12").plan(TWELVE, 4).stages[1].sizes == (6,)
    assert RaPTr("6-12", fixed=(-12, 11)).plan(TWELVE, 2).fixed == (((0, 11),),) * 2
    assert RaPTr("6-12", fixed=()).plan(TWELVE, 2).fixed == (((),),) * 2
    assert RaPTr("1").plan(ModelShape.of(layers=1), 1).subnetwork(0).layers == ((0,),)
    assert RaPTr("6-12", seed=2**64 - 1).plan(TWELVE, 2).seed == 2**64 - 1


def test_a_schedule_knows_no_model() -> None:
    schedule = Schedule.parse("50%-100%")
    assert [stage.sizes for stage in schedule.bind(TWELVE, 2)] == [(6,), (12,)]
    assert [stage.sizes for stage in schedule.bind(ModelShape.of(layers=4), 2)] == [(2,), (4,)]
    assert LayerCosts.uniform(TWELVE).total == 12
