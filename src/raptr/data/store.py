"""Tokens on disk: made once, memory-mapped ever after.

    cache/<key>/  train.bin  validation.bin  tokenizer/  description.json

The key is a hash of the text, the tokenizer and the format, so a folder never has to be
looked into to know whether it is the right one. A folder is written under another name and renamed
when it is complete: what is there is whole.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from raptr.data.folders import write_folder
from raptr.data.progress import progress
from raptr.data.sources import SPLITS, Source, Split
from raptr.data.tokenizer import TokenizerSpec, encoder, load_tokenizer, parallel_tokenizers, separator, vocabulary
from raptr.errors import RaptrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 2
"""Part of the key. Raise it whenever the same text and tokenizer would be stored differently."""

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

_CHUNK = 1_000_000  # characters that are tokenized at a time


@dataclass(frozen=True, kw_only=True)
class TokenStore:
    """The tokens of a source, memory-mapped, with the tokenizer that made them.

    Attributes:
        path: the folder.
        train: all train documents, one after the other, each followed by the tokenizer's
            end-of-sequence token (its separator where it has none); uint16 where the vocabulary
            fits, else uint32.
        validation: the same of the validation documents.
        tokenizer: the Hugging Face tokenizer.
        description: source, content_hash, split, documents, bytes, tokens (each a number for train and
            for validation), what was dropped (duplicates, empty, undecodable, filtered, skipped: bad
            records by kind, skipped_first: what was said of the first few), bytes_per_token, tokenizer,
            vocabulary, separator, key, format.
    """

    path: Path
    train: Tokens
    validation: Tokens
    tokenizer: "PreTrainedTokenizerBase"
    description: dict[str, Any]


def store_tokens(source: Source, tokenizer: TokenizerSpec, cache: Path) -> TokenStore:
    """The tokens of a source; at once where they are there already.

    Args:
        source: the text.
        tokenizer: what makes tokens of it; it is only made if it is needed.
        cache: the folder of all stores; made where it is missing.

    Raises:
        RaptrError: the tokenizer cannot be made, or the stored folder is damaged.
    """
    parts = (str(FORMAT), source.content_hash, tokenizer.identity)
    key = hashlib.blake2b("\0".join(parts).encode("utf8"), digest_size=12).hexdigest()
    folder = Path(cache).expanduser() / key
    if not folder.exists():
        write_folder(folder, lambda partial: _write(partial, source, tokenizer, key))
    return _open(folder)


def _write(folder: Path, source: Source, made_by: TokenizerSpec, key: str) -> None:
    tokenizer = made_by.make()
    tokenizer.save_pretrained(folder / "tokenizer")
    size = vocabulary(tokenizer)
    dtype = _dtype(size)
    encode, end = encoder(tokenizer), separator(tokenizer)
    tokens: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    counts = source.counts
    total = sum(counts.bytes.values())
    train, validation = _bin(folder, "train"), _bin(folder, "validation")
    with train.open("wb") as a, validation.open("wb") as b, progress("Tokenizing", total) as advance:
        files: dict[Split, BinaryIO] = {"train": a, "validation": b}
        for split, texts in _chunks(source.read()):
            with parallel_tokenizers():
                rows = encode(texts)
            array = np.array([token for row in rows for token in (*row, end)], dtype=dtype)
            array.tofile(files[split])
            tokens[split] += len(array)
            advance(sum(len(text) for text in texts))
    description = {
        "source": source.name,
        "content_hash": source.content_hash,
        "split": source.split,
        "documents": counts.documents,
        "bytes": counts.bytes,
        "tokens": tokens,
        "duplicates": counts.duplicates,
        "empty": counts.empty,
        "undecodable": counts.undecodable,
        "filtered": counts.omitted.filtered,
        "skipped": dict(counts.omitted.bad),
        "skipped_first": [message for messages in counts.omitted.first.values() for message in messages],
        "bytes_per_token": round(total / sum(tokens.values()), 4),
        "tokenizer": made_by.name,
        "vocabulary": size,
        "separator": end,
        "key": key,
        "format": FORMAT,
    }
    (folder / "description.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf8")


def _chunks(documents: Iterable[tuple[Split, str]]) -> Iterator[tuple[Split, list[str]]]:
    """Documents of one split together, about as many as are worth the threads; their order is kept."""
    waiting: dict[Split, list[str]] = {split: [] for split in SPLITS}
    sizes: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for split, text in documents:
        waiting[split].append(text)
        sizes[split] += len(text) + 1
        if sizes[split] >= _CHUNK:
            yield split, waiting[split]
            waiting[split], sizes[split] = [], 0
    yield from ((split, texts) for split, texts in waiting.items() if texts)


def _dtype(vocabulary_size: int) -> npt.DTypeLike:
    return np.uint16 if vocabulary_size <= 2**16 else np.uint32


def _bin(folder: Path, split: Split) -> Path:
    return folder / f"{split}.bin"


def _open(folder: Path) -> TokenStore:
    try:
        description = json.loads((folder / "description.json").read_text(encoding="utf8"))
        dtype = _dtype(description["vocabulary"])
        maps = {split: np.memmap(_bin(folder, split), dtype=dtype, mode="r") for split in SPLITS}
        lengths = {split: len(tokens) for split, tokens in maps.items()}
        if lengths != description["tokens"]:
            raise ValueError(f"it holds {lengths} tokens instead of {description['tokens']}")
        tokenizer = load_tokenizer(str(folder / "tokenizer"))
    except (OSError, ValueError, KeyError) as error:
        raise RaptrError(f"stored tokens {str(folder)!r} are damaged ({error}); delete that folder.") from error
    return TokenStore(
        path=folder,
        train=maps["train"],
        validation=maps["validation"],
        tokenizer=tokenizer,
        description=description,
    )
