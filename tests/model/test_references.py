"""The references themselves: each comparison fails when it should."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reference.families import BERT, LLAMA, MLP, Family, every_family, hugging_face
from reference.shallow import expected_gradients, gradients
from reference.snapshot import Snapshot, untouched


@every_family
def test_with_every_layer_kept_the_shallow_model_is_the_full_one(family: Family) -> None:
    full = family.build()
    small = family.shallow(full, *family.full)
    family.loss(full).backward()
    family.loss(small).backward()
    expected = expected_gradients(full, small, family.kept(family.full))
    for name, grad in gradients(full).items():
        assert torch.equal(grad, expected[name]), name


@every_family
def test_another_path_has_another_loss_and_other_gradients(family: Family) -> None:
    full, path, other = family.build(), family.path, family.paths[1]
    first, second = family.shallow(full, *path), family.shallow(full, *other)
    losses = [family.loss(small) for small in (first, second)]
    for loss in losses:
        loss.backward()
    assert losses[0] != losses[1]
    one = expected_gradients(full, first, family.kept(path))
    two = expected_gradients(full, second, family.kept(other))
    skipped = {name for name, grad in one.items() if grad is None}
    left_out = set(family.named_layers(family.full)) - set(family.named_layers(path))
    assert skipped == {name for name in one if name.startswith(tuple(left_out))}
    # Every parameter that both train tells the two apart, so a wrong path cannot pass unseen. A key's bias is
    # one that no gradient reaches: what is left of it is rounding.
    shared = [name for name in one if one[name] is not None and two[name] is not None]
    assert not [name for name in shared if one[name].abs().max() > 1e-12 and torch.equal(one[name], two[name])]


@hugging_face
def test_the_shallow_model_shares_no_memory(family: Family) -> None:
    full = family.build()
    before = Snapshot.of(full)
    small = family.shallow(full, *family.path)
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
