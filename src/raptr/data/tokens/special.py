"""Tokens that objectives need besides those of the text: the mask token, sentinels and mode tokens."""

import copy
from typing import TYPE_CHECKING

from raptr.data.tokens.tokenizer import MASK, separator
from raptr.objectives import Marks
from raptr.objectives.denoiser import MODES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def with_mask(tokenizer: "PreTrainedTokenizerBase") -> tuple["PreTrainedTokenizerBase", tuple[str, ...]]:
    """A tokenizer that has a mask token, and the names of those that had to be added for it, behind all others.

    A token of the vocabulary that is called ``<mask>``, ``[MASK]`` or ``<|mask|>`` is taken for it. No text becomes
    other tokens by that, so stored tokens stay as they are.
    """
    if tokenizer.mask_token_id is not None:
        return tokenizer, ()
    there = tokenizer.get_vocab()
    name = next((name for name in ("<mask>", "[MASK]", MASK) if name in there), MASK)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"mask_token": name})
    return tokenizer, () if name in there else (name,)


def mark_names(sentinels: int, modes: bool) -> tuple[str, ...]:
    """What they are called: as T5's sentinels, and UL2's modes.

    Example:
        >>> mark_names(2, modes=True)
        ('<extra_id_0>', '<extra_id_1>', '[NLU]', '[NLG]', '[S2S]')
    """
    return (*(f"<extra_id_{i}>" for i in range(sentinels)), *(f"[{mode}]" for mode in MODES if modes))


def with_marks(
    tokenizer: "PreTrainedTokenizerBase", sentinels: int, modes: bool
) -> tuple["PreTrainedTokenizerBase", tuple[str, ...]]:
    """A tokenizer that has them, and the names of those that had to be added, behind all its other tokens.

    No text becomes other tokens by that, so stored tokens stay as they are.
    """
    there = tokenizer.get_vocab()
    missing = tuple(name for name in mark_names(sentinels, modes) if name not in there)
    if missing:
        from transformers import AddedToken

        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_tokens(
            [AddedToken(name, special=True, normalized=False) for name in missing], special_tokens=True
        )
    return tokenizer, missing


def marks_of(tokenizer: "PreTrainedTokenizerBase", sentinels: int, modes: bool, start: int | None) -> Marks:
    """Their ids in a tokenizer of `with_marks`.

    Args:
        tokenizer: the tokenizer.
        sentinels: how many there are.
        modes: whether mode tokens are used.
        start: the model's first decoder input; the pad token if it has none.
    """
    ids = tokenizer.get_vocab()
    final = separator(tokenizer)
    pad = final if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    return Marks(
        sentinels=tuple(ids[name] for name in mark_names(sentinels, modes=False)),
        final=final,
        pad=pad,
        start=pad if start is None else start,
        modes={mode: ids[f"[{mode}]"] for mode in MODES if modes},
    )
