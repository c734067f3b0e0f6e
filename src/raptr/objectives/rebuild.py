"""The inverse of denoising: the text again, from inputs and targets."""

from collections.abc import Sequence

from raptr.errors import RaptrError


def rebuild(inputs: Sequence[int], targets: Sequence[int], *, sentinels: Sequence[int], first: int = 0) -> list[int]:
    """Put every span of the targets where its sentinel stands in the inputs.

    Args:
        inputs: one example's inputs, without mode and final token.
        targets: its targets, without final token.
        sentinels: their ids, in order.
        first: which sentinel is the first.

    Raises:
        RaptrError: the sentinels of the two are not the same.

    Example:
        >>> rebuild([1, 2, 99, 5, 98], [99, 3, 4, 98, 6], sentinels=[99, 98])
        [1, 2, 3, 4, 5, 6]
    """
    known = set(sentinels[first:])
    spans: dict[int, list[int]] = {}
    head: list[int] = []
    current = head
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
    text = [part for token in inputs for part in (spans[token] if token in known else [token])]
    return text + head
