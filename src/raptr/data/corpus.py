"""All the text of a run: the tokens of each of its sources, one tokenizer, and how they are mixed.

Every source has a token store of its own, under a key of its own: other weights, or one source more, and
the others are not tokenized again, unless the tokenizer that is trained on them changes with it.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptr.config import DataConfig
from raptr.config.data import BUILTIN
from raptr.data.samples.mixture import Mixture, mix
from raptr.data.samples.sequences import Sequences
from raptr.data.text.draw import draw
from raptr.data.text.overlap import Shared, report, said_of, shared_documents
from raptr.data.text.sources import SPLITS, Source, open_source
from raptr.data.tokens.store import TokenStore, store_tokens
from raptr.data.tokens.tokenizer import SAMPLE_BYTES, TokenizerSpec, begin_of, identity, load_tokenizer
from raptr.data.tokens.train_tokenizer import NAMES, train_kind
from raptr.errors import RaptrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The tokens of all sources.

    Attributes:
        stores: by the name of the source, in the order of the config.
        weights: each source's share of the training sequences; None for shares by size.
        shared: documents that one source trains on and another is validated on.
    """

    stores: dict[str, TokenStore]
    weights: dict[str, float] | None
    shared: Shared = field(default_factory=dict)

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The one tokenizer of all sources."""
        return next(iter(self.stores.values())).tokenizer

    @property
    def description(self) -> dict[str, Any]:
        """What there is: of one source its store's description, of several their sums and each one's own.

        ``key`` identifies the text, its tokens and how they are mixed; ``content_hash`` the text.
        """
        told = {name: store.description for name, store in self.stores.items()}
        if len(told) == 1:
            return next(iter(told.values()))
        first = next(iter(told.values()))
        tokens, size = (_sum(told, what) for what in ("tokens", "bytes"))
        return {
            "source": ", ".join(told),
            "content_hash": _hash({name: one["content_hash"] for name, one in told.items()}),
            "mixture": "by size" if self.weights is None else self.weights,
            "documents": _sum(told, "documents"),
            "bytes": size,
            "tokens": tokens,
            "bytes_per_token": round(sum(size.values()) / sum(tokens.values()), 4),
            **{
                what: first[what] for what in ("tokenizer", "vocabulary", "separator", "bos", "format") if what in first
            },
            **({"shared": self.shared} if self.shared else {}),
            "key": _hash([[name, one["key"]] for name, one in told.items()] + [self.weights]),
            "sources": told,
        }

    def training(self, length: int) -> Mixture:
        """The training sequences of this many tokens.

        Raises:
            RaptrError: a source has not enough text for one.
        """
        return mix(self._sequences("train", length), self.weights)

    def validation(self, length: int) -> dict[str, Sequences]:
        """The validation sequences of each source."""
        return self._sequences("validation", length)

    def facts(self, length: int) -> dict[str, Any]:
        """The description as lines for a reader, one name and value each, with sequences of this length."""
        training, validation = self.training(length), self.validation(length)
        lines = dict(self.description)
        of_sources = lines.pop("sources", {})
        lines.pop("mixture", None)  # said below, as shares
        lines.pop("probe", None)
        if self.shared:
            lines["shared"] = said_of(self.shared)
        for name, one in of_sources.items():
            used = ("source", "split", "documents", "tokens", "filtered", "skipped", "skipped_first", "not_read")
            lines |= {f"{name}: {what}": one[what] for what in used if what in one}  # not_read is newer than stores
            lines[f"{name}: validation sequences"] = len(validation[name])
        lines = {
            name: "none" if value in ({}, []) else "\n".join(value) if isinstance(value, list) else value
            for name, value in lines.items()
        }
        for name, store in self.stores.items():
            if store.made is not None:
                lines[f"{name}: tokenized now" if of_sources else "tokenized now"] = str(store.made)
        if of_sources:
            lines["shares of training"] = {
                name: f"{share:.4g}" for name, share in zip(of_sources, training.shares, strict=True)
            }
        return {
            **lines,
            "sequence length": length,
            "training sequences": len(training),
            "validation sequences": sum(map(len, validation.values())),
        }

    def _sequences(self, split: str, length: int) -> dict[str, Sequences]:
        found = {}
        for name, store in self.stores.items():
            try:
                found[name] = Sequences(getattr(store, split), length)
            except RaptrError as error:
                raise RaptrError(f"{name}, {split} text: {error}") from error
        return found


def prepare(data: DataConfig, cache: Path, workers: int | None = None, *, continued: bool = False) -> Corpus:
    """Text -> tokens on disk; at once where the same tokens are there already.

    Local text is read and hashed at every call: that it is the same is known, not assumed. What was
    fetched is read from the cache folder.

    Args:
        data: the sources, their mixture, and the tokenizer: the size and kind of the one that is trained on
            a sample of the train text from all over it, each source in its share, or a tokenizer's folder, file, or
            name on the Hugging Face Hub.
        cache: the folder of all stores; made where it is missing.
        workers: processes that tokenize, by default as many as there are cores; the tokens do not depend on it.
        continued: whether weights are continued on these tokens, which ``data.bos=auto`` asks for.

    Documents that one source trains on and another is validated on are counted, and reported on stderr.

    Raises:
        RaptrError: a source or the tokenizer cannot be used, or a stored folder is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = prepare(DataConfig(source="builtin:python", max_bytes=50_000, tokenizer=300), Path(folder))
        ...     made.description["vocabulary"]
        300
    """
    sources = {
        name: open_source(source, name=name, cache=cache, strict=data.strict)
        for name, source in data.named_sources().items()
    }
    weights = data.weights()
    shared = shared_documents(sources, weights)
    report(shared)
    if isinstance(data.tokenizer, str):
        given = load_tokenizer(data.tokenizer)
        begin = begin_of(given, data.bos, continued=continued)
        tokenizer = TokenizerSpec(data.tokenizer, identity(given), lambda: given, begin)
    elif data.bos is True:
        raise RaptrError(
            f"data.bos is true, but a tokenizer that is trained here ({data.tokenizer} entries) has no bos token "
            "beside the one that separates documents; leave data.bos out, or give a tokenizer with one."
        )
    else:
        tokenizer = _trained(data, sources, weights)
    stores = {name: store_tokens(source, tokenizer, cache, workers) for name, source in sources.items()}
    if isinstance(data.tokenizer, str):
        stores = {name: _with_roles_of(store, given) for name, store in stores.items()}
    return Corpus(
        stores=stores,
        weights=weights,
        shared=shared,
    )


def _trained(data: DataConfig, sources: Mapping[str, Source], weights: Mapping[str, float] | None) -> TokenizerSpec:
    """A tokenizer that is trained on a sample of each source, as much as its share says."""
    import tokenizers

    size, kind, lowercase = data.tokenizer, data.tokenizer_kind, data.tokenizer_lowercase
    assert isinstance(size, int)
    name = NAMES[kind] + (" in lower case" if lowercase else "")
    recipe = [name, str(size), str(SAMPLE_BYTES), tokenizers.__version__]
    there = {name: source.counts.bytes["train"] for name, source in sources.items()}
    total = sum(there.values())
    sample = min(SAMPLE_BYTES, total)
    shares = {name: there[name] / total if weights is None else weights[name] for name in sources}
    wanted = {name: round(sample * share) for name, share in shares.items()}
    paths = {name: one.path for name, one in data.named_sources().items()}
    # any beginning of builtin:python is a fair sample, and what is used whole is one
    drawn = {name for name in sources if 0 < wanted[name] < there[name] and paths[name] != BUILTIN}
    recipe += ["sampled"] if drawn else []
    if len(sources) > 1:  # of one source, the text is in the key of its tokens
        recipe += [f"{source.content_hash} {wanted[name]}" for name, source in sources.items()]

    @once
    def make() -> "PreTrainedTokenizerBase":
        take = {name: draw if name in drawn else _beginning for name in sources}
        texts = itertools.chain.from_iterable(take[name](sources[name], wanted[name]) for name in sources)
        return train_kind(kind, texts, size, lowercase=lowercase, sample_bytes=sum(wanted.values()))

    what = "this text" if len(sources) == 1 else "these texts, each in its share"
    return TokenizerSpec(f"{name} of {size} entries, trained on {what}", "\n".join(recipe), make)


def _with_roles_of(store: TokenStore, given: "PreTrainedTokenizerBase") -> TokenStore:
    """The store with the tokenizer that was asked for: another one with the same tokens may have made it.

    Which of them are pad, mask and so on is no part of what a text becomes, and so not of the store's key.
    """
    if store.tokenizer.special_tokens_map == given.special_tokens_map:
        return store
    return replace(store, tokenizer=given)


def _beginning(source: Source, size: int) -> Iterator[str]:
    """The first ``size`` bytes of the train text, from the start again where there are fewer."""
    while size > 0:
        for text in source.documents("train"):
            content = text.encode("utf8")[:size]
            yield content.decode("utf8", errors="ignore")
            size -= len(content)
            if size <= 0:
                return


def _sum(told: Mapping[str, Any], what: str) -> dict[str, int]:
    return {split: sum(one[what][split] for one in told.values()) for split in SPLITS}


def _hash(parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode("utf8"), digest_size=12).hexdigest()
