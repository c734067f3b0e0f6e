"""The inverse of denoising: the text again, from inputs and targets."""

from collections.abc import Sequence

import numpy as np

from raptr.errors import RaptrError
from raptr.objectives.denoising import Batch, Marks
from raptr.objectives.forms import Form, Pair
from raptr.objectives.spans import Int64s


def rebuild(inputs: Sequence[int], targets: Sequence[int], *, sentinels: Sequence[int]) -> list[int]:
    """Put every span of the targets where its sentinel stands in the inputs; without sentinels, at the end.

    Args:
        inputs: one example's inputs, without mode and final token.
        targets: its targets, without final token.
        sentinels: their ids.

    Raises:
        RaptrError: the sentinels of the two are not the same.

    Example:
        >>> rebuild([1, 2, 99, 5, 98], [99, 3, 4, 98, 6], sentinels=[99, 98])
        [1, 2, 3, 4, 5, 6]
    """
    known = set(sentinels)
    spans: dict[int, list[int]] = {}
    end: list[int] = []
    current = end
    for token in targets:
        if token in known:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    used = [token for token in inputs if token in known]
    if used != list(spans):
        raise RaptrError(
            f"the sentinels of the inputs are {used} and those of the targets {list(spans)}; expected the same, in the "
            "same order."
        )
    return [part for token in inputs for part in (spans[token] if token in known else [token])] + end


def restore(batch: Batch, form: Form, marks: Marks) -> Int64s:
    """The raw windows of a batch of `encoder_decoder` or `decoder_only`, shape (B, ``form.tokens``).

    Raises:
        RaptrError: the batch is not of this form.
    """
    rows = []
    examples = (form.example,) if isinstance(form, Pair) else form.examples
    for inputs, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        text, start = list[int](), 0
        for example in examples:
            stop = start + example.inputs
            given = inputs[start + example.mode : stop]
            wanted = labels if isinstance(form, Pair) else inputs[stop : stop + example.targets]
            text += rebuild(given, wanted[: len(wanted) - example.final], sentinels=marks.sentinels)
            start = stop + example.targets
        rows.append(text)
    return np.array(rows, dtype=np.int64).reshape(len(rows), form.tokens)
