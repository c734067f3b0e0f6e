"""Tokens on disk: made once, memory-mapped ever after.

    cache/<key>/  train.bin  validation.bin  tokenizer/  description.json

The key is a hash of the text, the tokenizer, the options and the format, so a folder never has to be
looked into to know whether it is the right one. A folder is written under another name and renamed
when it is complete: what is there is whole.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from raptr.data.progress import progress
from raptr.data.sources import SPLITS, Source, Split, open_source
from raptr.data.tokenizer import (
    SAMPLE_BYTES,
    encoder,
    identity,
    load_tokenizer,
    parallel_tokenizers,
    separator,
    train_tokenizer,
    vocabulary,
)
from raptr.errors import RaptrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
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
            for validation), duplicates, empty, undecodable, bytes_per_token, tokenizer, vocabulary,
            separator, key, format.
    """

    path: Path
    train: Tokens
    validation: Tokens
    tokenizer: "PreTrainedTokenizerBase"
    description: dict[str, Any]


def prepare(
    *,
    source: str,
    tokenizer: str | int,
    cache: Path,
    validation: str | None = None,
    max_bytes: int | None = None,
    validation_share: float = 0.02,
    text_field: str = "text",
) -> TokenStore:
    """Text -> tokens on disk; at once where the same tokens are there already.

    The text is read and hashed at every call: that it is the same is known, not assumed.

    Args:
        source: "builtin:python", or the path of a file or folder of .txt and .jsonl, also as .xz or .gz.
        tokenizer: the size of the byte-level BPE that is trained on the train text, or a tokenizer's
            folder, tokenizer.json, or name on the Hugging Face Hub.
        cache: the folder of all stores; made where it is missing.
        validation: a second source, for the validation text.
        max_bytes: the limit on the text, in bytes of UTF-8; None for all of it.
        validation_share: how much is held out where ``validation`` is not given.
        text_field: the field of a .jsonl line that holds the text.

    Returns:
        The store.

    Raises:
        RaptrError: the source or the tokenizer cannot be used, or the stored folder is damaged.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = prepare(source="builtin:python", max_bytes=50_000, tokenizer=300, cache=Path(folder))
        ...     store.description["vocabulary"]
        300
    """
    text = open_source(
        source,
        max_bytes=max_bytes,
        validation=validation,
        validation_share=validation_share,
        text_field=text_field,
    )
    given = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else None
    key = _key(text, identity(given) if given else _recipe(int(tokenizer)))
    folder = Path(cache).expanduser() / key
    if not folder.exists():
        named = tokenizer if given else f"byte-level BPE of {tokenizer} entries, trained on this text"
        _complete(folder, lambda partial: _write(partial, text, given or int(tokenizer), key, str(named)))
    return _open(folder)


def _recipe(vocab_size: int) -> str:
    import tokenizers

    return f"byte-level BPE\n{vocab_size}\n{SAMPLE_BYTES}\n{tokenizers.__version__}"


def _key(source: Source, tokenizer: str) -> str:
    parts = (str(FORMAT), source.content_hash, tokenizer)
    return hashlib.blake2b("\0".join(parts).encode("utf8"), digest_size=12).hexdigest()


def _complete(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under another name, and give it its own when it is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise RaptrError(
            f"cache folder {str(folder.parent)!r} cannot be written to ({error.strerror}); give another one."
        ) from error
    try:
        write(partial)
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, source: Source, tokenizer: "PreTrainedTokenizerBase | int", key: str, name: str) -> None:
    if isinstance(tokenizer, int):
        sample = min(SAMPLE_BYTES, source.counts.bytes["train"])
        tokenizer = train_tokenizer(source.documents("train"), tokenizer, sample_bytes=sample)
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
        "bytes_per_token": round(total / sum(tokens.values()), 4),
        "tokenizer": name,
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
