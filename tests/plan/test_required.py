"""Layers that a model cannot do without: kept in every path, or refused, and never silently."""

import warnings

import pytest

from raptr.errors import RaptrError
from raptr.plan import Full, ModelShape, RaPTr, StackShape, Subnetwork

BIAS = "it makes position_bias, which later layers receive"


def shape(*required: tuple[int, ...], layers: int = 6) -> ModelShape:
    """One stack for each tuple of required layers."""
    return ModelShape(
        tuple(StackShape(f"stack{i}", layers, tuple((n, BIAS) for n in needed)) for i, needed in enumerate(required))
    )


def test_a_path_without_a_required_layer_is_refused_with_the_reason() -> None:
    with pytest.raises(RaptrError, match=f"layer 2 of 'stack0' cannot be left out: {BIAS}"):
        Subnetwork.of((0, 1, 5)).check(shape((0, 2)))
    Subnetwork.of((0, 2)).check(shape((0, 2)))
    Subnetwork.of((0, 1, 5)).check(shape((0,)))


def test_each_stack_has_its_own() -> None:
    Subnetwork.of((0, 1), (3,)).check(shape((0,), (3,)))
    with pytest.raises(RaptrError, match="layer 3 of 'stack1'"):
        Subnetwork.of((0, 1), (0,)).check(shape((0,), (3,)))


def test_every_path_of_a_plan_keeps_them() -> None:
    with pytest.warns(UserWarning, match="stack1"):
        plan = RaPTr("4-6", sampler="fixed", seed=3).plan(shape((0,), (2, 3)), 400)
    assert plan.fixed == (((0, 5), (0, 2, 3, 5)),) * 2
    for step in range(200):
        plan.subnetwork(step).check(plan.shape)
        assert plan.subnetwork(step).sizes == (4, 4)
    assert plan.keep(plan.stages[0])[1] == (1.0, 0.0, 1.0, 1.0, 0.0, 1.0)
    # Control: without them in the fixed set, some path leaves one out.
    free = RaPTr("4-6", seed=3).plan(shape((), ()), 400)
    assert any(not {2, 3} <= set(free.subnetwork(step).layers[1]) for step in range(200))


def test_one_warning_names_what_was_added_and_why() -> None:
    with pytest.warns(UserWarning, match="cannot be left out") as caught:
        RaPTr("50%-100%", fixed=(-1,)).plan(shape((0,), (0, 1)), 100)
    assert len(caught) == 1
    for words in ("layer 0 of 'stack0'", "layer 1 of 'stack1'", BIAS, "kept at every step"):
        assert words in str(caught[0].message)
    assert caught[0].filename == __file__


def test_a_fixed_set_that_names_them_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RaPTr("50%-100%", fixed=(0, 2, -1)).plan(shape((0, 2)), 100)
        RaPTr("50%-100%").plan(shape((5,), (0,)), 100)
        Full().plan(shape((2,)), 100)


def test_a_stage_smaller_than_the_fixed_set_with_them_is_refused() -> None:
    with pytest.warns(UserWarning, match="stack0"), pytest.raises(RaptrError, match=r"\(0, 1, 2, 5\) holds 4"):
        RaPTr("3-6").plan(shape((1, 2)), 100)


@pytest.mark.parametrize("required", [((6, BIAS),), ((-1, BIAS),), ((1, BIAS), (1, "twice"))])
def test_required_layers_that_are_none_are_refused(required: tuple[tuple[int, str], ...]) -> None:
    with pytest.raises(RaptrError, match="required layers"):
        StackShape("layers", 6, required)


def test_they_are_kept_in_rising_order() -> None:
    assert StackShape("layers", 6, ((4, "b"), (1, "a"))).required == ((1, "a"), (4, "b"))
    assert ModelShape.of(layers=6).stacks[0].required == ()
