"""Attaching changes nothing that anyone can see, and detaching leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import raptr
from raptr import RaptrError
from reference.families import BERT, GPT2, HUGGING_FACE, LLAMA, MLP, Family, every_family, hugging_face, some_families
from reference.handwritten import Net, TwoStacks
from reference.script import Script, on
from reference.snapshot import Snapshot, left_alone, untouched

PATH = on((0, 2, 5))


@every_family
def test_the_stacks_are_found(family: Family, attached: tuple[nn.Module, Any]) -> None:
    _, net = attached
    names = [name if len(family.stacks) > 1 or not family.by_hand else "layers" for name in family.stacks]
    assert [(stack.name, stack.layers) for stack in net.shape.stacks] == list(
        zip(names, family.stacks.values(), strict=True)
    )
    for name, layers in zip(names, family.stacks.values(), strict=True):
        assert name in str(net)
        assert str(layers) in str(net)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 4, 12])
@some_families
def test_the_depth_does_not_matter(family: Family, layers: int) -> None:
    net = raptr.attach(family.make(layers=layers))
    assert [(stack.name, stack.layers) for stack in net.shape.stacks] == [(family.stack, layers)]


@hugging_face
def test_the_stack_of_a_model_without_a_head_is_found(family: Family) -> None:
    base = family.build().base_model
    net = raptr.attach(base)
    for found, (name, layers) in zip(net.shape.stacks, family.stacks.items(), strict=True):
        assert name.endswith(found.name)
        assert found.layers == layers


def test_given_blocks_are_named() -> None:
    model = Net(3, "mlp")
    assert raptr.attach(model, blocks=model.layers).shape.stacks[0].name == "layers"
    two = TwoStacks(first=2, second=4)
    net = raptr.attach(two, blocks={"low": two.lower, "high": two.upper})
    assert [(s.name, s.layers) for s in net.shape.stacks] == [("low", 2), ("high", 4)]
    assert "low" in str(net)
    assert "high" in str(net)


@hugging_face
def test_blocks_may_be_given_where_they_would_be_found(family: Family) -> None:
    model = family.build()
    small = family.shallow(model, *family.path)
    blocks = {name: model.get_submodule(name) for name in family.stacks}
    net = raptr.attach(model, blocks=blocks, inputs=family.batch())
    assert {stack.name: [layer for layer, _ in stack.required] for stack in net.shape.stacks} == {
        name: list(family.required.get(name, ())) for name in family.stacks
    }
    net.activate(on(*family.path), 0)
    assert torch.equal(family.loss(model), family.loss(small))


@every_family
def test_names_and_types_stay(family: Family) -> None:
    model, plain = family.build(), family.build()
    parameters = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    classes = {name: type(module) for name, module in model.named_modules()}
    net = raptr.attach(model, **family.arguments(model))
    for path in (family.full, family.path):
        net.activate(on(*path), 0)
        assert list(model.state_dict()) == list(plain.state_dict())
        assert all(tensor.equal(model.state_dict()[name]) for name, tensor in plain.state_dict().items())
        assert {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()} == parameters
        assert [name for name, _ in model.named_modules()] == list(classes)
        for name, module in model.named_modules():
            assert isinstance(module, classes[name]), name
            assert type(module).__name__ == classes[name].__name__, name
        assert [len(model.get_submodule(name)) for name in family.stacks] == list(family.stacks.values())
    assert type(model) is type(plain)
    # Control: it is attached.
    changed = {name for name, module in model.named_modules() if type(module) is not classes[name]}
    assert {f"{name}." for name in changed} == set(family.named_layers(family.full))


@every_family
def test_attach_and_detach_leave_no_trace(family: Family) -> None:
    model = family.build()
    loss = family.loss(model)  # a first run is transformers' chance to add hooks and entries of its own
    with left_alone(model) as before:
        net = raptr.attach(model, **family.arguments(model))
        found = before.differences(Snapshot.of(model))
        assert found  # control: attaching is a change that is seen
        assert all("class" in line or "__dict__" in line for line in found)
        net.activate(on(*family.path), 0)
        with torch.random.fork_rng(devices=[]):  # some models draw whenever they train
            family.loss(model).backward()
            with net.using(raptr.Subnetwork.of(*family.paths[1])):
                family.logits(model)
        model.zero_grad()
        net.detach()
    assert torch.equal(family.loss(model), loss)
    family.loss(model).backward()
    assert all(any(p.grad is not None for p in layer.parameters()) for layer in family.layers(model))


def test_detach_restores_after_training_with_a_prepared_optimizer() -> None:
    model = LLAMA.build()
    before = Snapshot.of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    net = raptr.attach(model)
    net.prepare(optimizer, inactive="freeze")
    hooks = len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)
    net.activate(PATH, 0)
    LLAMA.loss(model).backward()
    optimizer.step()
    optimizer.zero_grad()
    net.detach()
    after = Snapshot.of(model)
    found = [line for line in before.differences(after) if "values differ" not in line]
    assert found == []
    left = len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)
    assert left == 0, f"{left} of {hooks} hooks are still on the optimizer"
    kept = {n: p.detach().clone() for n, p in model.named_parameters()}
    LLAMA.loss(model).backward()
    optimizer.step()
    assert all(not torch.equal(p, kept[n]) for n, p in model.named_parameters())


def test_a_detached_net_is_refused_and_the_model_can_be_attached_again() -> None:
    model = LLAMA.build()
    net = raptr.attach(model)
    net.detach()
    with pytest.raises(RaptrError):
        net.activate(PATH, 0)
    with pytest.raises(RaptrError), net.using(raptr.Subnetwork.of((0, 1))):
        pass
    with pytest.raises(RaptrError):
        net.prepare(torch.optim.AdamW(model.parameters()))
    small = LLAMA.shallow(model, (0, 2, 5))
    again = raptr.attach(model)
    again.activate(PATH, 0)
    assert torch.equal(LLAMA.loss(model), LLAMA.loss(small))
    again.detach()


@every_family
def test_a_second_attach_is_refused(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    net.activate(on(*family.path), 0)
    with left_alone(model), pytest.raises(RaptrError, match="attached"):
        raptr.attach(model, **family.arguments(model))
    small = family.shallow(family.build(), *family.path)
    assert torch.equal(family.loss(model), family.loss(small))  # the first is still in force


def test_attaching_a_part_of_an_attached_model_is_refused() -> None:
    model = LLAMA.build()
    raptr.attach(model)
    with left_alone(model), pytest.raises(RaptrError, match="attached"):
        raptr.attach(model.model)


def test_a_hook_on_a_skipped_layer_does_not_fire() -> None:
    """The gate comes before every hook: FSDP2 then neither gathers nor reduces a skipped layer."""
    model = LLAMA.build()
    fired: list[int] = []
    for i, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda *_, i=i: fired.append(i))
    net = raptr.attach(model)
    net.activate(PATH, 0)
    fired.clear()
    LLAMA.loss(model)
    assert fired == [0, 2, 5]
    net.detach()
    LLAMA.loss(model)
    assert fired == [0, 2, 5, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "family", [LLAMA, *(f for f in HUGGING_FACE if f.name in ("t5", "vit"))], ids=lambda family: family.name
)
def test_attaching_runs_no_hook_of_the_user(family: Family) -> None:
    """Whatever is tried out on a twin, the user's hooks (logging, averages) must not see it."""
    model = family.build()
    fired: list[str] = []
    for module in (model, family.layers(model)[1]):
        module.register_forward_pre_hook(lambda module, _: fired.append(type(module).__name__))
        module.register_forward_hook(lambda module, *_: fired.append(type(module).__name__))
    family.layers(model)[2].register_forward_hook(lambda *_: fired.append("output"))
    raptr.attach(model)
    assert fired == []
    family.loss(model)
    assert len(fired) == 5  # control: they work


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attaching_without_gradients_changes_nothing(mode) -> None:
    model = LLAMA.build()
    small = LLAMA.shallow(model, (0, 2, 5))
    with mode():
        net = raptr.attach(model)
    net.activate(PATH, 0)
    for each in (model, small):
        LLAMA.loss(each).backward()
    assert torch.equal(model.lm_head.weight.grad, small.lm_head.weight.grad)
    assert model.model.layers[1].mlp.up_proj.weight.grad is None


