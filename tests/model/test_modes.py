"""Evaluation always runs the full model, unless ``using`` says otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import raptr
from reference.families import GPT2, LLAMA, MLP, Family, every_family
from reference.script import Script, on

KEPT = (0, 2, 5)
PATH = raptr.Subnetwork.of(KEPT)
OTHER = (1, 4)


@every_family
def test_eval_is_full_and_train_goes_back_to_the_path(family: Family, attached: tuple[nn.Module, Any]) -> None:
    (model, net), plain = attached, family.build()
    on_path = family.logits(family.shallow(plain, *family.path))
    net.activate(on(*family.path), 0)
    assert torch.equal(family.logits(model), on_path)
    for each in (model, plain):
        each.eval()
    assert torch.equal(family.logits(model), family.logits(plain))
    assert not torch.allclose(family.logits(model), on_path)  # control: the two can be told apart
    model.train()
    assert torch.equal(family.logits(model), on_path)


@every_family
def test_using_forces_a_path(family: Family, attached: tuple[nn.Module, Any]) -> None:
    (model, net), plain = attached, family.build()
    small = family.shallow(plain, *family.path)
    for training in (True, False):
        for each in (model, plain, small):
            each.train(training)
        with net.using(raptr.Subnetwork.of(*family.path)):
            assert torch.equal(family.logits(model), family.logits(small))
        assert torch.equal(family.logits(model), family.logits(plain))
        assert not torch.allclose(family.logits(plain), family.logits(small))  # control


def test_using_gives_the_gradients_of_the_path() -> None:
    model = LLAMA.build()
    small = LLAMA.shallow(model, KEPT)
    net = raptr.attach(model)
    with net.using(PATH):
        LLAMA.loss(model).backward()
    LLAMA.loss(small).backward()
    assert torch.equal(model.lm_head.weight.grad, small.lm_head.weight.grad)
    assert {i for i, layer in enumerate(model.model.layers) if layer.mlp.up_proj.weight.grad is not None} == set(KEPT)


def test_using_gives_back_the_activated_path() -> None:
    model = MLP.build()
    expected = {kept: MLP.logits(MLP.shallow(model, kept)) for kept in (KEPT, OTHER, (3,), tuple(range(6)))}
    net = raptr.attach(model, blocks=model.layers)
    net.activate(Script([PATH]), 0)
    with net.using(raptr.Subnetwork.of(OTHER)):
        assert torch.equal(MLP.logits(model), expected[OTHER])
        with net.using(raptr.Subnetwork.of((3,))):
            assert torch.equal(MLP.logits(model), expected[(3,)])
        assert torch.equal(MLP.logits(model), expected[OTHER])
    assert torch.equal(MLP.logits(model), expected[KEPT])
    with pytest.raises(KeyError), net.using(raptr.Subnetwork.of(OTHER)):
        raise KeyError
    assert torch.equal(MLP.logits(model), expected[KEPT])


def test_using_inside_evaluation_leaves_the_path_of_training() -> None:
    model = MLP.build()
    full, on_path = MLP.logits(model), MLP.logits(MLP.shallow(model, KEPT))
    net = raptr.attach(model, blocks=model.layers)
    net.activate(Script([PATH]), 0)
    model.eval()
    with net.using(raptr.Subnetwork.of(OTHER)):
        assert torch.equal(MLP.logits(model), MLP.logits(MLP.shallow(MLP.build(), OTHER)))
    assert torch.equal(MLP.logits(model), full)
    model.train()
    assert torch.equal(MLP.logits(model), on_path)


@pytest.mark.parametrize("family", [LLAMA, GPT2], ids=lambda f: f.name)
def test_generation_is_full(family: Family) -> None:
    model, plain = family.build(), family.build()
    raptr.attach(model).activate(Script([PATH]), 0)
    tokens = family.batch()["input_ids"]
    made = [m.eval().generate(tokens, max_new_tokens=8, do_sample=False, pad_token_id=0) for m in (model, plain)]
    assert made[0].shape == (3, 18)
    assert torch.equal(*made)


@pytest.mark.parametrize("family", [LLAMA, GPT2], ids=lambda f: f.name)
def test_a_forced_path_generates_with_a_cache(family: Family) -> None:
    model = family.build()
    small = family.shallow(model, KEPT)
    net = raptr.attach(model)
    tokens = family.batch()["input_ids"]
    full = model.eval().generate(tokens, max_new_tokens=8, do_sample=False, pad_token_id=0)
    with net.using(PATH):
        made = model.generate(tokens, max_new_tokens=8, do_sample=False, pad_token_id=0)
    expected = small.eval().generate(tokens, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(made, expected)
    assert not torch.equal(full, expected)  # control


def test_a_cache_is_refused_where_the_layer_that_counts_its_tokens_is_skipped() -> None:
    model = LLAMA.build().eval()
    net = raptr.attach(model)
    tokens = torch.arange(1, 11)[None]
    with net.using(raptr.Subnetwork.of((1, 3))), torch.no_grad():
        begun = model(tokens[:, :8], use_cache=True)
        assert torch.equal(begun.logits, model(tokens[:, :8], use_cache=False).logits)
        with pytest.raises(raptr.RaptrError, match="use_cache=False, or keep layer 0"):
            model(tokens[:, 8:], past_key_values=begun.past_key_values)
