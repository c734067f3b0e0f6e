"""Plans are pure functions of (seed, step, micro, stack), and keep what they promise to keep."""

import dataclasses
import hashlib
import os
import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from raptr.errors import RaptrError
from raptr.plan import Full, ModelShape, RaPTr, Schedule, Subnetwork

TWELVE = ModelShape.of(layers=12)
TWO = ModelShape.of(layers=(12, 24))
SAMPLERS = ["fixed", "bernoulli"]

# Taken once, on 2026-11-20, and compared with tests/reference/plan.py. A change here changes every user's run.
GOLDEN: dict[int, tuple[int, ...]] = {
    0: (0, 1, 2, 3, 10, 11),
    1: (0, 1, 2, 7, 10, 11),
    99: (0, 3, 5, 6, 8, 11),
    100: (0, 1, 2, 3, 4, 5, 7, 11),
    199: (0, 2, 3, 4, 6, 7, 10, 11),
    200: (0, 1, 2, 4, 6, 7, 8, 9, 10, 11),
    299: (0, 1, 2, 3, 4, 6, 7, 9, 10, 11),
    300: (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
}
GOLDEN_BERNOULLI: dict[int, tuple[int, ...]] = {
    0: (0, 2, 5, 7, 9, 11),
    1: (0, 3, 7, 8, 11),
    100: (0, 2, 4, 6, 7, 9, 10, 11),
    200: (0, 1, 3, 4, 5, 6, 7, 8, 10, 11),
}


def test_paths_are_the_pinned_ones() -> None:
    plan = RaPTr("6-8-10-12", fixed=(0, -1), sampler="fixed", seed=0).plan(TWELVE, steps=400)
    assert {step: plan.subnetwork(step).layers for step in GOLDEN} == {s: (path,) for s, path in GOLDEN.items()}
    each = RaPTr("6-8-10-12", redraw="micro_step").plan(TWELVE, steps=400)
    assert each.subnetwork(0, micro=1).layers == ((0, 2, 3, 9, 10, 11),)
    assert {step: each.subnetwork(step) for step in GOLDEN} == {step: plan.subnetwork(step) for step in GOLDEN}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_path_holds_for_a_step_unless_it_is_drawn_for_each_micro_step(sampler: Any) -> None:
    held = RaPTr("6-8-10-12", sampler=sampler, seed=5).plan(TWELVE, steps=400)
    each = RaPTr("6-8-10-12", sampler=sampler, seed=5, redraw="micro_step").plan(TWELVE, steps=400)
    for step in range(0, 400, 7):
        assert {held.subnetwork(step, micro) for micro in range(4)} == {each.subnetwork(step)}
    drawn = [len({each.subnetwork(step, micro) for micro in range(4)}) for step in range(100)]
    assert sum(drawn) > 350  # four paths, of 210, are seldom equal


def test_paths_of_other_seeds_and_samplers_are_the_pinned_ones() -> None:
    bernoulli = RaPTr("6-8-10-12", sampler="bernoulli", seed=7).plan(TWELVE, steps=400)
    found = {step: bernoulli.subnetwork(step).layers for step in GOLDEN_BERNOULLI}
    assert found == {step: (path,) for step, path in GOLDEN_BERNOULLI.items()}
    assert RaPTr("6-8-10-12", seed=1).plan(TWELVE, 400).subnetwork(0).layers == ((0, 3, 4, 6, 10, 11),)
    assert RaPTr("6-8-10-12", seed=2**64 - 1).plan(TWELVE, 400).subnetwork(0).layers == ((0, 1, 8, 9, 10, 11),)
    assert RaPTr("50%-75%-100%", seed=3).plan(TWO, 300).subnetwork(0).layers == (
        (0, 2, 6, 7, 9, 11),
        (0, 2, 4, 10, 11, 13, 14, 15, 16, 17, 19, 23),
    )


def test_the_fixed_sampler_keeps_exactly_the_stages_size_at_every_step() -> None:
    plan = RaPTr("50%-75%-100%", fixed=(0, -1)).plan(TWO, steps=600)
    for step in range(600):
        assert plan.subnetwork(step).sizes == plan.stage(step).sizes


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("fixed", [(0, -1), (), (3,), (-2, 5, 0), (-12, 11), (0, -12, -1, 11)])
def test_fixed_layers_are_always_kept_and_paths_are_parts_of_the_model(sampler: Any, fixed: tuple[int, ...]) -> None:
    plan = RaPTr("6-9-12", fixed=fixed, sampler=sampler).plan(TWELVE, steps=300)
    always = {layer % 12 for layer in fixed}
    for step in range(300):
        net = plan.subnetwork(step)
        net.check(TWELVE)
        assert always <= set(net.layers[0])
        assert all(type(layer) is int for layer in net.layers[0])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_layers_that_are_not_fixed_are_sometimes_skipped(sampler: Any) -> None:
    plan = RaPTr("6-12", fixed=(), sampler=sampler).plan(TWELVE, steps=400)
    skipped = {layer for step in range(200) for layer in range(12) if layer not in plan.subnetwork(step).layers[0]}
    assert skipped == set(range(12))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_the_warm_up_and_the_last_stage_are_the_whole_model(sampler: Any) -> None:
    plan = RaPTr(Schedule.parse("50%-75%-100%", warmup=30), sampler=sampler).plan(TWO, steps=330)
    full = Subnetwork.full(TWO)
    whole = [step for step in range(330) if plan.subnetwork(step) == full]
    assert whole == [*range(30), *range(230, 330)]
    assert plan.keep(plan.stages[0]) == plan.keep(plan.stages[-1]) == ((1.0,) * 12, (1.0,) * 24)


def test_full_training_is_the_whole_model_everywhere() -> None:
    plan = Full().plan(TWO, steps=5)
    assert {plan.subnetwork(step, micro) for step in range(5) for micro in range(2)} == {Subnetwork.full(TWO)}
    assert [(stage.start, stage.stop, stage.sizes) for stage in plan.stages] == [(0, 5, (12, 24))]
    assert plan.keep(plan.stages[0]) == ((1.0,) * 12, (1.0,) * 24)


@pytest.mark.parametrize("method", [Full(), RaPTr("50%-100%")], ids=str)
def test_nothing_is_copied(method: Any) -> None:
    plan = method.plan(TWO, steps=20)
    assert [plan.transition(step) for step in range(20)] == [()] * 20


@pytest.mark.parametrize("method", [Full(), RaPTr("6-8-10-12")], ids=str)
@pytest.mark.parametrize("step", [-1, 400, 10**6])
def test_a_step_outside_the_run_is_refused(method: Any, step: int) -> None:
    plan = method.plan(TWELVE, steps=400)
    for ask in (plan.subnetwork, plan.stage):
        with pytest.raises(RaptrError) as caught:
            ask(step)
        assert str(step) in str(caught.value)
        assert "0 to 399" in str(caught.value)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_step_in_any_order_gives_the_same_answer(sampler: Any) -> None:
    method = RaPTr(Schedule.parse("50%-75%-100%", lengths="proportional", warmup=0.1), sampler=sampler, seed=11)
    plan = method.plan(TWO, steps=400)
    places = [(step, micro) for step in range(400) for micro in range(2)]
    forward = {place: plan.subnetwork(*place) for place in places}
    random.Random(0).shuffle(places)
    fresh = method.plan(TWO, steps=400)
    assert {place: fresh.subnetwork(*place) for place in places} == forward
    assert method.plan(TWO, steps=400).subnetwork(399 // 2) == forward[399 // 2, 0]


def test_drawing_neither_reads_nor_moves_the_global_generators() -> None:
    plan = RaPTr("6-8-10-12").plan(TWELVE, steps=400)
    np.random.seed(1)
    random.seed(1)
    before = np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    first = [plan.subnetwork(step) for step in range(50)]
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # type: ignore[index,union-attr]
    np.random.seed(2)
    random.seed(2)
    assert [plan.subnetwork(step) for step in range(50)] == first


DIGEST = """
import hashlib
from raptr.plan import ModelShape, RaPTr
shape = ModelShape.of(layers=(12, 24))
paths = [
    RaPTr("50%-75%-100%", sampler=sampler, seed=seed).plan(shape, steps=120).subnetwork(step, micro).layers
    for sampler in ("fixed", "bernoulli") for seed in (0, SEED) for step in range(120) for micro in range(2)
]
print(hashlib.sha256(repr(paths).encode()).hexdigest())
"""


def _digest(code: str, hashseed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hashseed}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.mark.slow
def test_two_processes_agree() -> None:
    code = DIGEST.replace("SEED", str(2**63))
    first, second = _digest(code, "0"), _digest(code, "12345")
    here: dict[str, Any] = {}
    exec(code.replace("print(", "found = ("), here)
    assert first == second == here["found"]
    assert len(first) == len(hashlib.sha256().hexdigest())
    assert _digest(DIGEST.replace("SEED", str(2**63 + 1)), "0") != first


def _first_paths(method: RaPTr, stack: int = 0, micro: int = 0) -> list[tuple[int, ...]]:
    """The paths of the first stage, of 100 steps."""
    plan = method.plan(ModelShape.of(layers=(12, 12)), steps=400)
    return [plan.subnetwork(step, micro).layers[stack] for step in range(100)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_stacks_micro_steps_and_steps_draw_different_paths(sampler: Any) -> None:
    method = RaPTr("6-8-10-12", sampler=sampler, seed=5, redraw="micro_step")
    base = _first_paths(method)
    others = {
        "seed": _first_paths(dataclasses.replace(method, seed=6)),
        "high bits of the seed": _first_paths(dataclasses.replace(method, seed=5 + 2**63)),
        "stack": _first_paths(method, stack=1),
        "micro-step": _first_paths(method, micro=1),
        "next step": base[1:],
    }
    assert base == _first_paths(method)
    for what, other in others.items():
        # 1 path of 210 (or, with Bernoulli, at most 1 of 150) is equal by chance: 1 of 100 expected.
        assert sum(a == b for a, b in zip(base, other, strict=False)) < 10, what


def test_the_length_of_the_run_and_the_schedule_do_not_move_a_draw() -> None:
    short, long = RaPTr("6-8-10-12").plan(TWELVE, steps=400), RaPTr("6-12").plan(TWELVE, steps=4000)
    assert [short.subnetwork(step) for step in range(100)] == [long.subnetwork(step) for step in range(100)]


@pytest.mark.parametrize(
    "value",
    [
        Full(),
        Full().plan(TWO, 10),
        Schedule.parse("6-8-10-12", lengths=(1, 2, 3, 4), warmup=0.1),
        RaPTr("6-8-10-12", fixed=(0, 1, -1), sampler="bernoulli", seed=3),
        RaPTr("50%-100%").plan(TWO, 10),
        RaPTr("50%-100%").plan(TWO, 10).stages[0],
    ],
    ids=lambda value: type(value).__name__,
)
def test_specs_and_plans_are_frozen_hashable_and_picklable(value: Any) -> None:
    before = hash(value)
    if hasattr(value, "subnetwork"):
        value.subnetwork(0)
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert hash(again) == hash(value) == before
    if hasattr(value, "subnetwork"):
        assert [again.subnetwork(step) for step in range(10)] == [value.subnetwork(step) for step in range(10)]
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)


def test_specs_compare_by_what_they_say() -> None:
    assert RaPTr("6-12") == RaPTr(Schedule.parse("6-12"))
    assert RaPTr("6-12", fixed=[0, -1]) == RaPTr("6-12")  # type: ignore[arg-type]
    different = {
        RaPTr("6-12"),
        RaPTr("6-8-12"),
        RaPTr("6-12", fixed=(0,)),
        RaPTr("6-12", sampler="bernoulli"),
        RaPTr("6-12", seed=1),
        RaPTr(Schedule.parse("6-12", lengths="proportional")),
        RaPTr(Schedule.parse("6-12", warmup=1)),
        Full(),
    }
    assert len(different) == 8
    assert RaPTr("6-12").plan(TWELVE, 10) == RaPTr("6-12").plan(TWELVE, 10)
    assert RaPTr("6-12").plan(TWELVE, 10) != RaPTr("6-12").plan(TWELVE, 11)


def test_specs_are_named() -> None:
    assert (str(RaPTr("6-8-10-12")), RaPTr("6-12").name) == ("RaPTr 6-8-10-12", "raptr")
    assert (str(Full()), Full().name) == ("Full", "full")
