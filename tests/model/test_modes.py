"""Evaluation always runs the full model, unless ``using`` says otherwise."""

from __future__ import annotations

import pytest
import torch

import raptr
from reference.families import ALL, GPT2, HUGGING_FACE, LLAMA, MLP, Family
from reference.script import Script
from reference.snapshot import Snapshot, untouched

KEPT = (0, 2, 5)
PATH = raptr.Subnetwork.of(KEPT)
OTHER = (1, 4)


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_eval_is_full_and_train_goes_back_to_the_path(family: Family) -> None:
    model, plain = family.build(), family.build()
    small = family.shallow(plain, KEPT)
    net = raptr.attach(model, blocks=family.blocks(model))
    net.activate(Script([PATH]), 0)
    on_path = family.logits(model)
    assert torch.equal(on_path, family.logits(small))
    for each in (model, plain):
        each.eval()
    assert torch.equal(family.logits(model), family.logits(plain))
    assert not torch.equal(family.logits(model), on_path)  # control: the two can be told apart
    model.train()
    assert torch.equal(family.logits(model), on_path)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_using_forces_a_path(family: Family, training: bool) -> None:
    model = family.build().train(training)
    plain = family.build().train(training)
    small = family.shallow(plain, KEPT)
    net = raptr.attach(model, blocks=family.blocks(model))
    with net.using(PATH):
        assert torch.equal(family.logits(model), family.logits(small))
    assert torch.equal(family.logits(model), family.logits(plain))


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


@pytest.mark.parametrize(
    "paths",
    [((0, 6),), ((0, 99),), ((0, 1), (0,)), ((0, 1), (0, 1), (2,))],
    ids=["one-too-high", "far-too-high", "two-stacks", "three-stacks"],
)
def test_a_path_that_does_not_fit_is_refused(paths: tuple[tuple[int, ...], ...]) -> None:
    model = LLAMA.build()
    net = raptr.attach(model)
    net.activate(Script([PATH]), 0)
    before, on_path = Snapshot.of(model), LLAMA.logits(model)
    wrong = raptr.Subnetwork.of(*paths)
    with pytest.raises(raptr.RaptrError), net.using(wrong):
        pass
    with pytest.raises(raptr.RaptrError):
        net.activate(Script([wrong]), 0)
    assert untouched(model, before)
    assert torch.equal(LLAMA.logits(model), on_path)


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
def test_hidden_states_are_complete_or_refused_on_a_path(family: Family) -> None:
    """Callers index hidden states by depth: a shortened list is silently wrong."""
    model = family.build()
    net = raptr.attach(model)
    full = len(model(**family.batch(), output_hidden_states=True).hidden_states)
    assert full == 7
    net.activate(Script([PATH]), 0)
    refused, found = "", full
    try:
        found = len(model(**family.batch(), output_hidden_states=True).hidden_states)
    except raptr.RaptrError as refusal:
        refused = str(refusal)
    assert found == full
    assert not refused or "hidden_states" in refused
    assert torch.isfinite(family.loss(model))  # and the model still works
