"""Copies and files: of an attached model they hold the full, unattached model."""

from __future__ import annotations

import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import raptr
from reference.families import BERT, GPT2, LLAMA, MLP, Family, every_family, hugging_face
from reference.script import on
from reference.snapshot import Snapshot


@pytest.fixture
def on_a_path(family: Family, attached: tuple[nn.Module, Any]) -> nn.Module:
    """The family's attached model in training, on a path, after a step of it."""
    model, net = attached
    net.activate(on(*family.path), 0)
    family.loss(model).backward()
    model.zero_grad()
    return model


def assert_full_and_unattached(family: Family, twin: nn.Module) -> None:
    """A copy runs every layer in training, has the original classes and trains every layer."""
    plain = family.build()
    assert twin.training
    losses = family.loss(twin), family.loss(plain)  # before the look at both: transformers adds hooks at a first run
    assert torch.equal(*losses)
    found, expected = Snapshot.of(twin), Snapshot.of(plain)
    assert found.classes == expected.classes
    assert {n: set(e) for n, e in found.entries.items()} == {n: set(e) for n, e in expected.entries.items()}
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    losses[0].backward()
    optimizer.step()
    for layer in family.layers(twin):
        assert all(p.grad is not None for p in layer.parameters())
    before = dict(plain.named_parameters())
    for name, parameter in twin.named_parameters():
        if parameter.ndim > 1:  # a key's bias has no gradient in exact arithmetic
            assert not torch.equal(parameter, before[name]), name


@every_family
def test_a_deepcopy_is_full_and_the_original_stays_on_its_path(family: Family, on_a_path: nn.Module) -> None:
    expected = family.loss(family.shallow(family.build(), *family.path))
    assert_full_and_unattached(family, copy.deepcopy(on_a_path))
    assert torch.equal(family.loss(on_a_path), expected)
    assert not torch.allclose(family.loss(family.build()), expected)  # control: it is not the full model's


@pytest.mark.parametrize("family", [LLAMA, MLP], ids=lambda family: family.name)
def test_a_copy_can_be_attached_by_itself(family: Family, on_a_path: nn.Module) -> None:
    on_path, twin = family.loss(on_a_path), copy.deepcopy(on_a_path)
    raptr.attach(twin, **family.arguments(twin)).activate(on((1,)), 0)
    assert torch.equal(family.loss(twin), family.loss(family.shallow(family.build(), (1,))))
    assert torch.equal(family.loss(on_a_path), on_path)


def test_a_deepcopy_of_one_layer_is_unattached() -> None:
    model = MLP.build()
    raptr.attach(model, blocks=model.layers).activate(on((0, 2)), 0)
    twin = copy.deepcopy(model.layers[1])
    assert type(twin) is type(MLP.build().layers[1])
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    assert torch.equal(twin(x), MLP.build().layers[1](x))


def test_a_deepcopy_inside_using_is_full() -> None:
    model = MLP.build().eval()
    full = MLP.logits(model)
    net = raptr.attach(model, blocks=model.layers)
    with net.using(raptr.Subnetwork.of((0, 1))):
        twin = copy.deepcopy(model)
        assert torch.equal(MLP.logits(twin), full)
        assert not torch.equal(MLP.logits(model), full)


@every_family
def test_an_averaged_model_is_full(family: Family, on_a_path: nn.Module) -> None:
    average = torch.optim.swa_utils.AveragedModel(on_a_path)
    assert torch.equal(family.loss(average.module), family.loss(family.build()))


