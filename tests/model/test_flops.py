"""FLOPs by layer, against a count by hand and against what a step really multiplies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import raptr
from raptr.model import count_flops
from reference import flops as by_hand
from reference.families import BERT, GPT2, HUGGING_FACE, LLAMA, Family, bert, llama
from reference.script import Script
from reference.snapshot import Snapshot, untouched

LENGTH = 48
LAYERS = 4


def models() -> dict[str, tuple[Any, by_hand.HandCount, by_hand.HandCount]]:
    """Models in which attention is a large part, with the hand count of each with and without it."""
    grouped = llama(layers=LAYERS)
    single = llama(layers=LAYERS, num_key_value_heads=4, hidden_size=32, intermediate_size=40, head_dim=16)
    encoder = bert(layers=LAYERS)
    counts = {
        "llama": (grouped, by_hand.llama),
        "llama-wide-heads": (single, by_hand.llama),
        "bert": (encoder, by_hand.bert),
    }
    return {
        name: (model, count(model.config, LENGTH), count(model.config, LENGTH, attention=0.0))
        for name, (model, count) in counts.items()
    }


@pytest.mark.parametrize("name", ["llama", "llama-wide-heads", "bert"])
def test_the_count_agrees_with_a_count_by_hand(name: str) -> None:
    model, expected, without_attention = models()[name]
    found = count_flops(model, LENGTH)
    assert len(found.layers) == 1
    assert found.layers[0] == pytest.approx([expected.layer] * LAYERS, rel=0.01)
    assert found.other == pytest.approx(expected.other, rel=0.01)
    assert found.total == pytest.approx(expected.total(LAYERS), rel=0.01)
    assert found.total == pytest.approx(sum(found.layers[0]) + found.other, rel=1e-12)
    # Control: had attention been left out, this test would have failed.
    assert without_attention.layer != pytest.approx(expected.layer, rel=0.01)
    assert found.layers[0][0] != pytest.approx(without_attention.layer, rel=0.01)
    assert found.total != pytest.approx(without_attention.total(LAYERS), rel=0.01)


def test_causal_attention_is_not_halved() -> None:
    model, _, without = models()["llama"]
    halved = by_hand.llama(model.config, LENGTH, attention=0.5)
    found = count_flops(model, LENGTH)
    assert halved.layer > without.layer
    assert found.layers[0][0] != pytest.approx(halved.layer, rel=0.01)


def test_counting_on_real_tensors_misses_attention() -> None:
    """Why it is counted on a meta twin: what the obvious way gives is wrong (negative control)."""
    model, expected, without = models()["llama"]
    tokens = torch.zeros(1, LENGTH, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    naive = counter.get_total_flops()
    assert naive != pytest.approx(expected.total(LAYERS), rel=0.01)
    assert naive == pytest.approx(without.total(LAYERS), rel=0.01)


@pytest.mark.parametrize("length", [8, 16, 64])
def test_attention_grows_with_the_square_of_the_length(length: int) -> None:
    model = llama(layers=LAYERS)
    expected = by_hand.llama(model.config, length)
    assert count_flops(model, length).total == pytest.approx(expected.total(LAYERS), rel=0.01)


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
def test_a_step_is_the_smaller_models_total(family: Family) -> None:
    model = family.build()
    counted = count_flops(model, 24)
    for kept in [(0, 2, 5), (1, 4), (3,), tuple(range(6))]:
        small = count_flops(family.shallow(model, kept), 24)
        step = counted.step(raptr.Subnetwork.of(kept))
        assert step == pytest.approx(small.total, rel=1e-9)
        assert step == pytest.approx(sum(counted.layers[0][i] for i in kept) + counted.other, rel=1e-12)
    assert counted.step(raptr.Subnetwork.of((0, 2))) < counted.step(raptr.Subnetwork.of((0, 2, 5))) < counted.total


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_counting_leaves_the_model_alone(family: Family, training: bool) -> None:
    model = family.build().train(training)
    family.loss(model).backward()
    grads = [p.grad.clone() for p in model.parameters()]
    before, config, state = Snapshot.of(model), copy.deepcopy(model.config.to_dict()), torch.get_rng_state()
    count_flops(model, 24)
    assert untouched(model, before)
    assert model.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert all(p.device.type == "cpu" for p in model.parameters())


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_the_count_does_not_depend_on_the_state_of_the_model(family: Family) -> None:
    plain = count_flops(family.build(), 24)
    model = family.build()
    net = raptr.attach(model)
    net.activate(Script([raptr.Subnetwork.of((0, 2))]), 0)
    on_a_path = count_flops(model, 24)
    assert on_a_path.layers == plain.layers
    assert on_a_path.total == plain.total
    assert count_flops(family.build(dtype=torch.float32).eval(), 24).total == plain.total
    checkpointed = family.build()
    checkpointed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert count_flops(checkpointed, 24).total == plain.total  # the convention: recomputation is not counted
    assert torch.isfinite(family.loss(model))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_count_does_not_depend_on_the_attention_kernel(implementation: str) -> None:
    model = llama(layers=LAYERS, attn_implementation=implementation)
    expected = by_hand.llama(model.config, LENGTH)
    assert count_flops(model, LENGTH).total == pytest.approx(expected.total(LAYERS), rel=0.01)


def test_counting_runs_no_hook_of_the_user() -> None:
    model = LLAMA.build()
    fired: list[int] = []
    model.model.layers[1].register_forward_hook(lambda *_: fired.append(1))
    model.register_forward_pre_hook(lambda *_: fired.append(0))
    count_flops(model, 24)
    assert fired == []


def test_layers_of_a_gpt2_cost_the_same() -> None:
    found = count_flops(GPT2.build(), 24)
    assert len(set(found.layers[0])) == 1
    assert found.other > 0


@pytest.mark.parametrize("length", [0, -1, 65, 10_000])
def test_a_length_that_the_model_cannot_take_is_refused(length: int) -> None:
    model = BERT.build()  # 64 positions
    before = Snapshot.of(model)
    with pytest.raises(raptr.RaptrError):
        count_flops(model, length)
    assert untouched(model, before)


def test_a_subnetwork_that_does_not_fit_is_refused() -> None:
    counted = count_flops(LLAMA.build(), 24)
    with pytest.raises(raptr.RaptrError):
        counted.step(raptr.Subnetwork.of((0, 6)))
    with pytest.raises(raptr.RaptrError):
        counted.step(raptr.Subnetwork.of((0, 1), (0,)))
