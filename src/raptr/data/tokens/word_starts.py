"""Where words begin, by the marks of the tokenizer itself; for whole-word masking."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from raptr.data.tokens.tokenizer import vocabulary
from raptr.errors import RaptrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METASPACE = "▁"
SPACES = tuple(chr(256 + byte) for byte in b"\t\n\v\f\r ")
"""How byte-level vocabularies write the bytes of white space: byte b below 33 is the character 256 + b."""


def continuations(tokenizer: "PreTrainedTokenizerBase") -> npt.NDArray[np.bool_]:
    """For every id, whether its token continues the word of the token before it.

    WordPiece marks the tokens that continue a word (``##``), the others those that begin one: byte-level BPE by
    the white space in front of it (``Ġ``), vocabularies of SentencePiece by ``▁``. In the latter two a token without
    the mark continues, so that a full stop belongs to the word before it. Added and special tokens begin words.

    Args:
        tokenizer: a Hugging Face tokenizer that runs on the tokenizers library.

    Returns:
        Truth values of shape (vocabulary,).

    Raises:
        RaptrError: the tokenizer marks neither.

    Example:
        >>> from raptr.data.tokens.tokenizer import train_tokenizer
        >>> tokenizer = train_tokenizer(["low lower lowest"] * 9, 262)
        >>> continues = continuations(tokenizer)
        >>> [bool(continues[tokenizer.convert_tokens_to_ids(token)]) for token in ("Ġ", "w", "<|mask|>")]
        [False, True, False]
    """
    rule = _rule(tokenizer)
    found = np.zeros(vocabulary(tokenizer), dtype=np.bool_)
    for token, i in tokenizer.get_vocab().items():
        found[i] = rule(token)
    found[[*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids]] = False
    return found


def _rule(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str], bool]:
    if tokenizer.is_fast:
        described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        prefix = described["model"].get("continuing_subword_prefix")
        if prefix:
            return lambda token: token.startswith(prefix)
        kinds = {kind for part in ("pre_tokenizer", "decoder") for kind in _kinds(described[part])}
        if "ByteLevel" in kinds:
            return lambda token: not token.startswith(SPACES)
        marked = any(token.startswith(METASPACE) for token in tokenizer.get_vocab())
        if marked and not described["model"].get("end_of_word_suffix"):
            return lambda token: not token.startswith(METASPACE)
    raise RaptrError(
        f"this {type(tokenizer).__name__} does not mark where words begin, so whole words cannot be masked; expected a "
        "WordPiece ('##'), byte-level BPE (a leading space) or SentencePiece ('▁') vocabulary. Set "
        "objective.whole_words=false, or use another tokenizer."
    )


def _kinds(part: Any) -> Iterator[str]:
    """The types in a description of a pre-tokenizer or decoder, with those inside a sequence."""
    if isinstance(part, dict):
        yield part.get("type", "")
        for value in part.values():
            for inner in value if isinstance(value, list) else ():
                yield from _kinds(inner)