@every_family
def test_torch_save_of_the_whole_model(family: Family, on_a_path: nn.Module) -> None:
    plain = family.build()
    family.loss(plain)
    try:
        pickle.dumps(plain)
    except AttributeError as error:
        pytest.skip(f"transformers: a {family.model} that has run cannot be pickled ({error})")
    buffer = io.BytesIO()
    torch.save(on_a_path, buffer)
    assert b"raptr" not in buffer.getvalue()  # it loads where raptr is not installed
    buffer.seek(0)
    assert_full_and_unattached(family, torch.load(buffer, weights_only=False))
    assert type(family.layers(on_a_path)[0]) is not type(family.layers(family.build())[0])  # still attached


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("family", [LLAMA, MLP], ids=lambda family: family.name)
def test_pickle(family: Family, protocol: int, on_a_path: nn.Module) -> None:
    data = pickle.dumps(on_a_path, protocol=protocol)
    assert b"raptr" not in data
    assert_full_and_unattached(family, pickle.loads(data))


@hugging_face
def test_save_pretrained_writes_an_ordinary_checkpoint(family: Family, on_a_path: nn.Module, tmp_path: Path) -> None:
    model, plain = on_a_path, family.build()
    family.loss(plain)  # a first run can add to the configuration (ViT's problem_type)
    model.save_pretrained(tmp_path / "attached")
    plain.save_pretrained(tmp_path / "plain")
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {path.name for path in (tmp_path / "attached").iterdir()} == names
    for name in names:
        assert (tmp_path / "attached" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    config = json.loads((tmp_path / "attached" / "config.json").read_text())
    assert config["architectures"] == [family.model]

    kernels = {"experts_implementation": "eager"} if "num_experts_per_tok" in config else {}
    loaded = type(plain).from_pretrained(tmp_path / "attached", dtype=torch.float64, **kernels)
    assert Snapshot.of(loaded).classes == Snapshot.of(plain).classes
    assert all(tensor.equal(loaded.state_dict()[name]) for name, tensor in plain.state_dict().items())
    # Not bit for bit: loaded tensors lie elsewhere in memory, where products may be summed in another order.
    logits = family.logits(loaded.eval())
    torch.testing.assert_close(logits, family.logits(plain.eval()), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(logits, family.logits(model.eval()), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(logits, family.logits(model.train()))  # control


@every_family
def test_a_saved_state_dict_is_the_plain_models(family: Family, on_a_path: nn.Module, tmp_path: Path) -> None:
    torch.save(on_a_path.state_dict(), tmp_path / "weights.pt")
    saved = torch.load(tmp_path / "weights.pt", weights_only=True)
    fresh, plain = family.build(seed=4), family.build()
    assert not torch.allclose(family.loss(fresh), family.loss(plain))  # control
    assert list(saved) == list(plain.state_dict())
    fresh.load_state_dict(saved)
    assert torch.equal(family.loss(fresh), family.loss(plain))


@pytest.mark.parametrize("family", [LLAMA, BERT, MLP], ids=lambda family: family.name)
def test_a_state_dict_can_be_loaded_into_an_attached_model(family: Family) -> None:
    model, other = family.build(), family.build(seed=9)
    net = raptr.attach(model, **family.arguments(model))
    net.activate(on(*family.path), 0)
    assert model.load_state_dict(other.state_dict()).missing_keys == []
    assert torch.equal(family.loss(model), family.loss(family.shallow(other, *family.path)))
    assert torch.equal(family.logits(model.eval()), family.logits(other.eval()))


@pytest.mark.parametrize(
    ("family", "tied"), [(GPT2, True), (BERT, True), (LLAMA, False)], ids=["gpt2", "bert", "llama"]
)
def test_tied_weights_stay_tied(family: Family, tied: bool, tmp_path: Path) -> None:
    model = family.build()
    net = raptr.attach(model)

    def is_tied(each: nn.Module) -> bool:
        return each.get_input_embeddings().weight is each.get_output_embeddings().weight

    assert is_tied(model) is tied
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer, inactive="freeze")
    for step in range(2):
        net.activate(on(*family.path), step)
        family.loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert is_tied(model) is tied
    assert is_tied(copy.deepcopy(model)) is tied
    assert is_tied(pickle.loads(pickle.dumps(model))) is tied
    model.save_pretrained(tmp_path)
    assert is_tied(type(model).from_pretrained(tmp_path)) is tied
    net.detach()
    assert is_tied(model) is tied
