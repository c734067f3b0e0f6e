"""Growth methods against small models that really grow (tests/reference/growing.py), and by hand."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raptr.plan import Copy, ModelShape, Subnetwork, TransitionLR
from raptr.plan.methods import MIDAS, GradualStacking, GStack, LateExpansion, ProgressiveStacking
from raptr.plan.methods.growth_plan import GrowthPlan
from reference.growing import (
    Grow,
    along,
    grown,
    in_the_middle,
    in_turn,
    on_top,
    whole,
    with_initial,
    with_silent,
)
from reference.methods import two_stacks

TWELVE = ModelShape.of(layers=12)
SAME: list[tuple[Any, int, Grow, list[int]]] = [
    (GradualStacking("6-9-12"), 12, on_top, [6, 9, 12]),
    (GradualStacking("3-6-9-12"), 12, on_top, [3, 6, 9, 12]),
    (GradualStacking("4-5-7-8"), 8, on_top, [4, 5, 7, 8]),
    (GradualStacking(), 24, on_top, [12, 18, 24]),
    (ProgressiveStacking(), 12, whole, [3, 6, 12]),
    (ProgressiveStacking(doublings=5), 24, whole, [3, 6, 12, 24]),
    (ProgressiveStacking(doublings=1), 6, whole, [3, 6]),
    (ProgressiveStacking(doublings=4), 16, whole, [1, 2, 4, 8, 16]),
    (MIDAS(), 12, in_the_middle, [3, 6, 9, 12]),
    (MIDAS(), 24, in_the_middle, [6, 12, 18, 24]),
    (MIDAS("2-4-6-8-10-12"), 12, in_the_middle, [2, 4, 6, 8, 10, 12]),
    (MIDAS("1-2-3-4-5"), 5, in_the_middle, [1, 2, 3, 4, 5]),
    (MIDAS("3-5-6-9-12"), 12, in_the_middle, [3, 5, 6, 9, 12]),
    (GStack(), 12, whole, [3, 12]),
    (GStack(growth=2), 12, whole, [6, 12]),
    (GStack(growth=7), 7, whole, [1, 7]),
    (LateExpansion(), 12, in_turn, [1, 12]),
    (LateExpansion(layers=5), 12, in_turn, [5, 12]),
    (LateExpansion(layers=11, new="fresh"), 12, with_initial, [11, 12]),
    (LateExpansion(layers=0, new="fresh"), 4, with_initial, [0, 4]),
    (LateExpansion(layers=0, new="silent"), 4, with_silent, [0, 4]),
    (LateExpansion(layers=2, new="silent"), 6, with_silent, [2, 6]),
]


@pytest.mark.parametrize(("method", "layers", "grow", "sizes"), SAME)
def test_a_path_in_the_full_model_holds_what_the_growing_model_holds(
    method: Any, layers: int, grow: Grow, sizes: list[int]
) -> None:
    plan = method.plan(ModelShape.of(layers=layers), steps=400)
    assert [stage.sizes for stage in plan.stages] == [(size,) for size in sizes]
    assert along(plan) == grown(grow, sizes)


@pytest.mark.parametrize(("method", "layers", "grow", "sizes"), [case for case in SAME if hasattr(case[0], "state")])
def test_copies_without_their_state_have_none(method: Any, layers: int, grow: Grow, sizes: list[int]) -> None:
    plan = dataclasses.replace(method, state="reset").plan(ModelShape.of(layers=layers), steps=400)
    expected = grown(grow, sizes, reset=True)
    assert along(plan) == expected
    if grow not in (with_initial, with_silent):
        assert expected != grown(grow, sizes)  # control


@st.composite
def growth(draw: st.DrawFn) -> tuple[type[Any], Grow, list[int]]:
    """A stacking method and sizes that it can grow to."""
    cls, grow = draw(st.sampled_from([(GradualStacking, on_top), (MIDAS, in_the_middle)]))
    sizes = [draw(st.integers(1, 6))]
    for _ in range(draw(st.integers(0, 4))):
        sizes.append(sizes[-1] + draw(st.integers(1, sizes[-1])))
    return cls, grow, sizes


@given(growth(), st.booleans())
@settings(max_examples=120, derandomize=True, deadline=None)
def test_any_sizes_that_can_be_grown_to_are(case: tuple[type[Any], Grow, list[int]], reset: bool) -> None:
    cls, grow, sizes = case
    method = cls("-".join(map(str, sizes)), state="reset" if reset else "copy")
    assert along(method.plan(ModelShape.of(layers=sizes[-1]), 1000)) == grown(grow, sizes, reset=reset)


def moved(plan: GrowthPlan, stage: int, **changes: Any) -> GrowthPlan:
    """The plan with the first copy of a stage changed."""
    first, *others = plan.copies[stage]
    copies = list(plan.copies)
    copies[stage] = (dataclasses.replace(first, **changes), *others)
    return dataclasses.replace(plan, copies=tuple(copies))


def test_wrong_growth_is_caught() -> None:
    """Controls: a wrong source, a wrong path, another method, copies that are made one after the other."""
    right, sizes = MIDAS().plan(TWELVE, 400), [3, 6, 9, 12]
    expected = grown(in_the_middle, sizes)
    assert along(right) == expected
    assert along(moved(right, 2, source=1)) != expected
    assert along(moved(right, 2, reset=True)) != expected
    prefix = tuple(Subnetwork.of(tuple(range(size))) for size in sizes)
    assert along(dataclasses.replace(right, paths=prefix)) != expected
    assert along(GradualStacking("3-6-9-12").plan(TWELVE, 400)) != expected
    assert along(GradualStacking("3-6-9-12").plan(TWELVE, 400)) != grown(whole, [3, 6])


def test_midas_by_hand() -> None:
    # Blocks of 3 layers, the newest in capitals: a | a B | a C b | a c D b.
    plan = MIDAS("3-6-9-12").plan(TWELVE, steps=1000)
    assert [net.layers[0] for net in plan.paths] == [
        (0, 1, 2),
        (0, 1, 2, 9, 10, 11),
        (0, 1, 2, 3, 4, 5, 9, 10, 11),
        tuple(range(12)),
    ]
    copied = [[(copy.source, copy.target) for copy in copies] for copies in plan.copies]
    assert copied == [
        [],
        [(0, 9), (1, 10), (2, 11)],
        [(0, 3), (1, 4), (2, 5)],
        [(3, 6), (4, 7), (5, 8)],
    ]
    assert [stage.steps for stage in plan.stages] == [100, 200, 300, 400]


def test_late_expansion_by_hand() -> None:
    plan = LateExpansion(layers=2, at=0.75, new="silent").plan(ModelShape.of(layers=4), steps=100)
    assert [stage.stop for stage in plan.stages] == [75, 100]
    assert plan.transition(75) == (
        Copy(source=2, target=2, reset=True, silent=True),
        Copy(source=3, target=3, reset=True, silent=True),
    )
    fresh = LateExpansion(layers=0, new="fresh").plan(ModelShape.of(layers=2), steps=10)
    assert [net.layers for net in fresh.paths] == [((),), ((0, 1),)]
    assert fresh.transition(8) == ()


@pytest.mark.parametrize(
    ("at", "steps", "boundary"),
    [(0.5, 5, 3), (0.1, 25, 3), (0.8, 101, 81), (0.3, 10, 3), (0.1, 1001, 100)],
)
def test_growth_once_is_at_the_nearest_step(at: float, steps: int, boundary: int) -> None:
    for method in (GStack(at=at), LateExpansion(at=at)):
        assert [stage.stop for stage in method.plan(TWELVE, steps).stages] == [boundary, steps]


def test_each_stack_grows_by_itself() -> None:
    shape = two_stacks(12, 8, 0)
    plan = MIDAS().plan(shape, 1000)
    assert along(plan, 0) == grown(in_the_middle, [3, 6, 9, 12])
    assert along(plan, 1) == grown(in_the_middle, [2, 4, 6, 8])
    plan = ProgressiveStacking().plan(shape, 1000)
    assert [stage.sizes for stage in plan.stages] == [(3, 2), (6, 4), (12, 8)]
    assert along(plan, 1) == grown(whole, [2, 4, 8])
    assert {copy.stack for copy in plan.copies[1]} == {0, 1}


def test_required_layers_run_from_the_beginning_and_nothing_is_copied_onto_them() -> None:
    shape = two_stacks(6, 6, 0, 4)
    with pytest.warns(UserWarning, match="cannot be left out run from the beginning") as caught:
        plan = GradualStacking("3-6").plan(shape, 100)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for words in ("layer 4 of 'encoder.block'", "layer 4 of 'decoder.block'", "position_bias"):
        assert words in str(caught[0].message)
    assert "layer 0" not in str(caught[0].message)
    assert [net.layers[0] for net in plan.paths] == [(0, 1, 2, 4), (0, 1, 2, 3, 4, 5)]
    assert [stage.sizes for stage in plan.stages] == [(4, 4), (6, 6)]
    copied = [(copy.stack, copy.source, copy.target) for copy in plan.transition(50)]
    assert copied == [(0, 0, 3), (0, 2, 5), (1, 0, 3), (1, 2, 5)]
    free = GradualStacking("3-6").plan(two_stacks(6, 6, 0), 100)  # control: their layer 0 is there anyway
    assert len(free.transition(50)) == 6


def test_late_expansion_from_nothing_keeps_what_is_required() -> None:
    with pytest.warns(UserWarning, match="layer 0 of 'encoder.block'"):
        plan = LateExpansion(layers=0, new="silent").plan(two_stacks(3, 2, 0), 10)
    assert plan.paths[0].layers == ((0,), (0,))
    assert [(copy.stack, copy.target) for copy in plan.transition(8)] == [(0, 1), (0, 2), (1, 1)]


def test_the_rate_after_growth() -> None:
    plan = GStack(at=0.5, transition_lr=TransitionLR(rewarm=4)).plan(TWELVE, steps=20)
    assert [plan.lr_factor(step) for step in range(8, 16)] == [1.0, 1.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