@pytest.mark.parametrize("family", [GPT2, BERT], ids=lambda family: family.name)
def test_attaching_draws_nothing(family: Family) -> None:
    """Not even from a model with dropout, in training."""
    model = family.build(dropout=0.2)
    state = torch.get_rng_state()
    net = raptr.attach(model)
    net.activate(on(*family.path), 0)
    assert torch.equal(torch.get_rng_state(), state)
    family.loss(model)
    assert not torch.equal(torch.get_rng_state(), state)  # control: a run draws


def test_blocks_that_the_user_compiled_stay_compiled() -> None:
    model = MLP.build()
    small = MLP.shallow(model, (0, 2, 5))
    for layer in model.layers:
        layer.compile(backend="eager")
    before = Snapshot.of(model)
    net = raptr.attach(model, blocks=model.layers)
    net.activate(PATH, 0)
    assert torch.equal(MLP.loss(model), MLP.loss(small))
    net.detach()
    assert untouched(model, before)
    assert all(layer._compiled_call_impl is not None for layer in model.layers)
    torch._dynamo.reset()


def test_handle_from_before_a_new_attach_is_refused() -> None:
    model = Net(4, "attention")
    old = raptr.attach(model, blocks=model.layers)
    old.detach()
    new = raptr.attach(model, blocks=model.layers)
    with pytest.raises(RaptrError, match="newest attach"):
        old.activate(on((0, 3)), 0)
    new.activate(Script([raptr.Subnetwork.of((0, 3))]), 0)
    assert new.subnetwork == raptr.Subnetwork.of((0, 3))
