"""ModelShape, Subnetwork and Copy: what they hold and what they refuse."""

import dataclasses
import pickle
from typing import Any

import pytest

from raptr.errors import RaptrError
from raptr.plan import Copy, ModelShape, StackShape, Subnetwork


def test_a_shape_is_made_without_a_model() -> None:
    assert ModelShape.of(layers=12) == ModelShape((StackShape("layers", 12),))
    assert ModelShape.of(layers=(12, 24)).layers == (12, 24)
    assert ModelShape.of(layers=[3]).layers == (3,)
    names = [stack.name for stack in ModelShape.of(layers=(2, 2, 2)).stacks]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("layers", "given"), [(0, "0 layers"), (-1, "-1 layers"), ((12, 0), "'stack1' has 0"), ((), "empty")]
)
def test_a_stack_has_a_layer_and_a_model_a_stack(layers: Any, given: str) -> None:
    with pytest.raises(RaptrError, match=given):
        ModelShape.of(layers=layers)


@pytest.mark.parametrize("layers", [2.5, (2.5,), "12"], ids=repr)
def test_layers_that_are_no_whole_number_are_refused(layers: Any) -> None:
    with pytest.raises((RaptrError, TypeError)):
        ModelShape.of(layers=layers)


def test_a_subnetwork_is_one_rising_tuple_per_stack() -> None:
    net = Subnetwork.of((0, 2, 5), (1,))
    assert net.layers == ((0, 2, 5), (1,))
    assert net.sizes == (3, 1)
    assert Subnetwork.of([0, 2, 5], [1]) == net  # type: ignore[arg-type]
    assert Subnetwork.of(()).sizes == (0,)
    assert Subnetwork.full(ModelShape.of(layers=(2, 3))).layers == ((0, 1), (0, 1, 2))


@pytest.mark.parametrize("path", [(2, 1), (1, 1), (-1, 2), (0, 1, 5, 3)])
def test_paths_that_do_not_rise_from_zero_are_refused(path: tuple[int, ...]) -> None:
    with pytest.raises(RaptrError) as caught:
        Subnetwork.of((0, 1), path)
    assert str(path) in str(caught.value)
    assert "rising" in str(caught.value)


def test_a_subnetwork_is_checked_against_a_shape() -> None:
    shape = ModelShape((StackShape("encoder.block", 4), StackShape("decoder.block", 2)))
    assert Subnetwork.of((0, 3), (1,)).check(shape) is None  # type: ignore[func-returns-value]
    with pytest.raises(RaptrError, match=r"layer 2 .*'decoder\.block' has the layers 0 to 1"):
        Subnetwork.of((0, 3), (1, 2)).check(shape)
    with pytest.raises(RaptrError, match=r"1 stacks, the model 2 \(encoder\.block, decoder\.block\)"):
        Subnetwork.of((0, 3)).check(shape)


def test_a_copy_names_stack_source_and_target() -> None:
    copy = Copy(source=2, target=3)
    assert (copy.stack, copy.source, copy.target) == (0, 2, 3)
    assert Copy(stack=1, source=2, target=3) != copy
    with pytest.raises(TypeError):
        Copy(0, 2, 3)  # type: ignore[misc]


@pytest.mark.parametrize(
    "value",
    [
        ModelShape.of(layers=(3, 4)),
        StackShape("layers", 3),
        Subnetwork.of((0, 2), (1,)),
        Copy(source=0, target=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen_hashable_and_picklable(value: Any) -> None:
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert hash(again) == hash(value)
