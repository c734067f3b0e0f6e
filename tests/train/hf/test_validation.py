"""Validation on several ranks counts every sequence once: what is added to fill batches up has no part in the mean."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from raptr.train.hf.validation import Padded, PaddedCollator, weighted

VOCABULARY = 5
ROWS, LENGTH = 7, 4


def collate(items: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.stack(items), "labels": torch.stack(items)}


def data(*, ragged: bool) -> list[torch.Tensor]:
    labels = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    if ragged:
        labels[:, 2:] = torch.where(torch.arange(ROWS)[:, None] % 2 == 0, labels[:, 2:], -100)
    return list(labels)


def loss_of(batch: dict[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[: len(batch["labels"])].flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("multiple", [1, 2, 4, 16])
def test_the_mean_over_padded_batches_is_that_over_the_data(multiple: int, ragged: bool) -> None:
    rows = data(ragged=ragged)
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)).expand(ROWS, LENGTH, VOCABULARY)
    expected = loss_of(collate(rows), logits)
    mean_predicted = sum(int((row != -100).sum()) for row in rows) / ROWS if ragged else None
    padded, collator = Padded(rows, multiple), PaddedCollator(collate)
    assert len(padded) % multiple == 0
    size = min(multiple, 2)
    batches = [collator([padded[i] for i in range(start, start + size)]) for start in range(0, len(padded), size)]
    losses = [weighted(loss_of(b, logits), b["labels"], mean_predicted, padded.stretch) for b in batches]
    assert all(loss.isfinite() for loss in losses)
    torch.testing.assert_close(torch.stack(losses).mean(), expected)
    if multiple == 4 and not ragged:
        plain = [loss_of(collate([padded[i][0] for i in range(s, s + 2)]), logits) for s in range(0, len(padded), 2)]
        assert abs(torch.stack(plain).mean() - expected) > 1e-4, "control: with repeated rows it is another mean"


def test_what_is_not_padded_is_left_as_it_is() -> None:
    loss = torch.tensor(2.0)
    assert weighted(loss, torch.zeros(2, 3), None, 1.0) is loss


def test_inputs_are_whole_where_labels_are_not() -> None:
    batch = PaddedCollator(collate)([(torch.tensor([1, 2]), True), (torch.tensor([3, 4]), False)])
    assert batch["input_ids"].tolist() == [[1, 2], [3, 4]]
    assert batch["labels"].tolist() == [[1, 2], [-100, -100]]


def test_there_is_no_sample_after_the_last() -> None:
    with pytest.raises(IndexError, match="sample 4"):
        Padded("abc", 2)[4]
