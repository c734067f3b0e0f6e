"""On a path, loss and every gradient are those of a smaller model made of the kept layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import raptr
from reference.families import ALL, ATTENTION, BERT, GPT2, HUGGING_FACE, LLAMA, MLP, Family
from reference.handwritten import TwoStacks, loss_of, some_tokens
from reference.script import Script
from reference.shallow import expected_gradients, gradients

PATHS = [(0, 2, 3, 5), (0, 5), (1, 4), (3,), (0, 1, 2, 3, 4, 5)]


def on(*layers: int) -> Script:
    """A plan that always trains these layers."""
    return Script([raptr.Subnetwork.of(layers)])


def assert_equal_gradients(family: Family, full: nn.Module, small: nn.Module, kept: tuple[int, ...]) -> None:
    """Bit for bit, by name, and None for what was skipped."""
    expected = expected_gradients(full, small, {family.stack: kept})
    found = gradients(full)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        if grad is None:
            assert found[name] is None, f"{name} was skipped and has a gradient"
        else:
            assert found[name] is not None, f"{name} was kept and has no gradient"
            assert torch.equal(found[name], grad), f"{name}: {(found[name] - grad).abs().max()}"


@pytest.mark.parametrize("kept", PATHS, ids=str)
@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_a_path_is_the_smaller_model(family: Family, kept: tuple[int, ...]) -> None:
    full = family.build()
    small = family.shallow(full, kept)
    raptr.attach(full, blocks=family.blocks(full)).activate(on(*kept), 0)
    losses = family.loss(full), family.loss(small)
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    assert_equal_gradients(family, full, small, kept)


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_the_path_may_change_at_every_step(family: Family) -> None:
    full = family.build()
    references = {kept: family.shallow(full, kept) for kept in PATHS}
    net = raptr.attach(full, blocks=family.blocks(full))
    plan = Script([raptr.Subnetwork.of(kept) for kept in PATHS])
    for step in (3, 0, 4, 1, 2, 0):  # any step, in any order
        kept = PATHS[step]
        net.activate(plan, step)
        small = references[kept]
        for model in (full, small):
            model.zero_grad()
            family.loss(model, seed=step).backward()
        assert_equal_gradients(family, full, small, kept)


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
def test_a_bound_plan_drives_the_model(family: Family) -> None:
    full = family.build()
    originals = family.build()
    net = raptr.attach(full)
    plan = raptr.RaPTr("2-4-6", fixed=(0, -1), sampler="fixed", seed=0).plan(net.shape, steps=30)
    seen = set()
    for step in (0, 7, 13, 19, 29):
        (kept,) = plan.subnetwork(step).layers
        seen.add(len(kept))
        net.activate(plan, step)
        small = family.shallow(originals, kept)
        full.zero_grad()
        family.loss(full).backward()
        family.loss(small).backward()
        assert_equal_gradients(family, full, small, kept)
    assert seen == {2, 4, 6}


def test_the_wrong_reference_is_noticed() -> None:
    """Negative control: the comparison above fails for a path that differs in one layer."""
    full = LLAMA.build()
    small = LLAMA.shallow(full, (0, 2, 4, 5))
    raptr.attach(full).activate(on(0, 2, 3, 5), 0)
    for model in (full, small):
        LLAMA.loss(model).backward()
    with pytest.raises(AssertionError):
        assert_equal_gradients(LLAMA, full, small, (0, 2, 4, 5))


@pytest.mark.parametrize("family", [GPT2, BERT], ids=lambda f: f.name)
def test_skipped_layers_draw_no_dropout(family: Family) -> None:
    full = family.build(dropout=0.2)
    kept = (0, 3, 5)
    small = family.shallow(full, kept)
    raptr.attach(full).activate(on(*kept), 0)
    losses = []
    for model in (full, small):
        torch.manual_seed(11)
        losses.append(family.loss(model))
        losses[-1].backward()
    assert torch.equal(*losses)
    assert_equal_gradients(family, full, small, kept)
    torch.manual_seed(12)
    assert not torch.equal(family.loss(small), losses[1])  # control: dropout is on


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
@pytest.mark.parametrize("enabled_first", [True, False], ids=["before-attach", "after-attach"])
@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_activation_checkpointing_gives_the_same_gradients(
    family: Family, enabled_first: bool, reentrant: bool
) -> None:
    full = family.build()
    kept = (1, 2, 3, 5)
    small = family.shallow(full, kept)
    runs = {"full": 0}

    def count(*_: object) -> None:
        runs["full"] += 1

    def enable() -> None:
        full.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})

    if enabled_first:
        enable()
    net = raptr.attach(full)
    if not enabled_first:
        enable()
    inner = next(m for m in family.layers(full)[2].modules() if isinstance(m, nn.LayerNorm | nn.Dropout | nn.Linear))
    inner.register_forward_hook(count)
    net.activate(on(*kept), 0)
    for model in (full, small):
        family.loss(model).backward()
    assert_equal_gradients(family, full, small, kept)
    assert runs["full"] == 2  # control: the layer really was recomputed


def test_a_checkpoint_around_the_block_recomputes_the_same_path() -> None:
    """Here the gate itself is called again, during backward."""
    full = ATTENTION.build(checkpointed=True)
    kept = (0, 2, 3)
    small = ATTENTION.shallow(full, kept)
    raptr.attach(full, blocks=full.layers).activate(on(*kept), 0)
    for model in (full, small):
        ATTENTION.loss(model).backward()
    assert_equal_gradients(ATTENTION, full, small, kept)


def test_recomputation_runs_the_path_of_the_forward_whatever_the_mode() -> None:
    """``eval()`` or the end of ``using`` between forward and backward changes no gradient."""
    kept = (0, 2, 3)
    for how in ("eval", "using"):
        full = ATTENTION.build(checkpointed=True)
        small = ATTENTION.shallow(full, kept)
        net = raptr.attach(full, blocks=full.layers)
        if how == "eval":
            net.activate(on(*kept), 0)
            loss = ATTENTION.loss(full)
            full.eval()
        else:
            with net.using(raptr.Subnetwork.of(kept)):
                loss = ATTENTION.loss(full)
        loss.backward()
        ATTENTION.loss(small).backward()
        assert_equal_gradients(ATTENTION, full, small, kept)


@pytest.mark.parametrize("family", [LLAMA, MLP], ids=lambda f: f.name)
def test_micro_batches_accumulate(family: Family) -> None:
    full = family.build()
    kept = (0, 2, 5)
    small = family.shallow(full, kept)
    net = raptr.attach(full, blocks=family.blocks(full))
    for seed in (1, 2, 3):
        net.activate(on(*kept), 0)
        for model in (full, small):
            family.loss(model, seed).backward()
    assert_equal_gradients(family, full, small, kept)


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_training_with_nothing_activated_is_full(family: Family) -> None:
    full, plain = family.build(), family.build()
    raptr.attach(full, blocks=family.blocks(full))
    for model in (full, plain):
        family.loss(model).backward()
    assert_equal_gradients(family, full, plain, tuple(range(6)))


def test_two_stacks_have_two_paths() -> None:
    torch.manual_seed(3)
    full = TwoStacks(first=3, second=4).double()
    small = TwoStacks(first=2, second=1).double()
    pairs = {"lower.0": "lower.0", "lower.1": "lower.2", "upper.0": "upper.3"}
    weights = full.state_dict()

    def name_in_full(name: str) -> str:
        return ".".join([pairs[".".join(name.split(".")[:2])], *name.split(".")[2:]]) if "er." in name else name

    small.load_state_dict({name: weights[name_in_full(name)].clone() for name in small.state_dict()})
    net = raptr.attach(full, blocks={"below": full.lower, "above": full.upper})
    assert [(stack.name, stack.layers) for stack in net.shape.stacks] == [("below", 3), ("above", 4)]
    net.activate(Script([raptr.Subnetwork.of((0, 2), (3,))]), 0)
    for model in (full, small):
        loss_of(model, some_tokens()).backward()
    expected = {name_in_full(name): grad for name, grad in gradients(small).items()}
    for name, grad in gradients(full).items():
        assert (grad is None) == (name not in expected), name
        assert grad is None or torch.equal(grad, expected[name]), name


def test_two_models_of_one_class_are_independent() -> None:
    first, second, third = (LLAMA.build(seed=seed) for seed in (1, 2, 3))
    references = [
        LLAMA.shallow(first, (0, 5)),
        LLAMA.shallow(second, (1, 2, 3)),
        LLAMA.shallow(third, range(6)),
    ]
    nets = raptr.attach(first), raptr.attach(second)
    nets[0].activate(on(0, 5), 0)
    nets[1].activate(on(1, 2, 3), 0)
    for model, small in zip((first, second, third), references, strict=True):
        assert torch.equal(LLAMA.loss(model), LLAMA.loss(small))
    nets[0].detach()
    assert torch.equal(LLAMA.loss(second), LLAMA.loss(references[1]))
    assert torch.equal(LLAMA.loss(first), LLAMA.loss(LLAMA.shallow(first, range(6))))
