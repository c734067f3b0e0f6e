"""Whole words of a run: where the tokenizer begins them, and how many tokens are masked one by one after all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from raptr.data import Sequences, closings, continuations, unspaced
from raptr.objectives import taken_apart
from raptr.train.ranks import is_main

_SAMPLE = 256
"""Sequences of each source that are looked at."""


def word_options(tokenizer: Any) -> dict[str, Any]:
    """The arguments of `raptr.objectives.masked` that make it mask whole words.

    Raises:
        RaptrError: the tokenizer does not mark where words begin.
    """
    return {"continues": continuations(tokenizer), "closes": closings(tokenizer)}


def say_words(tokenizer: Any, sources: Sequence[Sequences], rate: float) -> None:
    """Say on stderr how many tokens of the training text are not masked as parts of words, if any are."""
    special = [tokenizer.mask_token_id, *tokenizer.all_special_ids]
    places = [np.linspace(0, len(each) - 1, min(_SAMPLE, len(each)), dtype=np.int64) for each in sources]
    rows = np.concatenate([each.rows(place) for each, place in zip(sources, places, strict=True)])
    alone = unspaced(tokenizer)[rows].mean()
    long = taken_apart(rows, special_ids=special, rate=rate, **word_options(tokenizer))
    if is_main() and alone + long:
        text = (
            f"whole words: of the tokens of {len(rows):,} training sequences {alone:.1%} belong to scripts without "
            f"spaces between words, and {long:.1%} to words with more tokens than a sequence predicts; each of these "
            "tokens is masked by itself."
        )
        Console(stderr=True).print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
