"""The mask token, for tokenizers that have none."""

import copy
from typing import TYPE_CHECKING

from raptr.data.tokens.tokenizer import MASK

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
