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
from reference.families import ALL, BERT, GPT2, HUGGING_FACE, LLAMA, MLP, Family
from reference.script import Script
from reference.snapshot import Snapshot

PATH = Script([raptr.Subnetwork.of((0, 2, 5))])


def on_a_path(family: Family) -> tuple[nn.Module, Any]:
    """An attached model in training, on a path."""
    model = family.build()
    net = raptr.attach(model, blocks=family.blocks(model))
    net.activate(PATH, 0)
    family.loss(model).backward()
    model.zero_grad()
    return model, net


def assert_full_and_unattached(family: Family, twin: nn.Module) -> None:
    """A copy runs every layer in training, has the original classes and trains every layer."""
    plain = family.build()
    found, expected = Snapshot.of(twin), Snapshot.of(plain)
    assert found.classes == expected.classes
    assert {n: set(e) for n, e in found.entries.items()} == {n: set(e) for n, e in expected.entries.items()}
    assert twin.training
    losses = family.loss(twin), family.loss(plain)
    assert torch.equal(*losses)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    losses[0].backward()
    optimizer.step()
    for layer in family.layers(twin):
        assert all(p.grad is not None for p in layer.parameters())
    before = dict(plain.named_parameters())
    for name, parameter in twin.named_parameters():
        if parameter.ndim > 1:  # a key's bias has no gradient in exact arithmetic
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_a_deepcopy_is_full_and_the_original_stays_on_its_path(family: Family) -> None:
    model, net = on_a_path(family)
    small = family.shallow(family.build(), (0, 2, 5))
    twin = copy.deepcopy(model)
    assert_full_and_unattached(family, twin)
    assert torch.equal(family.loss(model), family.loss(small))
    again = raptr.attach(twin, blocks=family.blocks(twin))  # a copy can be attached, by itself
    again.activate(Script([raptr.Subnetwork.of((1,))]), 0)
    assert torch.equal(family.loss(model), family.loss(small))
    net.detach()


def test_a_deepcopy_of_one_layer_is_unattached() -> None:
    model, _ = on_a_path(MLP)
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


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_an_averaged_model_is_full(family: Family) -> None:
    model, _ = on_a_path(family)
    average = torch.optim.swa_utils.AveragedModel(model)
    assert torch.equal(family.loss(average.module), family.loss(family.build()))


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_torch_save_of_the_whole_model(family: Family) -> None:
    model, _ = on_a_path(family)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"raptr" not in buffer.getvalue()  # it loads where raptr is not installed
    buffer.seek(0)
    assert_full_and_unattached(family, torch.load(buffer, weights_only=False))
    assert type(family.layers(model)[0]) is not type(family.layers(family.build())[0])  # still attached


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_pickle(family: Family, protocol: int) -> None:
    model, _ = on_a_path(family)
    data = pickle.dumps(model, protocol=protocol)
    assert b"raptr" not in data
    assert_full_and_unattached(family, pickle.loads(data))


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
def test_save_pretrained_writes_an_ordinary_checkpoint(family: Family, tmp_path: Path) -> None:
    model, plain = on_a_path(family)[0], family.build()
    model.save_pretrained(tmp_path / "attached")
    plain.save_pretrained(tmp_path / "plain")
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {path.name for path in (tmp_path / "attached").iterdir()} == names
    for name in names:
        assert (tmp_path / "attached" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    config = json.loads((tmp_path / "attached" / "config.json").read_text())
    assert config["architectures"] == [type(plain).__name__]

    loaded = type(plain).from_pretrained(tmp_path / "attached", dtype=torch.float64)
    assert Snapshot.of(loaded).classes == Snapshot.of(plain).classes
    assert torch.equal(family.logits(loaded.eval()), family.logits(plain.eval()))
    assert torch.equal(family.logits(loaded), family.logits(model.eval()))
    assert not torch.equal(family.logits(loaded), family.logits(model.train()))  # control


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
def test_a_state_dict_can_be_loaded_into_and_from_an_attached_model(family: Family) -> None:
    model, _ = on_a_path(family)
    other = family.build(seed=9)
    assert model.load_state_dict(other.state_dict()).missing_keys == []
    assert torch.equal(family.logits(model.eval()), family.logits(other.eval()))
    fresh = family.build(seed=4)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(family.logits(fresh.eval()), family.logits(other))


@pytest.mark.parametrize(
    ("family", "tied"), [(GPT2, True), (BERT, True), (LLAMA, False)], ids=["gpt2", "bert", "llama"]
)
def test_tied_weights_stay_tied(family: Family, tied: bool, tmp_path: Path) -> None:
    model, net = on_a_path(family)

    def is_tied(each: nn.Module) -> bool:
        return each.get_input_embeddings().weight is each.get_output_embeddings().weight

    assert is_tied(model) is tied
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer, inactive="freeze")
    for step in range(2):
        net.activate(PATH, step)
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
