"""What a reading left out: bad records, each reported, those that the user's rules left out, and unread files."""

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console

from raptr.errors import RaptrError

_NAMED = 3  # places named of each kind
_HOPELESS = 10_000  # bad records at the beginning, without a good one


@dataclass
class Omitted:
    """Counts of one reading of a source.

    Args:
        strict: raise at the first bad record or file instead of counting it.

    Attributes:
        records: how many were met, good and bad; a file that cannot be read at all is one.
        filtered: left out by ``filter``, ``min_chars`` or ``max_chars``.
        bad: how many could not be used, by kind.
        first: what was said of the first few of each kind.
        unread: files and links of a folder or pattern that were not opened, by their ending or another reason.
    """

    strict: bool = False
    records: int = 0
    filtered: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)

    def skip(self, kind: str, message: str, count: int = 1) -> None:
        """Count something bad.

        Args:
            kind: "not JSON", say.
            message: the place, what is wrong and what to do.
            count: how many records it is.

        Raises:
            RaptrError: the message, if ``strict``; or nothing but bad records was met for too long.
        """
        if self.strict:
            raise RaptrError(message)
        self.records += count
        self.bad[kind] += count
        said = self.first.setdefault(kind, [])
        if len(said) < _NAMED:
            said.append(message)
        if self.bad.total() == self.records >= _HOPELESS:
            raise RaptrError(f"all of the first {self.records} records are bad.{self._said()}")

    def add(self, other: "Omitted") -> None:
        """Add what another reading counted.

        Raises:
            RaptrError: it holds something bad, and this one is strict.
        """
        if self.strict and other.bad:
            raise RaptrError(next(iter(other.first.values()))[0])
        self.records += other.records
        self.filtered += other.filtered
        self.bad += other.bad
        self.unread += other.unread
        for kind, messages in other.first.items():
            self.first[kind] = [*self.first.get(kind, ()), *messages][:_NAMED]

    def check(self, name: str) -> None:
        """Refuse a source of which more than a tenth is bad; a single bad file or record never is too much.

        Raises:
            RaptrError: with the counts, the first places and what to do.
        """
        bad = self.bad.total()
        if bad > 1 and bad * 10 > self.records:
            raise RaptrError(
                f"{name}: {bad} of {self.records} records are bad, more than a tenth; mend them, or check that the "
                f"column and the rules are the right ones.{self._said()}"
            )

    def report(self, name: str) -> None:
        """Say on stderr what was skipped and which files were not read, if there are any."""
        console = Console(stderr=True)
        if self.unread:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.unread.most_common())
            text = f"{name}: not read ({self.unread.total()} files, folders or links): {kinds}."
            console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
        for kind, count in self.bad.items():
            text = f"{name}: skipped {count} bad {'record' if count == 1 else 'records'} ({kind}):"
            for message in self.first[kind]:
                text += f"\n  {message}"
            if count > len(self.first[kind]):
                text += f"\n  and {count - len(self.first[kind])} more"
            console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _said(self) -> str:
        return "".join(
            f"\n  {count} x {kind}, the first: {self.first[kind][0]}" for kind, count in self.bad.most_common()
        )
