"""Tokens on disk: made once, memory-mapped ever after.

    cache/<key>/  train.bin  validation.bin  tokenizer/  description.json

The key is a hash of the text, the tokenizer and the format, so a folder never has to be
looked into to know whether it is the right one. A folder is written under another name and renamed
when it is complete: what is there is whole. Written until then, it is ``.partial-<key>``, and the same call goes on
with what is finished in it (see ``parts``); the bytes do not depend on that, nor on the number of processes.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from raptr.data.atomic_folder import at_home, write_resumable
from raptr.data.progress import progress
from raptr.data.text.sources import SPLITS, Source, Split
from raptr.data.tokens.encode_pool import Recipe, encoded, processes
from raptr.data.tokens.journal import Chunk, Part, Parts, bin_path, chunks, close, measured, opened
from raptr.data.tokens.tokenizer import TokenizerSpec, encoder, fingerprint, load_tokenizer, separator, vocabulary
from raptr.errors import RaptrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 3
"""Part of the key. Raise it whenever the same text and tokenizer would be stored differently."""

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one call tokenized: bytes of text, their tokens, seconds, processes; and bytes that it found finished."""

    bytes: int
    tokens: int
    seconds: float
    processes: int
    found: int

    def __str__(self) -> str:
        """In a line, for a reader."""
        if not self.bytes:
            return "nothing: all was there"
        seconds = max(self.seconds, 1e-9)
        rest = f"; {self.found / 1e6:.1f} MB were there already" if self.found else ""
        return (
            f"{self.bytes / 1e6:.1f} MB in {self.seconds:.1f} s: {self.bytes / 1e6 / seconds:.2f} MB/s, "
            f"{self.tokens / seconds:,.0f} tokens/s, {self.processes} "
            f"process{'es' if self.processes > 1 else ''}{rest}"
        )


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
            records by kind, skipped_first: what was said of the first few), not_read (files that were not opened, by
            their ending or another reason), bytes_per_token, tokenizer, vocabulary, separator, probe (hash of the
            tokens of a fixed text), versions (of the libraries that made them), key, format.
        made: what was tokenized now; None if the tokens were there.
    """

    path: Path
    train: Tokens
    validation: Tokens
    tokenizer: "PreTrainedTokenizerBase"
    description: dict[str, Any]
    made: Made | None = field(default=None, compare=False)


def store_tokens(source: Source, tokenizer: TokenizerSpec, cache: Path, workers: int | None = None) -> TokenStore:
    """The tokens of a source; at once where they are there already, and from where it was interrupted.

    Args:
        source: the text.
        tokenizer: what makes tokens of it; it is only made if it is needed.
        cache: the folder of all stores; made where it is missing.
        workers: processes that tokenize, by default as many as there are cores; the tokens do not depend on it.

    Raises:
        RaptrError: the tokenizer cannot be made, or the stored folder is damaged.
    """
    begin = () if tokenizer.begin is None else (f"bos {tokenizer.begin}",)
    named_by = (str(FORMAT), source.content_hash, tokenizer.identity, *begin)
    key = hashlib.blake2b("\0".join(named_by).encode("utf8"), digest_size=12).hexdigest()
    folder = at_home(cache) / key
    made: list[Made] = []
    if not folder.exists():
        write_resumable(folder, lambda partial: made.append(_write(partial, source, tokenizer, key, workers)))
    return replace(_open(folder), made=made[-1] if made else None)


def _write(folder: Path, source: Source, made_by: TokenizerSpec, key: str, workers: int | None) -> Made:
    tokenizer = _tokenizer(folder, made_by)
    stored_as = np.dtype(_dtype(vocabulary(tokenizer))).str
    recipe = Recipe(encoder(tokenizer), separator(tokenizer), stored_as, made_by.begin)
    with opened(folder, np.dtype(recipe.dtype).itemsize) as parts:
        try:
            made = _tokenize(source, recipe, parts, workers)
        except _OtherText:
            parts.forget()
            made = _tokenize(source, recipe, parts, workers)
        tokens = parts.tokens()
    description = _description(source, made_by, key, tokens, tokenizer)
    (folder / "description.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf8")
    close(folder)
    return made


def _tokenizer(folder: Path, made_by: TokenizerSpec) -> "PreTrainedTokenizerBase":
    """The tokenizer in a folder; made and put there if there is none."""
    place, partial = folder / "tokenizer", folder / "tokenizer.partial"
    if place.exists():
        return load_tokenizer(str(place))
    made = made_by.make()
    made.save_pretrained(partial)
    saved = load_tokenizer(str(partial))
    if fingerprint(saved) != fingerprint(made):
        raise RaptrError(
            f"tokenizer {made_by.name!r} makes other tokens after it was saved and loaded by transformers "
            f"{version('transformers')}; give it as a tokenizer.json, or use another version."
        )
    partial.rename(place)
    return saved


class _OtherText(Exception):
    """What is finished is not of this text."""


def _tokenize(source: Source, recipe: Recipe, parts: Parts, workers: int | None) -> Made:
    """Tokenize all that is behind the finished parts."""
    finished, total = tuple(parts.done), sum(source.counts.bytes.values())
    found = sum(part.bytes for part in finished)
    count, since = processes(total - found, workers), time.monotonic()
    ahead: deque[Part] = deque()

    def missing() -> Iterator[Chunk]:
        number = 0
        for number, chunk in enumerate(chunks(source.read()), start=1):
            part = measured(chunk)
            if number > len(finished):
                ahead.append(part)
                yield chunk
            elif replace(finished[number - 1], tokens=part.tokens) != part:
                raise _OtherText
        if number < len(finished):
            raise _OtherText

    with progress("Tokenizing", total) as advance:
        advance(found)
        for tokens in encoded(missing(), recipe, count):
            part = replace(ahead.popleft(), tokens=len(tokens))
            parts.add(part, tokens)
            advance(part.bytes)
    made = parts.done[len(finished) :]
    return Made(
        bytes=sum(part.bytes for part in made),
        tokens=sum(part.tokens for part in made),
        seconds=time.monotonic() - since,
        processes=count,
        found=found,
    )


def _description(
    source: Source, made_by: TokenizerSpec, key: str, tokens: dict[Split, int], tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, Any]:
    counts = source.counts
    total = sum(counts.bytes.values())
    return {
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
        "not_read": dict(counts.omitted.unread),
        "bytes_per_token": round(total / sum(tokens.values()), 4),
        "tokenizer": made_by.name,
        "vocabulary": vocabulary(tokenizer),
        "separator": separator(tokenizer),
        **({} if made_by.begin is None else {"bos": made_by.begin}),
        "probe": fingerprint(tokenizer),
        "versions": _versions(),
        "key": key,
        "format": FORMAT,
    }


def _versions() -> dict[str, str]:
    """Versions of the libraries that make tokens."""
    return {name: version(name) for name in ("tokenizers", "transformers")}


def _dtype(vocabulary_size: int) -> npt.DTypeLike:
    return np.uint16 if vocabulary_size <= 2**16 else np.uint32


def _open(folder: Path) -> TokenStore:
    try:
        description = json.loads((folder / "description.json").read_text(encoding="utf8"))
        json.dumps(description, ensure_ascii=False).encode("utf8")  # halves of characters can be written in JSON
        dtype = _dtype(description["vocabulary"])
        maps = {split: np.memmap(bin_path(folder, split), dtype=dtype, mode="r") for split in SPLITS}
        lengths = {split: len(tokens) for split, tokens in maps.items()}
        if lengths != description["tokens"]:
            raise ValueError(f"it holds {lengths} tokens instead of {description['tokens']}")
        tokenizer = load_tokenizer(str(folder / "tokenizer"))
        probe = description.get("probe")  # not in stores from before it was recorded
        if probe is not None and probe != fingerprint(tokenizer):
            raise ValueError(
                f"its tokenizer now makes other tokens than with {description.get('versions')}; here are {_versions()}"
            )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RaptrError(f"stored tokens {str(folder)!r} are damaged ({error}); delete that folder.") from error
    return TokenStore(
        path=folder,
        train=maps["train"],
        validation=maps["validation"],
        tokenizer=tokenizer,
        description=description,
    )
