"""What the docs promise of families is what is tested, and a user who names the layers gets no less."""

from __future__ import annotations

import re

import pytest
import torch

import raptr
from helpers.families_in_docs import rows
from raptr import RaptrError
from reference.families import HUGGING_FACE, Family, hugging_face
from reference.script import on

REFUSED_ON_TRUST = ("bloom", "t5", "t5-gated", "t5-encoder")
"""Their layers return what nobody can make up: only a recorded run shows who needs it."""


@hugging_face
def test_with_the_layers_named_it_is_right_or_refused(family: Family) -> None:
    """Named layers are taken on trust, so only what a layer returns can be checked, when one is first skipped."""
    model = family.build()
    small = family.shallow(model, *family.path)
    net = raptr.attach(model, blocks={name: model.get_submodule(name) for name in family.stacks})
    net.activate(on(*family.path), 0)
    if family.name in REFUSED_ON_TRUST:
        with pytest.raises(RaptrError, match="Pass inputs= to attach"):
            family.loss(model)
        return
    assert torch.equal(family.loss(model), family.loss(small))


def test_the_table_of_families_is_the_one_tested() -> None:
    assert rows().keys() == {family.name for family in HUGGING_FACE}


@hugging_face
def test_the_table_names_class_and_stacks(family: Family) -> None:
    model, stacks, note = rows()[family.name]
    assert model == f"`{family.model}`"
    assert re.findall("`([^`]+)`", stacks) == list(family.stacks)
    assert ("first layer" in note) == bool(family.required)
