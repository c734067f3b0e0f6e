"""On a path, loss and every gradient are those of a smaller model made of the kept layers, bit for bit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from reference.families import ALL, ATTENTION, LLAMA, MLP, Family, every_family, hugging_face, some_families
from reference.family import Path
from reference.script import Script, on
from reference.shallow import difference

CASES = [
    pytest.param(family, path, id=f"{family.name}-{'|'.join(','.join(map(str, layers)) for layers in path)}")
    for family in ALL
    for path in family.paths
]


def check(family: Family, full: nn.Module, small: nn.Module, path: Path, seed: int = 5) -> None:
    """Loss and gradients of both are the same, and None in the full model for what was skipped."""
    losses = []
    for model in (full, small):
        model.zero_grad()
        losses.append(family.loss(model, seed))
        losses[-1].backward()
    assert torch.equal(*losses)
    assert difference(full, small, family.kept(path)) == []
    trained = tuple(name for name, p in full.named_parameters() if p.grad is not None)
    left_out = set(family.named_layers(family.full)) - set(family.named_layers(path))
    assert not [name for name in trained if name.startswith(tuple(left_out))]
    assert all(any(name.startswith(layer) for name in trained) for layer in family.named_layers(path))


@pytest.mark.parametrize(("family", "path"), CASES)
def test_a_path_is_the_smaller_model(family: Family, path: Path, attached: tuple[nn.Module, Any]) -> None:
    full, net = attached
    small = family.shallow(family.build(), *path)
    net.activate(on(*path), 0)
    check(family, full, small, path)


@some_families
def test_the_path_may_change_at_every_step(family: Family) -> None:
    full = family.build()
    references = [family.shallow(full, *path) for path in family.paths]
    net = raptr.attach(full, **family.arguments(full))
    plan = Script([raptr.Subnetwork.of(*path) for path in family.paths])
    for step in (3, 0, 4, 1, 2, 0):  # any step, in any order
        net.activate(plan, step)
        check(family, full, references[step], family.paths[step], seed=step)


@every_family
def test_another_path_is_noticed(family: Family, attached: tuple[nn.Module, Any]) -> None:
    """Negative control: the comparison fails with the reference of another path."""
    (full, net), other = attached, family.paths[1]
    small = family.shallow(family.build(), *other)
    net.activate(on(*family.path), 0)
    losses = [family.loss(model) for model in (full, small)]
    for loss in losses:
        loss.backward()
    assert not torch.allclose(*losses, rtol=1e-6)
    # All but those that no gradient reaches (a key's bias), or that only one of both trains.
    assert len(difference(full, small, family.kept(other), rtol=1e-6)) > len(list(small.parameters())) / 2


@hugging_face
def test_a_bound_plan_drives_the_model(family: Family, attached: tuple[nn.Module, Any]) -> None:
    (full, net), original = attached, family.build()
    plan = raptr.RaPTr("50%-75%-100%", fixed=(0, -1), seed=0).plan(net.shape, steps=30)
    seen = set()
    for step in (0, 13, 29):
        path = plan.subnetwork(step).layers
        seen.add(path)
        net.activate(plan, step)
        check(family, full, family.shallow(original, *path), path)
    assert len(seen) == 3
    assert family.full in seen


def draws_without_dropout(family: Family) -> bool:
    """Whether a model without dropout uses random numbers when it trains: OPT and BART in older transformers."""
    before = torch.get_rng_state()
    family.loss(family.build())
    return not torch.equal(torch.get_rng_state(), before)


@hugging_face
def test_skipped_layers_draw_no_dropout(family: Family) -> None:
    if draws_without_dropout(family):
        pytest.skip("this model draws for every layer, outside of it (its own layerdrop, even at 0)")
    full = family.build(dropout=0.2)
    small = family.shallow(full, *family.path)
    raptr.attach(full).activate(on(*family.path), 0)
    losses = []
    for model in (full, small):
        torch.manual_seed(11)
        losses.append(family.loss(model))
        losses[-1].backward()
    assert torch.equal(*losses)
    assert difference(full, small, family.kept(family.path)) == []
    torch.manual_seed(12)
    assert not torch.equal(family.loss(small), losses[1])  # control: dropout is on


@hugging_face
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_activation_checkpointing_gives_the_same_gradients(family: Family, attached: tuple[nn.Module, Any]) -> None:
    full, net = attached
    full.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        check_recomputed(family, full, net)
    finally:
        full.gradient_checkpointing_disable()


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
@some_families
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_checkpointing_may_be_on_before_attaching(family: Family, reentrant: bool) -> None:
    full = family.build()
    full.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    check_recomputed(family, full, raptr.attach(full))


def check_recomputed(family: Family, full: nn.Module, net: Any) -> None:
    """Check a path under activation checkpointing, and that its layers really were computed twice.

    Not bit for bit: without raptr too, T5 sums in another order when it recomputes.
    """
    small = family.shallow(family.build(), *family.path)
    runs: Counter[str] = Counter()
    handles = []
    for name in family.named_layers(family.full):
        inner = next(m for m in full.get_submodule(name[:-1]).modules() if m._parameters)
        handles.append(inner.register_forward_hook(lambda *_, name=name: runs.update([name])))
    net.activate(on(*family.path), 0)
    losses = [family.loss(model) for model in (full, small)]
    for loss in losses:
        loss.backward()
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    assert difference(full, small, family.kept(family.path), rtol=1e-9, atol=1e-12) == []
    assert runs == dict.fromkeys(family.named_layers(family.path), 2)


def test_a_checkpoint_around_the_block_recomputes_the_same_path() -> None:
    """Here the gate itself is called again, during backward."""
    full = ATTENTION.build(checkpointed=True)
    kept = ((0, 2, 3),)
    small = ATTENTION.shallow(full, *kept)
    raptr.attach(full, blocks=full.layers).activate(on(*kept), 0)
    check(ATTENTION, full, small, kept)


@pytest.mark.parametrize("how", ["eval", "using"])
def test_recomputation_runs_the_path_of_the_forward_whatever_the_mode(how: str) -> None:
    """``eval()`` or the end of ``using`` between forward and backward changes no gradient."""
    kept = (0, 2, 3)
    full = ATTENTION.build(checkpointed=True)
    small = ATTENTION.shallow(full, kept)
    net = raptr.attach(full, blocks=full.layers)
    if how == "eval":
        net.activate(on(kept), 0)
        loss = ATTENTION.loss(full)
        full.eval()
    else:
        with net.using(raptr.Subnetwork.of(kept)):
            loss = ATTENTION.loss(full)
    loss.backward()
    ATTENTION.loss(small).backward()
    assert difference(full, small, ATTENTION.kept((kept,))) == []


@pytest.mark.parametrize("family", [LLAMA, MLP], ids=lambda f: f.name)
def test_micro_batches_accumulate(family: Family) -> None:
    full = family.build()
    small = family.shallow(full, *family.path)
    net = raptr.attach(full, **family.arguments(full))
    for seed in (1, 2, 3):
        net.activate(on(*family.path), 0)
        for model in (full, small):
            family.loss(model, seed).backward()
    assert difference(full, small, family.kept(family.path)) == []


def test_two_models_of_one_class_are_independent() -> None:
    first, second, third = (LLAMA.build(seed=seed) for seed in (1, 2, 3))
    references = [
        LLAMA.shallow(first, (0, 5)),
        LLAMA.shallow(second, (1, 2, 3)),
        LLAMA.shallow(third, range(6)),
    ]
    nets = raptr.attach(first), raptr.attach(second)
    nets[0].activate(on((0, 5)), 0)
    nets[1].activate(on((1, 2, 3)), 0)
    for model, small in zip((first, second, third), references, strict=True):
        assert torch.equal(LLAMA.loss(model), LLAMA.loss(small))
    nets[0].detach()
    assert torch.equal(LLAMA.loss(second), LLAMA.loss(references[1]))
    assert torch.equal(LLAMA.loss(first), LLAMA.loss(LLAMA.shallow(first, range(6))))
