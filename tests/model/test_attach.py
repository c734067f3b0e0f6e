"""Attaching changes nothing that anyone can see, and detaching leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import raptr
from reference.families import ALL, BERT, GPT2, HUGGING_FACE, LLAMA, MLP, Family, bert, gpt2, llama
from reference.handwritten import MLPBlock, Net, TwoStacks
from reference.script import Script
from reference.snapshot import Snapshot, untouched

PATH = Script([raptr.Subnetwork.of((0, 2, 5))])
RaptrError = raptr.RaptrError


@pytest.mark.parametrize(
    ("make", "name"),
    [(llama, "model.layers"), (gpt2, "transformer.h"), (bert, "bert.encoder.layer")],
    ids=["llama", "gpt2", "bert"],
)
@pytest.mark.parametrize("layers", [1, 4, 12])
def test_the_stack_is_found(make, name: str, layers: int) -> None:
    net = raptr.attach(make(layers=layers))
    assert [(stack.name, stack.layers) for stack in net.shape.stacks] == [(name, layers)]
    assert name in str(net)
    assert str(layers) in str(net)


def test_the_stack_of_a_model_without_a_head_is_found() -> None:
    assert raptr.attach(LLAMA.build().model).shape.stacks[0].name == "layers"
    assert raptr.attach(GPT2.build().transformer).shape.stacks[0].name == "h"
    assert raptr.attach(BERT.build().bert).shape.stacks[0].name == "encoder.layer"


def test_given_blocks_are_named() -> None:
    model = Net(3, "mlp")
    assert raptr.attach(model, blocks=model.layers).shape.stacks[0].name == "layers"
    two = TwoStacks(first=2, second=4)
    net = raptr.attach(two, blocks={"low": two.lower, "high": two.upper})
    assert [(s.name, s.layers) for s in net.shape.stacks] == [("low", 2), ("high", 4)]
    assert "low" in str(net)
    assert "high" in str(net)


def test_given_blocks_override_what_would_be_found() -> None:
    model = LLAMA.build()
    small = LLAMA.shallow(model, (0, 5))
    net = raptr.attach(model, blocks=model.model.layers)
    net.activate(Script([raptr.Subnetwork.of((0, 5))]), 0)
    assert torch.equal(LLAMA.loss(model), LLAMA.loss(small))


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_names_and_types_stay(family: Family) -> None:
    model, plain = family.build(), family.build()
    parameters = dict(model.named_parameters())
    pointers = {name: p.data_ptr() for name, p in parameters.items()}
    classes = {name: type(module) for name, module in model.named_modules()}
    net = raptr.attach(model, blocks=family.blocks(model))
    for active in (False, True):
        if active:
            net.activate(PATH, 0)
        assert list(model.state_dict()) == list(plain.state_dict())
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True)
        )
        assert {n: id(p) for n, p in model.named_parameters()} == {n: id(p) for n, p in parameters.items()}
        assert {n: p.data_ptr() for n, p in model.named_parameters()} == pointers
        assert [n for n, _ in model.named_modules()] == list(classes)
        for name, module in model.named_modules():
            assert isinstance(module, classes[name]), name
            assert type(module).__name__ == classes[name].__name__, name
        assert len(family.layers(model)) == 6
    assert type(model) is type(plain)


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
def test_attaching_draws_nothing_and_runs_nothing_visible(family: Family) -> None:
    model = family.build()
    before, state = Snapshot.of(model), torch.get_rng_state()
    raptr.attach(model)
    assert torch.equal(torch.get_rng_state(), state)
    after = Snapshot.of(model)
    assert all(before.tensors[name].equal(tensor) for name, tensor in after.tensors.items())
    assert all(p.grad is None for p in model.parameters())
    assert after.modes == before.modes


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_detach_restores(family: Family, used: bool) -> None:
    model = family.build()
    before, loss = Snapshot.of(model), family.loss(model)
    net = raptr.attach(model, blocks=family.blocks(model))
    assert not untouched(model, before)  # control: attaching is a change that is seen
    if used:
        net.activate(PATH, 0)
        family.loss(model).backward()
        with net.using(raptr.Subnetwork.of((1,))):
            family.logits(model)
        model.zero_grad()
    net.detach()
    assert untouched(model, before)
    assert torch.equal(family.loss(model), loss)


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


@pytest.mark.parametrize("family", [LLAMA, BERT, MLP], ids=lambda f: f.name)
def test_a_second_attach_is_refused(family: Family) -> None:
    model = family.build()
    small = family.shallow(model, (0, 2, 5))
    net = raptr.attach(model, blocks=family.blocks(model))
    net.activate(PATH, 0)
    before = Snapshot.of(model)
    with pytest.raises(RaptrError, match="attached"):
        raptr.attach(model, blocks=family.blocks(model))
    assert untouched(model, before)
    assert torch.equal(family.loss(model), family.loss(small))  # the first is still in force


def test_attaching_a_part_of_an_attached_model_is_refused() -> None:
    model = LLAMA.build()
    raptr.attach(model)
    before = Snapshot.of(model)
    with pytest.raises(RaptrError, match="attached"):
        raptr.attach(model.model)
    assert untouched(model, before)


def albert() -> nn.Module:
    """One block, called six times."""
    from transformers import AlbertConfig, AlbertForMaskedLM

    return AlbertForMaskedLM(
        AlbertConfig(
            vocab_size=61,
            embedding_size=8,
            hidden_size=16,
            num_hidden_layers=6,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=64,
        )
    )


def sharing() -> Net:
    """A list of four layers, of which the last is the first again."""
    model = Net(4, "mlp")
    model.layers[3] = model.layers[0]
    return model


def sharing_weights() -> Net:
    """Four layers of which two share a weight."""
    model = Net(4, "mlp")
    model.layers[3].up.weight = model.layers[0].up.weight
    return model


@pytest.mark.parametrize(
    "make",
    [
        albert,
        lambda: nn.Linear(3, 3),
        lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU()),
        lambda: Net(4, "mlp"),
        TwoStacks,
        nn.Module,
    ],
    ids=["albert", "linear", "sequential", "by-hand", "two-stacks", "empty"],
)
def test_an_unknown_structure_is_refused(make) -> None:
    model = make()
    before = Snapshot.of(model)
    with pytest.raises(RaptrError):
        raptr.attach(model)
    assert untouched(model, before)


def test_the_refusal_says_what_was_seen_and_what_to_pass() -> None:
    with pytest.raises(RaptrError) as refusal:
        raptr.attach(TwoStacks())
    for word in ("TwoStacks", "lower", "upper", "blocks"):
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "blocks"),
    [
        (lambda: Net(4, "mlp"), lambda m: nn.ModuleList(MLPBlock(16, 24) for _ in range(4))),
        (lambda: Net(4, "mlp"), lambda m: Net(4, "mlp").layers),
        (lambda: Net(4, "mlp"), lambda m: nn.ModuleList(m.layers[:2])),
        (lambda: Net(4, "mlp"), lambda m: nn.ModuleList()),
        (lambda: Net(4, "mlp"), lambda m: "layers"),
        (lambda: Net(4, "mlp"), lambda m: list(m.layers)),
        (lambda: Net(4, "mlp"), lambda m: m.layers[0]),
        (lambda: Net(4, "mlp"), lambda m: {}),
        (lambda: Net(4, "mlp"), lambda m: {"layers": "layers"}),
        (lambda: Net(4, "mlp"), lambda m: {"a": m.layers, "b": m.layers}),
        (
            lambda: Net(4, "mlp"),
            lambda m: {"good": m.layers, "bad": nn.ModuleList(MLPBlock(16, 24) for _ in range(2))},
        ),
        (TwoStacks, lambda m: {"good": m.lower, "bad": m.upper[0]}),
        (sharing, lambda m: m.layers),
    ],
    ids=[
        "new",
        "of-another",
        "new-list-of-its-own",
        "no-layers",
        "string",
        "list",
        "one-block",
        "no-stacks",
        "dict-of-strings",
        "twice",
        "good-and-foreign",
        "good-and-a-block",
        "shared",
    ],
)
def test_wrong_blocks_are_refused(make, blocks) -> None:
    model = make()
    given = blocks(model)
    before = Snapshot.of(model)
    with pytest.raises(RaptrError):
        raptr.attach(model, blocks=given)
    assert untouched(model, before)


def test_a_refusal_is_a_value_error_and_leaves_a_model_that_trains() -> None:
    model = Net(4, "mlp")
    with pytest.raises(ValueError, match="blocks"):
        raptr.attach(model)
    net = raptr.attach(model, blocks=model.layers)
    assert net.shape.stacks[0].layers == 4
    assert issubclass(RaptrError, ValueError)


@pytest.mark.parametrize("thing", [None, "llama", 3, {"a": 1}], ids=str)
def test_what_is_no_module_is_refused(thing: object) -> None:
    with pytest.raises(RaptrError):
        raptr.attach(thing)


def test_layers_that_share_a_weight_keep_working_or_are_refused() -> None:
    model = sharing_weights()
    before = Snapshot.of(model)
    try:
        net = raptr.attach(model, blocks=model.layers)
    except RaptrError:
        assert untouched(model, before)
        return
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    net.prepare(optimizer, inactive="freeze")
    net.activate(Script([raptr.Subnetwork.of((0, 1))]), 0)
    shared = model.layers[0].up.weight.detach().clone()
    MLP.loss(model).backward()
    optimizer.step()
    assert not torch.equal(model.layers[0].up.weight, shared)  # kept through layer 0, skipped through 3


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


def test_attaching_runs_no_hook_of_the_user() -> None:
    """Whatever is tried out on a twin, the user's hooks (logging, averages) must not see it."""
    model = LLAMA.build()
    fired: list[str] = []
    for module in (model, model.model.layers[1]):
        module.register_forward_pre_hook(lambda module, _: fired.append(type(module).__name__))
        module.register_forward_hook(lambda module, *_: fired.append(type(module).__name__))
    model.model.layers[2].register_forward_hook(lambda _, __, out: fired.append(str(out.sum().item())))
    raptr.attach(model)
    assert fired == []
    LLAMA.loss(model)
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
