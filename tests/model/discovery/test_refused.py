"""What cannot be trained by parts is refused with what was seen, and left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import raptr
from raptr import RaptrError
from raptr.model.discovery.layers import find_layers
from raptr.model.stacks import Stack
from raptr.model.width.locate import Unsupported, find_width
from reference.batches import plain
from reference.families import BART, HUGGING_FACE, LLAMA, MLP, SIZES, Family
from reference.handwritten import UNUSUAL, MLPBlock, Net, TwoStacks, Unusual, loss_of, some_tokens
from reference.script import on
from reference.snapshot import left_alone

Builder = Callable[[], nn.Module]


def refusal(model: nn.Module, **arguments: Any) -> str:
    """Why a model is refused; asserts that it is, and that nothing of it changed."""
    with left_alone(model), pytest.raises(RaptrError) as refused:
        raptr.attach(model, **arguments)
    return str(refused.value)


def albert() -> nn.Module:
    """One block, called six times."""
    return transformers.AlbertForMaskedLM(transformers.AlbertConfig(**SIZES, embedding_size=8, num_hidden_layers=6))


def opt_with_its_own(layerdrop: float) -> nn.Module:
    """An OPT that drops layers by itself."""
    return transformers.OPTForCausalLM(
        transformers.OPTConfig(**SIZES, ffn_dim=24, word_embed_proj_dim=16, num_hidden_layers=6, layerdrop=layerdrop)
    )


def bart_with_its_own(**layerdrop: float) -> nn.Module:
    """A BART one of whose stacks drops layers by itself."""
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(**BART, encoder_layers=3, decoder_layers=4, **layerdrop)
    )


# Rows of docs/families.md: name -> (how it is made, words of the refusal).
REFUSED: dict[str, tuple[Builder, tuple[str, ...]]] = {
    "albert": (albert, ("AlbertForMaskedLM", "times")),
    "layerdrop": (lambda: opt_with_its_own(0.5), ("OPTForCausalLM", "layerdrop")),
    "encoder-layerdrop": (lambda: bart_with_its_own(encoder_layerdrop=0.1), ("layerdrop", "encoder")),
    "decoder-layerdrop": (lambda: bart_with_its_own(decoder_layerdrop=0.1), ("layerdrop", "decoder")),
    "two-lists": (TwoStacks, ("TwoStacks", "lower", "upper", "blocks=")),
    "no-list": (lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU()), ("Sequential", "blocks=")),
    "by-hand": (lambda: Net(4, "mlp"), ("Net", "layers", "blocks=")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_trained_by_parts_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    message = refusal(make())
    for word in words:
        assert word in message


@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 3), nn.Module], ids=["linear", "empty"])
def test_what_has_no_layers_is_refused(make: Builder) -> None:
    assert "blocks=" in refusal(make())


@pytest.mark.parametrize(
    "make", [lambda: opt_with_its_own(0.0), lambda: bart_with_its_own(encoder_layerdrop=0.0)], ids=["opt", "bart"]
)
def test_without_layerdrop_the_same_models_are_attached(make: Builder) -> None:
    """Control of the refusals above."""
    assert raptr.attach(make()).shape.layers in ((6,), (3, 4))


@pytest.mark.parametrize("how", UNUSUAL)
def test_layers_that_do_not_run_one_after_another_are_refused(how: str) -> None:
    model = Unusual(how).double()
    message = refusal(model, blocks=model.layers, inputs=plain())
    assert "layer" in message
    assert torch.isfinite(loss_of(model, some_tokens()))


def test_a_network_whose_layers_do_is_attached() -> None:
    """Control of the refusals above: the same layers, run in order."""
    model = Net(4, "mlp").double()
    assert raptr.attach(model, blocks=model.layers, inputs=plain()).shape.layers == (4,)


@pytest.mark.parametrize("inputs", [{"words": 3}, {}, (), ("a",)], ids=["unknown", "none", "no-arguments", "text"])
def test_inputs_that_the_model_cannot_take_are_refused(inputs: Any) -> None:
    model = Net(4, "mlp")
    assert "inputs" in refusal(model, blocks=model.layers, inputs=inputs)


def test_inputs_may_be_a_tuple_of_positional_ones() -> None:
    model = MLP.build()
    small = MLP.shallow(model, (0, 2))
    raptr.attach(model, blocks=model.layers, inputs=(some_tokens(),)).activate(on((0, 2)), 0)
    assert torch.equal(MLP.loss(model), MLP.loss(small))


def sharing() -> Net:
    """A list of four layers, of which the last is the first again."""
    model = Net(4, "mlp")
    model.layers[3] = model.layers[0]
    return model


WRONG_BLOCKS: dict[str, tuple[Builder, Callable[[Any], Any]]] = {
    "new": (lambda: Net(4, "mlp"), lambda m: nn.ModuleList(MLPBlock(16, 24) for _ in range(4))),
    "of-another": (lambda: Net(4, "mlp"), lambda m: Net(4, "mlp").layers),
    "new-list-of-its-own": (lambda: Net(4, "mlp"), lambda m: nn.ModuleList(m.layers[:2])),
    "no-layers": (lambda: Net(4, "mlp"), lambda m: nn.ModuleList()),
    "string": (lambda: Net(4, "mlp"), lambda m: "layers"),
    "list": (lambda: Net(4, "mlp"), lambda m: list(m.layers)),
    "one-block": (lambda: Net(4, "mlp"), lambda m: m.layers[0]),
    "no-stacks": (lambda: Net(4, "mlp"), lambda m: {}),
    "dict-of-strings": (lambda: Net(4, "mlp"), lambda m: {"layers": "layers"}),
    "twice": (lambda: Net(4, "mlp"), lambda m: {"a": m.layers, "b": m.layers}),
    "good-and-foreign": (
        lambda: Net(4, "mlp"),
        lambda m: {"good": m.layers, "bad": nn.ModuleList(MLPBlock(16, 24) for _ in range(2))},
    ),
    "good-and-a-block": (TwoStacks, lambda m: {"good": m.lower, "bad": m.upper[0]}),
    "shared": (sharing, lambda m: m.layers),
}


@pytest.mark.parametrize("name", WRONG_BLOCKS)
def test_wrong_blocks_are_refused(name: str) -> None:
    make, blocks = WRONG_BLOCKS[name]
    model = make()
    assert refusal(model, blocks=blocks(model))


def test_a_refusal_is_a_value_error_and_leaves_a_model_that_trains() -> None:
    model = Net(4, "mlp")
    with pytest.raises(ValueError, match="blocks"):
        raptr.attach(model)
    assert raptr.attach(model, blocks=model.layers).shape.stacks[0].layers == 4
    assert issubclass(RaptrError, ValueError)


@pytest.mark.parametrize("thing", [None, "llama", 3, {"a": 1}], ids=str)
def test_what_is_no_module_is_refused(thing: Any) -> None:
    with pytest.raises(RaptrError):
        raptr.attach(thing)


def test_layers_that_share_a_weight_keep_working_or_are_refused() -> None:
    model = Net(4, "mlp")
    model.layers[3].up.weight = model.layers[0].up.weight
    try:
        net = raptr.attach(model, blocks=model.layers)
    except RaptrError:
        assert refusal(model, blocks=model.layers)
        return
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    net.prepare(optimizer, inactive="freeze")
    net.activate(on((0, 1)), 0)
    shared = model.layers[0].up.weight.detach().clone()
    MLP.loss(model).backward()
    optimizer.step()
    assert not torch.equal(model.layers[0].up.weight, shared)  # kept through layer 0, skipped through 3


class Source(nn.Module):
    """Takes nothing: no layer."""

    def forward(self) -> Tensor:
        raise AssertionError("is never run")


def test_a_module_that_takes_nothing_is_refused() -> None:
    model = nn.Sequential(nn.ModuleList([nn.Linear(2, 2), Source()]))
    assert "Source takes no argument" in refusal(model, blocks=model[0])


@pytest.mark.parametrize(
    "path",
    [((0, 6),), ((0, 99),), ((0, 1), (0,)), ((0, 1), (0, 1), (2,))],
    ids=["one-too-high", "far-too-high", "two-stacks", "three-stacks"],
)
def test_a_path_that_does_not_fit_is_refused(path: tuple[tuple[int, ...], ...]) -> None:
    model = LLAMA.build()
    net = raptr.attach(model)
    net.activate(on((0, 2, 5)), 0)
    wrong, on_path = raptr.Subnetwork.of(*path), LLAMA.logits(model)
    with left_alone(model):
        with pytest.raises(RaptrError), net.using(wrong):
            pass
        with pytest.raises(RaptrError):
            net.activate(on(*path), 0)
    assert torch.equal(LLAMA.logits(model), on_path)


ASKED = ("output_hidden_states", "output_attentions")
CAPTURED = [pytest.param(family, asked, id=f"{family.name}-{asked[7:]}") for family in HUGGING_FACE for asked in ASKED]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "asked"), CAPTURED)
def test_what_is_indexed_by_depth_is_refused_on_a_path(family: Family, asked: str) -> None:
    """Callers index hidden states by depth: a shortened list would be silently wrong."""
    kernel = {"attn_implementation": "eager"}  # the only one that gives attention weights
    model, same = family.build(**kernel), family.build(**kernel)
    net = raptr.attach(model)
    net.activate(on(*family.path), 0)
    with pytest.raises(RaptrError, match=asked):
        family.run(model, **{asked: True})
    with pytest.raises(RaptrError, match=asked), net.using(raptr.Subnetwork.of(*family.path)):
        family.run(model.eval(), **{asked: True})
    # In evaluation, and where every layer runs, it is what it is without raptr.
    for training in (False, True):
        net.activate(on(*(family.path if not training else family.full)), 0)
        found, expected = (family.run(each.train(training), **{asked: True}) for each in (model, same))
        captured = [key for key in expected if ("hidden_states" in key or "attentions" in key) and expected[key]]
        assert captured
        for key in captured:
            assert len(found[key]) == len(expected[key])
            for mine, theirs in zip(found[key], expected[key], strict=True):
                assert torch.equal(mine, theirs)
    net.activate(on(*family.path), 0)
    assert torch.equal(family.loss(model), family.loss(family.shallow(same, *family.path)))  # and it still works


@pytest.mark.parametrize("asked", ASKED)
def test_asking_in_the_configuration_is_refused_too(asked: str) -> None:
    model = LLAMA.build(attn_implementation="eager")
    setattr(model.config, asked, True)
    net = raptr.attach(model)
    LLAMA.run(model)  # nothing is skipped
    net.activate(on((0, 2)), 0)
    with pytest.raises(RaptrError, match=asked):
        LLAMA.run(model)


def test_a_width_that_cannot_be_chosen_is_a_value_with_its_reason() -> None:
    model = Net(2, "mlp")
    found = find_width(Stack("layers", tuple(model.layers)))
    assert isinstance(found, Unsupported)
    assert found.reason.startswith("layer 0: MLPBlock is not a kind of layer whose heads and neurons are known;")
    (stack,) = find_layers(model, blocks=model.layers).shape.stacks
    assert stack.narrow == found.reason, "the text that messages show"
