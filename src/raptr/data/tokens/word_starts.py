"""Where words begin, by the marks of the tokenizer itself; for whole-word masking.

Chinese, Japanese, Thai and other scripts write no spaces between words, so that all of a sentence would be one word.
There each token is a word by itself, together with tokens that hold nothing but more bytes of its last character.
"""

import json
import re
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

_UNSPACED = (
    (0x0E00, 0x109F),  # Thai, Lao, Tibetan, Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x1AAF),  # Tai Le, New Tai Lue, Khmer symbols, Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0xA4CF),  # Chinese characters and their punctuation, kana, bopomofo, Yi
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Chinese characters
    (0xFE30, 0xFE4F),  # their punctuation
    (0xFF00, 0xFF9F),  # full-width forms, half-width kana
    (0x1B000, 0x1B16F),  # kana
    (0x20000, 0x3FFFF),  # Chinese characters
)
"""Code points of scripts that write no spaces between words."""

_INSIDE = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 inside a character."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a byte, in vocabularies with byte fallback


def continuations(tokenizer: "PreTrainedTokenizerBase") -> npt.NDArray[np.bool_]:
    """For every id, whether its token continues the word of the token before it.

    WordPiece marks the tokens that continue a word (``##``), the others those that begin one: byte-level BPE by
    the white space in front of it (``Ġ``), vocabularies of SentencePiece by ``▁``. In the latter two a token without
    the mark continues, so that a full stop belongs to the word before it. Added and special tokens begin words, and
    so do tokens that begin with a character of a script without spaces, or with the rest of a character and then one.

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
    rule, content = _rule(tokenizer), _content(tokenizer)
    return _for_every_id(tokenizer, lambda token: rule(token) and not _begins_unspaced(content(token)))


def closings(tokenizer: "PreTrainedTokenizerBase") -> npt.NDArray[np.bool_]:
    """For every id, whether its token ends with a character of a script without spaces: no token continues it.

    Args:
        tokenizer: a Hugging Face tokenizer.

    Returns:
        Truth values of shape (vocabulary,).
    """
    content = _content(tokenizer)
    return _for_every_id(tokenizer, lambda token: _ends_unspaced(content(token)))


def unspaced(tokenizer: "PreTrainedTokenizerBase") -> npt.NDArray[np.bool_]:
    """For every id, whether its token begins or ends with a character of a script without spaces."""
    content = _content(tokenizer)
    begins = _for_every_id(tokenizer, lambda token: _begins_unspaced(content(token)))
    return begins | closings(tokenizer)


def _for_every_id(tokenizer: "PreTrainedTokenizerBase", rule: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
    found = np.zeros(vocabulary(tokenizer), dtype=np.bool_)
    for token, i in tokenizer.get_vocab().items():
        found[i] = rule(token)
    found[[*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids]] = False
    return found


def _content(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str], bytes]:
    """A function from a token to its bytes of UTF-8, without marks; they may end inside a character, or begin there."""
    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    if "ByteLevel" in _kinds_of(described):
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
        return lambda token: bytes(byte_of.get(character, 0) for character in token)
    prefix = described.get("model", {}).get("continuing_subword_prefix") or ""

    def content(token: str) -> bytes:
        byte = _BYTE.fullmatch(token)
        return bytes.fromhex(byte[1]) if byte else token.removeprefix(prefix).strip(METASPACE).encode("utf8", "ignore")

    return content


def _begins_unspaced(content: bytes) -> bool:
    """Return whether the first character that begins in a token is of such a script, as far as its bytes tell."""
    content = content.lstrip(_INSIDE)
    lead = content[0] if content else 0
    size = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    head = content[:size]
    try:
        first, last = (ord((head + filler * (size - len(head))).decode("utf8")) for filler in (b"\x80", b"\xbf"))
    except (UnicodeDecodeError, TypeError):
        return False
    return any(low <= first and last <= high for low, high in _UNSPACED)


def _ends_unspaced(content: bytes) -> bool:
    text = content.decode("utf8", errors="ignore")[-1:]
    return content.endswith(text.encode("utf8")) and any(low <= ord(text) <= high for low, high in _UNSPACED if text)


def _rule(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str], bool]:
    if tokenizer.is_fast:
        described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        prefix = described["model"].get("continuing_subword_prefix")
        if prefix:
            return lambda token: token.startswith(prefix)
        if "ByteLevel" in _kinds_of(described):
            return lambda token: not token.startswith(SPACES)
        marked = any(token.startswith(METASPACE) for token in tokenizer.get_vocab())
        if marked and not described["model"].get("end_of_word_suffix"):
            return lambda token: not token.startswith(METASPACE)
    raise RaptrError(
        f"this {type(tokenizer).__name__} does not mark where words begin, so whole words cannot be masked; expected a "
        "WordPiece ('##'), byte-level BPE (a leading space) or SentencePiece ('▁') vocabulary. Set "
        "objective.whole_words=false, or use another tokenizer."
    )


def _kinds_of(described: dict[str, Any]) -> set[str]:
    return {kind for part in ("pre_tokenizer", "decoder") for kind in _kinds(described.get(part))}


def _kinds(part: Any) -> Iterator[str]:
    """The types in a description of a pre-tokenizer or decoder, with those inside a sequence."""
    if isinstance(part, dict):
        yield part.get("type", "")
        for value in part.values():
            for inner in value if isinstance(value, list) else ():
                yield from _kinds(inner)
