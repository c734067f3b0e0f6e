"""The vocabulary head on masked positions: the loss and gradients of all logits, for less, on an ordinary model."""

import copy
import pickle
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

import raptr
from raptr.errors import RaptrError
from raptr.model import attach_head, count_flops, find_head
from raptr.model.class_swap import original_class
from reference.masked_head import LENGTH, MODELS, PREDICTIONS, VOCABULARY, batch, build, gradients, loss_of_all


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """In the model's own precision: ModernBERT's own loss is in float32."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


@pytest.mark.parametrize("architecture", MODELS)
def test_loss_and_gradients_are_those_of_all_logits(architecture: str) -> None:
    model = build(architecture)
    tokens, labels, placed = batch()
    full = loss_of_all(model, tokens, labels)
    full.backward()
    expected = gradients(model)

    head = attach_head(model)
    assert head.name == MODELS[architecture][2]
    output = model(input_ids=tokens, masked_positions=placed["masked_positions"])
    assert output.logits.shape == (4, PREDICTIONS, VOCABULARY)
    loss = cross_entropy(output.logits, placed["labels"])
    loss.backward()
    found = gradients(model)
    assert loss.item() == pytest.approx(full.item(), rel=1e-12)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-14, msg=name)

    wrong = {**placed, "masked_positions": (placed["masked_positions"] + 1) % LENGTH}  # control
    other = cross_entropy(model(input_ids=tokens, masked_positions=wrong["masked_positions"]).logits, wrong["labels"])
    assert abs(other.item() - full.item()) > 1e-3


@pytest.mark.parametrize("architecture", MODELS)
def test_the_models_own_loss_is_the_same(architecture: str) -> None:
    model = build(architecture)
    tokens, labels, placed = batch()
    full = model(input_ids=tokens, labels=labels).loss
    attach_head(model)
    assert model(**placed).loss.item() == pytest.approx(full.item(), rel=1e-6)
    assert model.eval()(**placed).loss.item() == pytest.approx(full.item(), rel=1e-6), "in evaluation too"
    fewer = {**placed, "labels": placed["labels"].roll(1, 0)}  # control
    assert abs(model(**fewer).loss.item() - full.item()) > 1e-3


def test_what_fills_up_a_sequence_has_no_gradient() -> None:
    model = build("bert")
    _, _, placed = batch(counts=(1, 1, 1, 1))
    attach_head(model)
    model(**placed).loss.backward()
    one = gradients(model)
    elsewhere = placed["masked_positions"].clone()
    elsewhere[:, 1:] = 7
    model(**{**placed, "masked_positions": elsewhere}).loss.backward()
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, one[name]), name
    elsewhere[:, 0] = 7  # control: the position that is labelled
    model(**{**placed, "masked_positions": elsewhere}).loss.backward()
    assert any(not torch.equal(gradient, one[name]) for name, gradient in gradients(model).items())


def test_without_positions_the_model_is_as_it_was() -> None:
    model = build("bert")
    tokens, labels, _ = batch()
    before = model(input_ids=tokens, labels=labels)
    attach_head(model)
    after = model(input_ids=tokens, labels=labels)
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.loss, before.loss)


def test_names_classes_and_copies_are_ordinary(tmp_path: Any) -> None:
    model = build("bert")
    names, kind = list(model.state_dict()), type(model)
    head = attach_head(model)
    tokens, _, placed = batch()
    assert list(model.state_dict()) == names
    assert type(model).__name__ == "BertForMaskedLM"
    assert isinstance(model, kind)
    assert "cls" in repr(head)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is kind
        assert type(other.cls).__module__ == "transformers.models.bert.modeling_bert"
        assert original_class(other.cls) is type(other.cls)
        assert torch.equal(other(tokens).logits, model(tokens).logits)
    torch.save(model, tmp_path / "whole.pt")
    assert type(torch.load(tmp_path / "whole.pt", weights_only=False)) is kind
    model.save_pretrained(tmp_path / "saved")
    saved = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")
    assert saved.config.architectures == ["BertForMaskedLM"]
    torch.testing.assert_close(saved.double()(tokens).logits, model.eval()(tokens).logits, rtol=1e-5, atol=1e-6)

    head.detach()
    assert type(model) is kind
    assert model(tokens).logits.shape == (4, LENGTH, VOCABULARY)
    with pytest.raises(RaptrError, match="cannot be detached"):
        head.detach()
    again = attach_head(model)
    assert model(**placed).logits.shape[1] == PREDICTIONS
    again.detach()


def test_layers_are_skipped_beside_it() -> None:
    """Both surgeries on one model, in either order, and taken off in either."""
    tokens, labels, placed = batch()
    for head_first in (True, False):
        model = build("bert")
        if head_first:
            head, net = attach_head(model), raptr.attach(model)
        else:
            net = raptr.attach(model)
            head = attach_head(model)
        with net.using(raptr.Subnetwork.of((1,))):
            part = model(**placed).loss.item()
            assert part == pytest.approx(model(input_ids=tokens, labels=labels).loss.item(), rel=1e-12)
        assert part != model(**placed).loss.item()
        for handle in (head, net) if head_first else (net, head):
            handle.detach()
        assert type(model) is BertForMaskedLM
        assert not any("_raptr" in key for module in model.modules() for key in vars(module))


def test_a_model_trains_as_with_all_logits() -> None:
    weights = []
    for positions in (False, True):
        model = build("roberta-prelayernorm")
        if positions:
            attach_head(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(5):
            tokens, labels, placed = batch(step)
            (model(**placed) if positions else model(input_ids=tokens, labels=labels)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_a_compiled_head_has_one_shape() -> None:
    """The number of positions is fixed, so one graph serves every batch."""
    model = build("bert")
    attach_head(model)
    shapes = []
    model.cls.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    for step, counts in enumerate([(3, 3, 3, 3), (1, 2, 3, 1), (1, 1, 1, 1)]):
        model(**batch(step, counts)[2])
    assert shapes == [(4, PREDICTIONS, 16)] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["DistilBert", "Electra", "Albert", "Deberta", "DebertaV2", "MPNet", "EuroBert", "Ernie", "ConvBert"]
)
def test_heads_of_other_models_are_found(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(num_hidden_layers=2)
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForMaskedLM")(config)
    assert model.get_submodule(find_head(model))
    assert type(model).__name__ in str(type(model))
    assert original_class(model) is type(model), "looking changes nothing"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: transformers.BertModel(BertConfig(num_hidden_layers=1, vocab_size=40)),
            "no vocabulary head of its own",
        ),
        (lambda: nn.Linear(2, 2), "no vocabulary head of its own"),
        (lambda: build("modernbert", sparse_prediction=True), "sparse_prediction=False"),
    ],
)
def test_what_cannot_be_attached_is_refused_and_left_alone(make: Any, message: str) -> None:
    model = make()
    kind = type(model)
    with pytest.raises(RaptrError, match=message):
        attach_head(model)
    assert type(model) is kind


def test_a_head_that_does_not_work_by_position_is_refused() -> None:
    class Flat(BertForMaskedLM):
        def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
            states = self.bert(input_ids, attention_mask=attention_mask)[0]
            self.cls(states)
            return transformers.modeling_outputs.MaskedLMOutput(logits=self.cls(states))

    with pytest.raises(RaptrError, match=r"cls of Flat was given 3 positions and logits of the shape \(1, 8, 40\)"):
        attach_head(Flat(build("bert").config))


def test_wrong_calls_are_refused() -> None:
    model = build("bert")
    attach_head(model)
    tokens, _, placed = batch()
    with pytest.raises(RaptrError, match="attached already"):
        attach_head(model)
    for positions in (placed["masked_positions"][0], placed["masked_positions"][:2], torch.zeros(4, 3)):
        with pytest.raises(RaptrError, match=r"expected whole numbers of shape \(4, K\)"):
            model(input_ids=tokens, masked_positions=positions)
    assert model(input_ids=tokens).logits.shape == (4, LENGTH, VOCABULARY), "nothing is left over from a refused call"


@pytest.mark.slow
def test_flops_are_those_of_the_positions() -> None:
    """BERT-Base by hand: transform and vocabulary, forward and twice that backward, at 77 of 512 positions."""
    with torch.device("meta"):
        model = BertForMaskedLM(BertConfig())
    full, masked = count_flops(model, 512), count_flops(model, 512, predictions=77)
    assert full.other == 3 * 2 * 512 * (768 * 768 + 768 * 30522)
    assert masked.other == 3 * 2 * 77 * (768 * 768 + 768 * 30522)
    assert 1 - masked.other / full.other == pytest.approx(0.85, abs=0.001), "about 85 % of the head's FLOPs are gone"
    assert masked.layers == full.layers
    assert count_flops(model, 512, predictions=512) == full  # control
    with pytest.raises(RaptrError, match="predictions is 600, but the sequence has 512"):
        count_flops(model, 512, predictions=600)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", MODELS)
def test_flops_of_every_head_fall_alike(architecture: str) -> None:
    model = build(architecture)
    full, masked = count_flops(model, LENGTH), count_flops(model, LENGTH, predictions=3)
    assert masked.other == full.other / 4
    assert masked.layers == full.layers
    attach_head(model)
    assert count_flops(model, LENGTH, predictions=3) == masked, "of an attached model too"
