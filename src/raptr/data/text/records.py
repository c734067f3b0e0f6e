"""Records -> documents: which column is the text, and which records are used."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from raptr.config import SourceConfig
from raptr.config.filter_rule import Rule
from raptr.data.text.skipped import Omitted

Document = tuple[str, bytes]
"""A name that is part of the content hash, and the text in UTF-8."""


class Record(NamedTuple):
    """A name for the content hash, the place for messages, and the columns."""

    name: str
    place: str
    columns: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a record is used, and when.

    Args:
        text: the column with the text; dots lead into nested ones.
        rules: all must hold.
        min_chars: the shortest document.
        max_chars: the longest; None for any.
    """

    text: str = "text"
    rules: tuple[Rule, ...] = ()
    min_chars: int = 0
    max_chars: int | None = None

    @classmethod
    def of(cls, source: SourceConfig) -> "Choice":
        """What a source's config says."""
        return cls(text=source.text, rules=source.rules(), min_chars=source.min_chars, max_chars=source.max_chars)

    def roots(self, known: Iterable[str]) -> list[str]:
        """The top-level columns that have to be read, of a table with these columns.

        Raises:
            KeyError: one is missing.

        Example:
            >>> Choice(text="body.text").roots(["id", "body"])
            ['body']
        """
        columns = set(known)
        wanted: dict[str, None] = {}
        for column in (self.text, *(rule.column for rule in self.rules)):
            root = column if column in columns else column.partition(".")[0]
            if root not in columns:
                raise KeyError(column)
            wanted[root] = None
        return list(wanted)

    def documents(self, records: Iterable[Record], omitted: Omitted) -> Iterator[Document]:
        """The text of every record that is used; the others are counted.

        A text of null is an empty document. A rule on a column that is not there, or that cannot be
        compared, makes a record a bad one.
        """
        for record in records:
            name, text = record.name, self._text(record, omitted)
            del record  # its text, which may be long, is not kept while the other is used
            if text is not None:
                yield name, text

    def _text(self, record: Record, omitted: Omitted) -> bytes | None:
        place = record.place
        try:
            chosen = all(rule.holds(_value(record.columns, rule.column)) for rule in self.rules)
            text = _value(record.columns, self.text)
        except KeyError as error:
            omitted.skip("no such column", missing(place, str(error.args[0]), record.columns))
            return None
        except TypeError as error:
            omitted.skip(
                "wrong type",
                f"{place}: {error}; compare with a value of the column's own type "
                "(texts that look like numbers in quotes).",
            )
            return None
        if not isinstance(text, str | None):
            kind = type(text).__name__
            omitted.skip("wrong type", f"{place}: the column {self.text!r} holds a {kind}; expected text.")
            return None
        try:
            content = (text or "").encode("utf8")
        except UnicodeEncodeError as error:
            omitted.skip(
                "half a character",
                f"{place}: the text holds half of a surrogate pair at character {error.start}, which is no "
                "character; remove it.",
            )
            return None
        omitted.records += 1
        size = len(text or "")
        if not chosen or size < self.min_chars or (self.max_chars is not None and size > self.max_chars):
            omitted.filtered += 1
            return None
        return content


def missing(place: str, column: str, seen: Iterable[str]) -> str:
    """What is said of a column that is not there."""
    there = ", ".join(map(repr, seen)) or "none"
    return (
        f"{place}: there is no column {column!r}; seen: {there}. Name the one with the text as `text` of a source, or "
        "as data.text_field, and those of rules in `filter`."
    )


def _value(columns: Mapping[str, Any], name: str) -> Any:
    if name in columns:
        return columns[name]
    value: Any = columns
    for part in name.split("."):
        if value is None:
            return None  # a nested column of nothing
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(name)
        value = value[part]
    return value
