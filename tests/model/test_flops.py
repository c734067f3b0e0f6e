"""FLOPs by layer, against a count by hand and against what a step really multiplies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import raptr
from raptr.model import count_flops
from reference import flops as by_hand
from reference.families import (
    BERT,
    DECODERS,
    ENCODERS,
    GPT2,
    LLAMA,
    SOME,
    TWO_STACKS,
    Family,
    every_family,
    hugging_face,
    some_families,
)
from reference.script import on
from reference.snapshot import left_alone

LENGTH, TARGET_LENGTH = 48, 32
ROWS = {family.name: family for family in (*ENCODERS, *DECODERS, *TWO_STACKS)}


@dataclass(frozen=True)
class Counted:
    """A family, the entries that make attention a large part of it, and the count of it by hand."""

    family: Family
    by_hand: by_hand.Count
    entries: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Any:
        return self.family.build(**self.entries)

    def expected(self, model: Any, attention: float = 1.0) -> by_hand.HandCount:
        return self.by_hand(model.config, LENGTH, attention, TARGET_LENGTH)

    def found(self, model: Any) -> raptr.LayerCosts:
        return count_flops(model, LENGTH, target_length=TARGET_LENGTH if len(self.family.stacks) > 1 else None)


WIDE_HEADS = {"num_key_value_heads": 4, "hidden_size": 32, "intermediate_size": 40, "head_dim": 16}
COUNTED = {
    "llama": Counted(LLAMA, by_hand.llama),
    "llama-wide-heads": Counted(LLAMA, by_hand.llama, WIDE_HEADS),
    "gpt2": Counted(GPT2, by_hand.gpt2),
    "bert": Counted(BERT, by_hand.bert),
    "vit": Counted(ROWS["vit"], by_hand.vit, {"image_size": 32}),
    "mixtral": Counted(ROWS["mixtral"], by_hand.mixtral),
    "mixtral-of-many": Counted(ROWS["mixtral"], by_hand.mixtral, {"num_local_experts": 16, "num_experts_per_tok": 3}),
    "t5": Counted(ROWS["t5"], by_hand.t5),
    "t5-gated": Counted(ROWS["t5-gated"], by_hand.t5),
    "bart": Counted(ROWS["bart"], by_hand.bart),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_the_count_agrees_with_a_count_by_hand(name: str) -> None:
    row = COUNTED[name]
    model, numbers = row.model(), tuple(row.family.stacks.values())
    expected, without_attention, found = row.expected(model), row.expected(model, attention=0.0), row.found(model)
    assert len(found.layers) == len(numbers) == len(expected.layers)
    for layers, number, layer in zip(found.layers, numbers, expected.layers, strict=True):
        assert layers == pytest.approx([layer] * number, rel=0.01)
    assert found.other == pytest.approx(expected.other, rel=0.01)
    assert found.total == pytest.approx(expected.total(*numbers), rel=0.01)
    assert found.total == pytest.approx(sum(map(sum, found.layers)) + found.other, rel=1e-12)
    # Control: had attention been left out, this test would have failed.
    for layers, layer in zip(found.layers, without_attention.layers, strict=True):
        assert layers[0] != pytest.approx(layer, rel=0.01)
    assert found.total != pytest.approx(without_attention.total(*numbers), rel=0.01)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_causal_attention_is_not_halved(name: str) -> None:
    row = COUNTED[name]
    model = row.model()
    assert row.found(model).layers[0][0] != pytest.approx(row.expected(model, attention=0.5).layers[0], rel=0.01)


def test_counting_on_real_tensors_misses_attention() -> None:
    """Why it is counted on a meta twin: what the obvious way gives is wrong (negative control)."""
    row = COUNTED["llama"]
    model = row.model()
    expected, without = row.expected(model), row.expected(model, attention=0.0)
    tokens = torch.zeros(1, LENGTH, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    naive = counter.get_total_flops()
    assert naive != pytest.approx(expected.total(6), rel=0.01)
    assert naive == pytest.approx(without.total(6), rel=0.01)


@pytest.mark.parametrize("length", [8, 16, 64])
def test_attention_grows_with_the_square_of_the_length(length: int) -> None:
    model = LLAMA.build()
    expected = by_hand.llama(model.config, length)
    assert count_flops(model, length).total == pytest.approx(expected.total(6), rel=0.01)


def cost_of(family: Family, model: Any) -> raptr.LayerCosts:
    """Counted as a user of this family would."""
    given = family.arguments(model)
    if family.by_hand:
        given["inputs"] = {name: value[:1] for name, value in family.batch().items()}
    return count_flops(model, 24, **given)


@pytest.mark.slow
@every_family
def test_a_step_is_the_smaller_models_total(family: Family) -> None:
    """On every path of three families, and on one of each other: the sum does not know what a layer is."""
    model = family.build()
    counted = cost_of(family, model)
    assert tuple(map(len, counted.layers)) == tuple(family.stacks.values())
    for path in family.paths if family in SOME else [family.path]:
        step = counted.step(raptr.Subnetwork.of(*path))
        # Older transformers make the rotary table of a kind of attention whether or not a path uses it.
        assert step == pytest.approx(cost_of(family, family.shallow(model, *path)).total, rel=1e-3)
        kept = [counted.layers[stack][i] for stack, layers in enumerate(path) for i in layers]
        assert step == pytest.approx(sum(kept) + counted.other, rel=1e-12)
    assert counted.step(raptr.Subnetwork.of(*family.path)) < counted.total
    assert counted.step(raptr.Subnetwork.of(*family.full)) == pytest.approx(counted.total, rel=1e-12)


@hugging_face
def test_counting_leaves_the_model_alone(family: Family) -> None:
    check_left_alone(family, family.build().train())


@some_families
def test_counting_leaves_a_model_in_evaluation_alone(family: Family) -> None:
    check_left_alone(family, family.build().eval())


def check_left_alone(family: Family, model: Any) -> None:
    """Counting a model changes nothing of it."""
    family.loss(model).backward()
    with left_alone(model):
        cost_of(family, model)
    assert all(p.device.type == "cpu" for p in model.parameters())


@hugging_face
def test_the_count_does_not_depend_on_the_path(family: Family) -> None:
    plain = cost_of(family, family.build())
    model = family.build()
    raptr.attach(model).activate(on(*family.path), 0)
    on_a_path = cost_of(family, model)
    assert on_a_path.layers == plain.layers
    assert on_a_path.total == plain.total
    assert torch.isfinite(family.loss(model))


@pytest.mark.slow
@some_families
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_the_count_does_not_depend_on_the_state_of_the_model(family: Family) -> None:
    plain = cost_of(family, family.build())
    assert cost_of(family, family.build(dtype=torch.float32).eval()).total == plain.total
    checkpointed = family.build()
    checkpointed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert cost_of(family, checkpointed).total == plain.total, "by convention recomputation is not counted"


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_count_does_not_depend_on_the_attention_kernel(implementation: str) -> None:
    model = LLAMA.build(attn_implementation=implementation)
    expected = by_hand.llama(model.config, LENGTH)
    assert count_flops(model, LENGTH).total == pytest.approx(expected.total(6), rel=0.01)


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
    with left_alone(model), pytest.raises(raptr.RaptrError):
        count_flops(model, length)


def test_a_subnetwork_that_does_not_fit_is_refused() -> None:
    counted = count_flops(LLAMA.build(), 24)
    with pytest.raises(raptr.RaptrError):
        counted.step(raptr.Subnetwork.of((0, 6)))
    with pytest.raises(raptr.RaptrError):
        counted.step(raptr.Subnetwork.of((0, 1), (0,)))


class Product(nn.Module):
    """A layer of one square matrix, multiplied in one of three ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.weight = way, nn.Parameter(torch.ones(1, 16, 16))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.flatten(0, 1)
        if self.way == "matrix":
            made = rows @ self.weight[0]
        elif self.way == "vectors":
            made = torch.stack([self.weight[0].mv(row) for row in rows])
        else:
            ends = torch.full((1,), len(rows), dtype=torch.int32, device=hidden.device)
            made = torch._grouped_mm(rows.bfloat16(), self.weight.bfloat16(), offs=ends).to(hidden.dtype)
        return hidden + made.view_as(hidden)


class Chain(nn.Module):
    """One layer after the other."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def products(way: str) -> raptr.LayerCosts:
    """The count of two such layers."""
    layers = nn.ModuleList(Product(way) for _ in range(2))
    return count_flops(Chain(layers), None, blocks=layers, inputs=(torch.ones(1, 8, 16),))


def test_a_product_with_a_vector_counts_as_one_with_a_matrix() -> None:
    assert products("vectors").layers == products("matrix").layers == ((3 * 2 * 8 * 16 * 16,) * 2,)


def test_a_product_without_a_formula_is_not_counted_as_nothing() -> None:
    with pytest.raises(raptr.RaptrError, match="_grouped_mm"):
        products("grouped")
