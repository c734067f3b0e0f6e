"""The class swap: same name, same state, ordinary copies, and back again."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.class_swap import is_restorable, original_class, restore_class, swap_class

TIMES = "_raptr_times"


def scaled(original: Any) -> dict[str, Any]:
    """``forward`` multiplied with the attribute."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = original.forward(self, x) * self.__dict__[TIMES]
        return output

    return {"forward": forward}


def shifted(original: Any) -> dict[str, Any]:
    """``forward`` plus one."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = original.forward(self, x) + 1
        return output

    return {"forward": forward}


class Counted(nn.Linear):
    """A layer that notes which names its subclasses have when they are made."""

    names: list[str] = []  # noqa: RUF012

    def __init_subclass__(cls) -> None:
        Counted.names.append(cls.__qualname__)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3)


def test_a_swapped_module_runs_its_methods_and_a_restored_one_its_own(x: torch.Tensor) -> None:
    module = nn.Linear(3, 3)
    before, keys = module(x), set(module.__dict__)
    swap_class(module, scaled, TIMES, 3.0)
    assert torch.equal(module(x), before * 3)
    assert not torch.equal(module(x), before)
    module.__dict__[TIMES] = 5.0
    assert torch.equal(module(x), before * 5)
    restore_class(module)
    assert torch.equal(module(x), before)
    assert type(module) is nn.Linear
    assert set(module.__dict__) == keys


def test_names_state_and_kind_stay() -> None:
    module = nn.Sequential(nn.Linear(3, 3))
    said, names = repr(module), list(module.state_dict())
    swap_class(module[0], scaled, TIMES, 1.0)
    cls, plain = type(module[0]), nn.Linear
    assert cls is not plain
    assert isinstance(module[0], plain)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(cls, name) == getattr(plain, name)
    assert (repr(module), list(module.state_dict())) == (said, names)
    assert original_class(module[0]) is plain
    assert original_class(module) is nn.Sequential  # which was not swapped


def test_a_subclass_has_its_final_name_when_it_is_made() -> None:
    swap_class(Counted(3, 3), scaled, TIMES, 1.0)
    assert Counted.names == ["Counted"]


def test_one_subclass_is_made_for_each_class_and_methods() -> None:
    first, second, third, bilinear = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Bilinear(3, 3, 3)
    for module in (first, second, bilinear):
        swap_class(module, scaled, TIMES, 1.0)
    swap_class(third, shifted, TIMES)
    assert type(first) is type(second)
    assert len({type(module) for module in (first, third, bilinear, nn.Linear(3, 3))}) == 4
    cls = type(first)
    restore_class(first)
    swap_class(first, scaled, TIMES, 1.0)
    assert type(first) is cls


def test_swapping_twice_is_refused_and_changes_nothing(x: torch.Tensor) -> None:
    module = nn.Linear(3, 3)
    swap_class(module, scaled, TIMES, 3.0)
    cls, before = type(module), module(x)
    with pytest.raises(RaptrError, match="this Linear has _raptr_times already; detach it first"):
        swap_class(module, shifted, TIMES, 4.0)
    assert type(module) is cls
    assert torch.equal(module(x), before)


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle", "save"])
def test_copies_are_ordinary_and_full(how: str, x: torch.Tensor) -> None:
    module = nn.Sequential(nn.Linear(3, 3)).requires_grad_()
    ordinary = module(x)
    swap_class(module[0], scaled, TIMES, 3.0)

    def copied(module: nn.Module) -> Any:
        if how == "pickle":
            return pickle.loads(pickle.dumps(module))
        if how == "save":
            torch.save(module, file := io.BytesIO())
            return torch.load(io.BytesIO(file.getvalue()), weights_only=False)
        return {"copy": copy.copy, "deepcopy": copy.deepcopy}[how](module)

    for twin in (copied(module[0]), copied(module)[0] if how != "copy" else copied(module[0])):
        assert type(twin) is nn.Linear
        assert set(twin.__dict__) == set(nn.Linear(3, 3).__dict__)
        assert torch.equal(twin(x), ordinary)
        assert (twin.weight is module[0].weight) == (how == "copy")
    assert torch.equal(module(x), ordinary * 3)  # which is swapped as before
    swap_class(twin, scaled, TIMES, 7.0)
    assert torch.equal(twin(x), ordinary * 7)


def test_a_module_whose_class_was_swapped_again_cannot_be_restored() -> None:
    """`fully_shard` swaps the class again, and its copy of a swapped class is not one."""
    module = nn.Linear(3, 3)
    assert not is_restorable(module, TIMES)
    swap_class(module, scaled, TIMES, 1.0)
    assert is_restorable(module, TIMES)
    assert not is_restorable(module, "_raptr_other")
    module.__class__ = type("FSDPLinear", (type(module),), {})
    assert not is_restorable(module, TIMES)
    with pytest.raises(RaptrError, match="has _raptr_times already"):
        swap_class(module, scaled, TIMES, 1.0)


def test_two_swaps_of_one_module_are_undone_in_their_order(x: torch.Tensor) -> None:
    module = nn.Linear(3, 3)
    before = module(x)
    swap_class(module, scaled, TIMES, 3.0)
    swap_class(module, shifted, "_raptr_other")
    assert torch.equal(module(x), before * 3 + 1)
    assert not is_restorable(module, TIMES)
    restore_class(module)
    assert is_restorable(module, TIMES)
    assert torch.equal(module(x), before * 3)
    restore_class(module)
    assert type(module) is nn.Linear
