"""A factor on a layer's update: x + s (layer(x) - x), in the forward and in the backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import raptr
from raptr import RaptrError
from raptr.plan import Subnetwork
from raptr.plan.layer_part import LayerPart
from reference.families import ALL, ATTENTION, LLAMA, MLP, T5_ENCODER, Family
from reference.handwritten import MLPBlock, Net, loss_of, some_tokens
from reference.parts import scale_by_hand, scaled
from reference.script import Script, on
from reference.shallow import difference

PRE_NORM = [
    family
    for family in ALL
    if family.name
    not in (
        *("bert", "roberta", "deberta-v2", "electra-discriminator", "electra-generator", "distilbert", "bart"),
        *(row.name for row in ALL if row.by_hand and not row.with_inputs),
    )
]
pre_norm = pytest.mark.parametrize("family", PRE_NORM, ids=lambda family: family.name)


def factors(path: Any, first: float = 1.5, step: float = 0.15) -> list[list[float]]:
    """A factor of its own for each kept layer, one of them 1."""
    found = [[first - step * n for n in range(len(layers))] for layers in path]
    found[0][-1] = 1.0
    return found


def losses_of(family: Family, *models: nn.Module) -> list[Tensor]:
    """Loss and gradients of each."""
    losses = []
    for model in models:
        model.zero_grad()
        losses.append(family.loss(model))
        losses[-1].backward()
    return losses


@pre_norm
def test_loss_and_gradients_are_those_of_layers_scaled_by_hand(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    scales = factors(family.path)
    small = scale_by_hand(family.shallow(family.build(), *family.path), list(family.stacks), scales)
    net.activate(Script([scaled(family.path, scales)]), 0)
    torch.testing.assert_close(*losses_of(family, model, small), rtol=1e-9, atol=0)
    assert difference(model, small, family.kept(family.path), rtol=1e-6, atol=1e-9) == []
    # Control: other factors, and none, are seen in the loss and in most gradients.
    for other in (factors(family.path, 1.4), [[1.0] * len(layers) for layers in family.path]):
        net.activate(Script([scaled(family.path, other)]), 0)
        loss, expected = losses_of(family, model, small)
        assert not torch.allclose(loss, expected, rtol=1e-6)
        assert len(difference(model, small, family.kept(family.path), rtol=1e-5)) > len(list(small.parameters())) / 2


@pre_norm
def test_a_factor_of_one_is_bit_identical_and_costs_nothing(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    path = family.path
    net.activate(on(*path), 0)
    (expected,) = losses_of(family, model)
    grads = {name: p.grad for name, p in model.named_parameters()}
    net.activate(Script([scaled(path, [[1.0] * len(layers) for layers in path])]), 0)
    assert net.subnetwork == Subnetwork.of(*path)  # the whole layers themselves
    net.activate(Script([scaled(path, [[0.5, *[1.0] * (len(layers) - 1)] for layers in path])]), 0)
    assert sum(part.scale != 1 for i in range(len(path)) for _, part in net.subnetwork.kept(i)) == len(path)
    net.activate(Script([scaled(path, [[1.0] * len(layers) for layers in path])]), 0)
    (loss,) = losses_of(family, model)
    assert torch.equal(loss, expected)
    for name, p in model.named_parameters():
        assert (p.grad is None) == (grads[name] is None)
        assert p.grad is None or torch.equal(p.grad, grads[name]), name


def test_evaluation_is_whole_and_unscaled_unless_forced() -> None:
    model, plain = LLAMA.build(), LLAMA.build().eval()
    scales = factors(LLAMA.path)
    net = raptr.attach(model)
    net.activate(Script([scaled(LLAMA.path, scales)]), 0)
    assert torch.equal(LLAMA.logits(model.eval()), LLAMA.logits(plain))
    with net.using(scaled(LLAMA.path, scales)):
        small = scale_by_hand(LLAMA.shallow(plain, *LLAMA.path), list(LLAMA.stacks), scales)
        torch.testing.assert_close(LLAMA.logits(model), LLAMA.logits(small), rtol=1e-9, atol=1e-12)
        with net.using(Subnetwork.of(*LLAMA.path)):
            assert torch.equal(LLAMA.logits(model), LLAMA.logits(LLAMA.shallow(plain, *LLAMA.path)))
        torch.testing.assert_close(LLAMA.logits(model), LLAMA.logits(small), rtol=1e-9, atol=1e-12)
    assert torch.equal(LLAMA.logits(model), LLAMA.logits(plain))


def test_using_gives_back_the_factors_of_training() -> None:
    model = MLP.build()
    net = raptr.attach(model, blocks=model.layers, inputs=MLP.batch())
    half = scaled(((0, 2, 5),), [[0.5, 0.5, 0.5]])
    net.activate(Script([half]), 0)
    expected = MLP.loss(model)
    with net.using(Subnetwork.of((0, 1))):
        assert MLP.loss(model) != expected
    assert torch.equal(MLP.loss(model), expected)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_factors_under_activation_checkpointing(checkpointed: bool) -> None:
    scales = [[0.5, 2.0, 1.0, 0.25]]
    path = ((0, 2, 3, 5),)
    model = ATTENTION.build(checkpointed=checkpointed)
    small = scale_by_hand(ATTENTION.shallow(ATTENTION.build(), *path), ["layers"], scales)
    net = raptr.attach(model, blocks=model.layers, inputs=ATTENTION.batch())
    net.activate(Script([scaled(path, scales)]), 0)
    torch.testing.assert_close(*losses_of(ATTENTION, model, small), rtol=1e-12, atol=0)
    assert difference(model, small, {"layers": path[0]}, rtol=1e-9, atol=1e-12) == []


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.parametrize("family", [LLAMA, T5_ENCODER], ids=lambda family: family.name)
def test_factors_under_the_models_own_checkpointing(family: Family) -> None:
    scales = factors(family.path)
    model = family.build()
    small = scale_by_hand(family.shallow(family.build(), *family.path), list(family.stacks), scales)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    net = raptr.attach(model)
    net.activate(Script([scaled(family.path, scales)]), 0)
    torch.testing.assert_close(*losses_of(family, model, small), rtol=1e-9, atol=0)
    assert difference(model, small, family.kept(family.path), rtol=1e-6, atol=1e-9) == []


class Overwriting(MLPBlock):
    """Adds its update into its input."""

    def forward(self, x: Tensor) -> Tensor:
        update = super().forward(x) - x
        return x.add_(update)


def test_a_layer_that_writes_over_its_input_is_refused() -> None:
    model = Net(3, "mlp").train()
    model.layers = nn.ModuleList(Overwriting(16, 24) for _ in range(3))
    net = raptr.attach(model, blocks=model.layers, inputs={"tokens": some_tokens()})
    half = Subnetwork(((0, 1, 2),), ((LayerPart(), LayerPart(scale=0.5), LayerPart()),))
    net.activate(Script([half]), 0)
    with pytest.raises(RaptrError, match="writes over its input"):
        loss_of(model, some_tokens())


@pytest.mark.parametrize("ask", ["output_hidden_states", "output_attentions"])
def test_what_layers_return_cannot_be_asked_for_while_they_are_scaled(ask: str) -> None:
    model = LLAMA.build(attn_implementation="eager")
    net = raptr.attach(model)
    net.activate(Script([scaled(LLAMA.full, [[0.5] + [1.0] * 5])]), 0)
    with pytest.raises(RaptrError, match=ask):
        LLAMA.run(model, **{ask: True})
    LLAMA.run(model)
