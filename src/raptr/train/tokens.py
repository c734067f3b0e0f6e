"""The tokens that the masked objective needs, in a tokenizer that lacks them."""

from typing import Any

from raptr.config import RunConfig
from raptr.data import load_tokenizer, vocabulary
from raptr.data.mask import with_mask
from raptr.errors import RaptrError


def marked(config: RunConfig, tokenizer: Any) -> tuple[Any, tuple[str, ...]]:
    """The tokenizer with the tokens that the objective needs, and the names of what had to be added."""
    return with_mask(tokenizer) if config.objective.name == "masked" else (tokenizer, ())


def vocabulary_of(config: RunConfig) -> int:
    """How many tokens the tokenizer of a config has, with those of its objective; it is not trained."""
    tokenizer = config.data.tokenizer
    if isinstance(tokenizer, int):
        return tokenizer  # all kinds that are trained here have a mask token
    return vocabulary(marked(config, load_tokenizer(tokenizer))[0])


def check_room(config: RunConfig, model_config: Any, tokenizer: Any, added: tuple[str, ...]) -> None:
    """Refuse pretrained weights whose embedding has no rows for what was added to their tokenizer.

    Raises:
        RaptrError: there are too few rows.
    """
    rows, needed = model_config.vocab_size, vocabulary(tokenizer)
    if added and rows < needed:
        raise RaptrError(
            f"tokenizer {config.data.tokenizer!r} has no mask token, which the masked objective needs, and the "
            f"embedding of {config.model.from_pretrained!r} has {rows} rows, which cannot hold the {needed} that there "
            "were with one; give a tokenizer that has one, or fresh weights (model.from_config)."
        )


def said_of(added: tuple[str, ...]) -> str:
    """What is said of tokens that were added to a tokenizer."""
    return f"token {', '.join(added)} added to the tokenizer, which had no mask token"
