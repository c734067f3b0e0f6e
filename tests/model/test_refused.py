"""A list whose modules cannot be layers is refused before any of them is touched."""

import pytest
from torch import Tensor, nn

import raptr
from raptr import RaptrError


class Source(nn.Module):
    """Takes nothing: no layer."""

    def forward(self) -> Tensor:
        raise AssertionError("is never run")


def test_module_that_takes_nothing_is_refused_and_the_others_are_untouched() -> None:
    model = nn.Sequential(nn.ModuleList([nn.Linear(2, 2), Source()]))
    with pytest.raises(RaptrError, match="Source takes no argument"):
        raptr.attach(model, blocks=model[0])
    assert type(model[0][0]) is nn.Linear
    assert "_raptr_gate" not in model[0][0].__dict__
