"""The references themselves: each comparison fails when it should."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reference.families import ALL, BERT, HUGGING_FACE, LLAMA, MLP, Family
from reference.shallow import expected_gradients, gradients
from reference.snapshot import Snapshot, untouched


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_with_every_layer_kept_the_shallow_model_is_the_full_one(family: Family) -> None:
    full = family.build()
    small = family.shallow(full, range(6))
    family.loss(full).backward()
    family.loss(small).backward()
    expected = expected_gradients(full, small, {family.stack: range(6)})
    for name, grad in gradients(full).items():
        assert torch.equal(grad, expected[name]), name


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_another_path_has_another_loss_and_other_gradients(family: Family) -> None:
    full = family.build()
    first, second = family.shallow(full, (0, 2, 5)), family.shallow(full, (0, 3, 5))
    losses = [family.loss(small) for small in (first, second)]
    for loss in losses:
        loss.backward()
    assert losses[0] != losses[1]
    one = expected_gradients(full, first, {family.stack: (0, 2, 5)})
    other = expected_gradients(full, second, {family.stack: (0, 3, 5)})
    skipped = [name for name, grad in one.items() if grad is None]
    assert skipped
    assert all(name.startswith(tuple(f"{family.stack}.{i}." for i in (1, 3, 4))) for name in skipped)
    # Every parameter that both train tells the two apart, so a wrong path cannot pass unseen.
    shared = [name for name in one if one[name] is not None and other[name] is not None]
    assert not [name for name in shared if one[name].count_nonzero() and torch.equal(one[name], other[name])]


@pytest.mark.parametrize("family", HUGGING_FACE, ids=lambda f: f.name)
def test_the_shallow_model_shares_no_memory(family: Family) -> None:
    full = family.build()
    before = Snapshot.of(full)
    small = family.shallow(full, (0, 1))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert untouched(full, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "extra", 1),
        lambda m: setattr(m.layers[2], "__class__", type("MLPBlock", (type(m.layers[2]),), {})),
        lambda m: m.layers[0].register_forward_hook(lambda *_: None),
        lambda m: m.head.weight.data.add_(1e-9),
        lambda m: setattr(m.layers[1].norm, "weight", nn.Parameter(m.layers[1].norm.weight.detach().clone())),
        lambda m: m.layers[3].eval(),
        lambda m: m.layers.append(nn.Linear(2, 2)),
        lambda m: setattr(m.layers[0], "forward", lambda x: x),
    ],
    ids=["attribute", "class", "hook", "value", "parameter", "mode", "layer", "forward"],
)
def test_a_snapshot_sees_every_kind_of_change(change) -> None:
    model = MLP.build()
    before = Snapshot.of(model)
    assert untouched(model, before)
    change(model)
    assert not untouched(model, before)


def test_the_batches_pad_and_mask() -> None:
    batch = BERT.batch()
    assert 0 in batch["attention_mask"]
    assert (batch["labels"] == -100).any()
    assert (batch["labels"] >= 0).any()
    assert LLAMA.batch()["use_cache"] is False
