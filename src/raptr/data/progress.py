"""What is shown while data is prepared: a line that says so, and a progress bar for what takes more than a moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from raptr.config import DataConfig
from raptr.config.data import BUILTIN

_MOMENT = 0.7  # seconds

_NAMED, _LONG = 3, 200  # sources that are named, and characters of a name


def say_preparing(console: Console, data: DataConfig) -> None:
    """One line before data is prepared, on a terminal or not: of much text that takes minutes.

    Example:
        >>> say_preparing(Console(width=200), DataConfig(source="texts", tokenizer=300))
        preparing texts: reading, training a tokenizer of 300 entries, tokenizing; what is stored already is used again
    """
    sources = list(data.named_sources().values())
    names = [_short(source.path or source.dataset or "") for source in sources[:_NAMED]]
    if len(sources) > _NAMED:
        names.append(f"{len(sources) - _NAMED} more")
    whole = any(source.path == BUILTIN and source.max_bytes is None for source in sources)
    limit = " (all of it, which takes minutes; data.max_bytes sets a limit)" if whole else ""
    if isinstance(data.tokenizer, int):
        work = f"training a tokenizer of {data.tokenizer:,} entries, tokenizing"
    else:
        work = f"tokenizing with {_short(data.tokenizer)}"
    line = f"preparing {', '.join(names)}{limit}: reading, {work}; what is stored already is used again"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _short(name: str) -> str:
    return name if len(name) <= _LONG else f"{name[:_LONG]}..."


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar that counts bytes and says how many a second, shown from 0.7 seconds on and on terminals only.

    Args:
        title: what is being done.
        total: the bytes to come; None where that is not known.

    Returns:
        A context manager; its value is called with the bytes done since the last call.

    Example:
        >>> with progress("Reading", total=3) as advance:
        ...     advance(3)
    """
    console = Console(stderr=True)
    text, speed = TextColumn("{task.description}"), TransferSpeedColumn()
    columns = (text, BarColumn(), DownloadColumn(), speed, TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(title, total=total)
    since = time.monotonic()

    def advance(count: int) -> None:
        bar.advance(task, count)
        if not bar.live.is_started and console.is_terminal and time.monotonic() - since > _MOMENT:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
