"""The tokens that an objective needs, in a tokenizer that lacks them."""

import copy
from operator import itemgetter
from typing import Any

from raptr.config import DenoisingConfig, RunConfig
from raptr.data import load_tokenizer, vocabulary
from raptr.data.tokens.special import mark_names, with_marks, with_mask
from raptr.data.tokens.tokenizer import encoder
from raptr.errors import RaptrError


def marked(config: RunConfig, tokenizer: Any) -> tuple[Any, tuple[str, ...]]:
    """The tokenizer with the tokens that the objective needs, and the names of what had to be added."""
    if config.objective.name == "masked":
        return with_mask(tokenizer)
    if isinstance(config.objective, DenoisingConfig):
        return with_marks(tokenizer, config.objective.sentinels, config.objective.mode_tokens)
    return tokenizer, ()


def limited_to(tokenizer: Any, positions: int | None) -> Any:
    """Return the tokenizer with the model's limit in tokens, where it has none itself or a higher one.

    It is saved with the model: whoever encodes with ``truncation=True`` gets no more than the model takes.
    """
    if positions is None or tokenizer.model_max_length <= positions:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = positions
    return tokenizer


def vocabulary_of(config: RunConfig) -> int:
    """How many tokens the tokenizer of a config has, with those of its objective; it is not trained."""
    tokenizer = config.data.tokenizer
    if not isinstance(tokenizer, int):
        return vocabulary(marked(config, load_tokenizer(tokenizer))[0])
    if isinstance(config.objective, DenoisingConfig):
        return tokenizer + len(mark_names(config.objective.sentinels, config.objective.mode_tokens))
    return tokenizer  # all kinds that are trained here have a mask token


def check_room(config: RunConfig, model_config: Any, tokenizer: Any, added: tuple[str, ...]) -> None:
    """Refuse pretrained weights whose embedding has no rows for what was added to their tokenizer.

    Raises:
        RaptrError: there are too few rows.
    """
    rows, needed = model_config.vocab_size, vocabulary(tokenizer)
    if not added or rows >= needed:
        return
    lacks, advice = "no mask token, which the masked objective needs", "a tokenizer that has one"
    if config.objective.name == "denoising":
        lacks = f"not {len(added)} of the tokens that denoising needs ({_few(added)})"
        advice = "weights that were made for them, a smaller objective.sentinels, objective.mode_tokens=false"
    raise RaptrError(
        f"tokenizer {config.data.tokenizer!r} has {lacks}, and the embedding of {config.model.from_pretrained!r} has "
        f"{rows} rows, which cannot hold the {needed} tokens that there were with them; give {advice}, or fresh "
        "weights (model.from_config)."
    )


PROBE = (
    "The quick brown fox, 12,345.67 times: don't STOP!\n\tdef f(x):  return x ** 2  # naïve façade\n"
    "Übermut — Ελληνικά, русский, 日本語, ไทย, العربية 😀 http://example.org/?q=a_b&c=%20 ...\r\n<br/> 0xFF 'quoted' "
)
"""A text that tokenizers with the same vocabulary and other rules cut differently."""


def check_same_tokens(config: RunConfig, tokenizer: Any) -> None:
    """Refuse weights with another tokenizer than the one beside them; one that has more tokens is not another.

    Weights without a tokenizer are taken as they are.

    Raises:
        RaptrError: a token has another number, or a text becomes other tokens.
    """
    name = config.model.from_pretrained
    if name is None or config.model.new_tokenizer or name == config.data.tokenizer:
        return
    try:
        own = load_tokenizer(name)
    except RaptrError:
        return
    there, given = own.get_vocab(), tokenizer.get_vocab()
    if set(there) <= set(own.all_special_tokens):
        return  # what transformers makes of a folder without a tokenizer
    other = [token for token, place in sorted(there.items(), key=itemgetter(1)) if given.get(token) != place]
    if other:
        place = there[other[0]]
        here = tokenizer.convert_ids_to_tokens(place)
        differ = f"token {place} is {other[0]!r} there and {here!r} here ({len(other)} of {len(there)} tokens differ)"
    elif encoder(own)([PROBE]) != encoder(tokenizer)([PROBE]):
        differ = "their tokens are the same, but not the rules by which a text becomes them"
    else:
        return
    raise RaptrError(
        f"data.tokenizer is {config.data.tokenizer!r}, and the weights of {name!r} were trained with another "
        f"tokenizer, that of their folder: {differ}. Give data.tokenizer={name}; or model.new_tokenizer=true, if the "
        "weights are to learn other tokens."
    )


def said_of(added: tuple[str, ...]) -> str:
    """What is said of tokens that were added to a tokenizer."""
    what = f"token {added[0]}" if len(added) == 1 else f"{len(added)} tokens ({_few(added)})"
    return f"{what} added to the tokenizer, which lacked {'it' if len(added) == 1 else 'them'}"


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names if len(names) <= 5 else (*names[:2], "...", *names[-2:]))
