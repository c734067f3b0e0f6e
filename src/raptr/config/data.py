"""The section ``data``: where the text comes from and how it becomes sequences."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from raptr.config.base import SECTION, Expected, Name, Place
from raptr.config.filter_rule import Rule, parse_rule
from raptr.errors import RaptrError

BUILTIN = "builtin:python"
BUILDERS = ("arrow", "csv", "json", "parquet", "text")
"""The builders of the ``datasets`` library that read files by themselves."""

_LARGEST_WEIGHT = 1e100  # of a source in a mixture; the sum of a few must still be a number

_OF_DATASETS = ("config", "revision", "files", "streaming", "validation_split")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _is_rule(text: str) -> str:
    try:
        parse_rule(text)
    except RaptrError as error:
        raise ValueError(str(error)) from error
    return text


Texts = Annotated[list[Place], BeforeValidator(_as_list)]
Share = Annotated[float, Field(gt=0, le=0.5)]
Count = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = SECTION


class SourceConfig(_Section):
    """One source of text: a ``path``, or a ``dataset`` of the datasets library.

    Attributes:
        path: "builtin:python", a file, a folder or a glob pattern.
        dataset: a name on the Hugging Face Hub, a folder (also one written by ``save_to_disk``), or a
            builder for ``files``: arrow, csv, json, parquet, text.
        config: the dataset's configuration.
        split: the dataset's split to train on.
        revision: the dataset's version on the Hub; a full commit hash is found again without the network.
        files: paths or glob patterns, for a builder or inside a dataset.
        streaming: read while it is fetched, instead of fetching the whole split first.
        text: the column that holds the text.
        filter: rules, all of which a record must meet, see `raptr.config.filter_rule.parse_rule`.
        min_chars: shorter documents are left out.
        max_chars: longer documents are left out.
        max_bytes: the limit on the text, in bytes of UTF-8.
        validation: a path with validation text of its own.
        validation_split: the dataset's split to validate on.
        validation_share: how much is held out where there is neither.
    """

    path: Place | None = None
    dataset: Place | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    files: Texts = []
    streaming: bool = False
    text: str = "text"
    filter: Annotated[list[Annotated[str, AfterValidator(_is_rule)]], BeforeValidator(_as_list)] = []
    min_chars: int = Field(default=0, ge=0)
    max_chars: Count | None = None
    max_bytes: Count | None = None
    validation: Place | None = None
    validation_split: str | None = None
    validation_share: Share = 0.02

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> "SourceConfig":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either path (a file, folder or pattern) or dataset (for the datasets library)")
        if self.path is not None:
            for key in (*_OF_DATASETS, "split"):
                if getattr(self, key) != SourceConfig.model_fields[key].default:
                    raise ValueError(f"{key} has no effect on a path; it belongs to a dataset")
        if self.path == BUILTIN and (self.filter or self.min_chars or self.max_chars):
            raise ValueError(f"{BUILTIN} takes no filter, min_chars or max_chars")
        if self.dataset in BUILDERS:
            if not self.files:
                raise ValueError(f"the builder {self.dataset!r} reads files; give them as files: PATH or PATTERN")
            if (self.split, self.config, self.revision, self.validation_split) != ("train", None, None, None):
                raise ValueError(
                    f"what the builder {self.dataset!r} reads is all one split, train; choose by files and max_bytes, "
                    "and give validation text as validation: PATH"
                )
        if self.validation is not None and self.validation_split is not None:
            raise ValueError("give validation (a path) or validation_split (of the dataset), not both")
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(f"max_chars is {self.max_chars}, below min_chars {self.min_chars}: nothing would be left")
        return self

    def rules(self) -> tuple[Rule, ...]:
        """The rules of ``filter``, read."""
        return tuple(map(parse_rule, self.filter))


class DataConfig(_Section):
    """Where the text comes from and how it becomes sequences.

    ``source`` is the short form of one path; ``sources`` names several sources (or one with options).
    ``text_field``, ``max_bytes`` and ``validation_share`` then are what a source has that does not say
    otherwise. ``mixture`` gives the share of each in the training sequences, "wiki:0.7,books:0.3"; without
    it they are mixed by size, so that every sequence is seen once an epoch.

    ``tokenizer`` is an existing one (a folder, a file, a name on the Hugging Face Hub), or how many entries one has
    that is trained on the text: of ``tokenizer_kind``, and of text in lower case with ``tokenizer_lowercase``.

    ``bos`` says whether a bos token stands before each document; ``auto`` does so where weights are continued whose
    tokenizer begins a text with it.
    """

    source: Place | None = None
    sources: dict[Name, SourceConfig] = {}
    mixture: str | None = None
    validation: Place | None = None
    text_field: str = "text"
    max_bytes: Count | None = None
    validation_share: Share = 0.02
    tokenizer: Annotated[
        Count | Place,
        Expected("a number of entries such as 4096, or the folder, file or name of a tokenizer"),
    ] = 4096
    tokenizer_kind: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    tokenizer_lowercase: bool = False
    bos: bool | Literal["auto"] = "auto"
    sequence_length: int = Field(default=256, ge=2)
    strict: bool = False

    @model_serializer(mode="wrap")
    def _without_what_is_rare(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        record: dict[str, Any] = handler(self)
        if self.bos == "auto":
            record.pop("bos", None)
        return record

    @model_validator(mode="before")
    @classmethod
    def _sources_have_the_defaults_of_the_section(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if not data.get("sources"):
            return data if data.get("source") is not None else {**data, "source": BUILTIN}
        if not isinstance(data["sources"], dict):
            return data
        shared = {"text": "text_field", "max_bytes": "max_bytes", "validation_share": "validation_share"}
        common = {key: data[name] for key, name in shared.items() if name in data}
        return {
            **data,
            "sources": {
                name: {**common, **source} if isinstance(source, dict) else source
                for name, source in data["sources"].items()
            },
        }

    @model_validator(mode="after")
    def _is_one_or_several(self) -> "DataConfig":
        if self.sources and self.source is not None:
            raise ValueError("give source (one path) or sources (by name), not both; data.source=null removes it")
        if self.sources and self.validation is not None:
            raise ValueError("validation belongs to the short form; give each of the sources its own")
        if isinstance(self.tokenizer, str) and (self.tokenizer_kind != "bpe" or self.tokenizer_lowercase):
            raise ValueError(
                f"tokenizer_kind and tokenizer_lowercase are of a tokenizer that is trained, but tokenizer is "
                f"{self.tokenizer!r}, one that exists; remove them, or give its number of entries"
            )
        if self.tokenizer_lowercase and self.tokenizer_kind == "bpe":
            raise ValueError("a byte-level BPE keeps a text as it is; tokenizer_lowercase is for wordpiece and unigram")
        self.weights()
        return self

    def named_sources(self) -> dict[str, SourceConfig]:
        """The sources by name; the one of the short form is called "data"."""
        if self.source is None:
            return self.sources
        return {
            "data": SourceConfig(
                path=self.source,
                text=self.text_field,
                max_bytes=self.max_bytes,
                validation=self.validation,
                validation_share=self.validation_share,
            )
        }

    def weights(self) -> dict[str, float] | None:
        """Each source's share of the training sequences, summing to 1; None where it follows from their size.

        Raises:
            ValueError: ``mixture`` does not give every source one number from 0 on.
        """
        if self.mixture is None:
            return None
        expected = f"expected a weight for each of {', '.join(self.sources) or 'the sources, which are missing'}"
        given: dict[str, float] = {}
        for part in self.mixture.split(","):
            name, _, number = (piece.strip() for piece in part.rpartition(":"))
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            if name in given or not (name in self.sources and 0 <= weight <= _LARGEST_WEIGHT):
                raise ValueError(
                    f"mixture: {part.strip()!r} is not a source and its weight; {expected}, like 'a:2,b:1'"
                )
            given[name] = weight
        if set(given) != set(self.sources) or not sum(given.values()):
            raise ValueError(f"mixture {self.mixture!r}: {expected} (0 to validate on it only), not all of them 0")
        total = math.fsum(given.values())
        return {name: given[name] / total for name in self.sources}
