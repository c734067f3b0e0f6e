"""Layers that make what later layers need besides hidden states: in every path, or refused, never silently wrong."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import raptr
from raptr import RaptrError
from raptr.model.discovery.verify import Needed
from reference.families import ALL, KEY_VALUE_SHARING, SIZES, Family, every_family
from reference.handwritten import Net, loss_of, some_tokens
from reference.script import on
from reference.shallow import difference
from reference.snapshot import left_alone

NEEDY = [row for row in ALL if row.required]
needy = pytest.mark.parametrize("family", NEEDY, ids=lambda row: row.name)


@every_family
def test_the_required_layers_are_known_with_a_reason(family: Family, attached: tuple[nn.Module, Any]) -> None:
    _, net = attached
    found = {stack.name: tuple(layer for layer, _ in stack.required) for stack in net.shape.stacks}
    assert found == {name: family.required.get(name, ()) for name in family.stacks}
    for stack in net.shape.stacks:
        for _, reason in stack.required:
            assert len(reason.split()) > 3
            assert reason in str(net)


def test_values_read_otherwise_than_as_an_argument_are_told_apart_by_a_value() -> None:
    passed, read, unknown = Needed(("position_bias", "mask")), Needed((), "its k_proj, v_proj"), Needed(())
    assert [needed.aside for needed in (passed, read, unknown)] == [False, True, True]
    assert passed.reason == "it makes position_bias and mask, which later layers receive"
    assert read.reason == "later layers also read what its k_proj, v_proj computes besides the hidden states"
    assert unknown.reason == "later layers also read what it computes besides the hidden states"
    assert Needed(("later layers also read",)).aside is False, "negative control: words decide nothing"


@needy
def test_a_path_without_one_is_refused_with_the_reason(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    net.activate(on(*family.path), 0)
    on_path = family.logits(model)
    for i, stack in enumerate(net.shape.stacks):
        ((layer, reason),) = stack.required
        without = list(family.full)
        without[i] = tuple(kept for kept in without[i] if kept != layer)
        wrong = raptr.Subnetwork.of(*without)
        with left_alone(model), pytest.raises(RaptrError) as at_activation:
            net.activate(on(*without), 0)
        with pytest.raises(RaptrError) as at_check:
            wrong.check(net.shape)
        for refusal in (at_activation, at_check):
            for words in (f"layer {layer}", stack.name, reason):
                assert words in str(refusal.value)
        with left_alone(model), pytest.raises(RaptrError), net.using(wrong):
            pass
    assert torch.equal(family.logits(model), on_path)  # what was activated before still is


@needy
def test_plans_keep_them_and_say_so(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raptr.RaPTr("50%-100%", fixed=(0, -1)).plan(net.shape, 8)  # named: nothing to say
    with pytest.warns(UserWarning, match="cannot be left out"):
        plan = raptr.RaPTr("70%-100%", fixed=(-1,)).plan(net.shape, 8)
    for step in range(8):
        for stack, layers in zip(net.shape.stacks, net.activate(plan, step).layers, strict=True):
            assert {layer for layer, _ in stack.required} <= set(layers)
        assert torch.isfinite(family.loss(model))
    assert plan.subnetwork(0).layers != family.full


def test_a_layer_that_makes_something_cannot_be_skipped_on_trust() -> None:
    """Without inputs nothing was recorded: it is refused when the path runs, not skipped wrongly."""
    torch.manual_seed(0)
    model = Net(4, "making").double().train()
    full = loss_of(model, some_tokens())
    net = raptr.attach(model, blocks=model.layers)
    assert net.shape.stacks[0].required == ()
    for path in ((1, 2, 3), (0, 2)):
        net.activate(on(path), 0)
        with pytest.raises(RaptrError, match="Pass inputs= to attach"):
            loss_of(model, some_tokens())
    net.activate(on((0, 1, 2, 3)), 0)
    assert torch.equal(loss_of(model, some_tokens()), full)


@pytest.mark.parametrize("family", KEY_VALUE_SHARING, ids=lambda row: row.name)
def test_layers_whose_keys_and_values_are_shared_are_kept(family: Family) -> None:
    """The last three of six layers reuse keys and values that layers 1 and 2 made, by their kind of attention."""
    model = family.build()
    with left_alone(model):
        raptr.attach(model).detach()
    net = raptr.attach(model)
    assert [layer for layer, _ in net.shape.stacks[0].required] == [1, 2]
    original = family.build()
    for path in [*family.paths, ((1, 2),), ((1, 2, 3),), ((0, 1, 2, 4, 5),)]:
        net.activate(on(*path), 0)
        small = family.shallow(original, *path)
        losses = []
        for each in (model, small):
            each.zero_grad()
            losses.append(family.loss(each))
            losses[-1].backward()
        # Not bit for bit: their norms compute in float32, over the slices of as many layers as there are.
        torch.testing.assert_close(*losses, rtol=1e-7, atol=0)
        assert difference(model, small, family.kept(path), rtol=1e-6, atol=1e-7) == []
    for wrong in ((0, 1, 5), (0, 2, 5), (3, 4, 5), (0,)):
        with pytest.raises(RaptrError, match="cannot be left out"):
            net.activate(on(wrong), 0)


@pytest.mark.parametrize("family", KEY_VALUE_SHARING, ids=lambda row: row.name)
def test_the_reference_of_models_that_share_keys_and_values(family: Family) -> None:
    """Control of the test above: whole it is the model itself, and on a path it is another."""
    model = family.build()
    whole, small = (family.shallow(model, *path) for path in (family.full, family.path))
    for each in (model, whole, small):
        family.loss(each).backward()
    assert difference(model, whole, family.kept(family.full)) == []
    assert len(difference(model, small, family.kept(family.path), rtol=1e-6)) > 20


def deberta_with_a_convolution() -> nn.Module:
    """A convolution beside the first layer takes that layer's input and adds to its output."""
    config = transformers.DebertaV2Config(
        **SIZES, num_hidden_layers=4, relative_attention=True, pos_att_type=["c2p"], conv_kernel_size=3, conv_act="gelu"
    )
    return transformers.DebertaV2ForMaskedLM(config).double()


def test_what_is_done_between_layers_is_not_lost() -> None:
    """A path would change what the convolution is given."""
    model = deberta_with_a_convolution()
    with left_alone(model), pytest.raises(RaptrError, match=r"layer 1 of 'deberta\.encoder\.layer' does not"):
        raptr.attach(model)
