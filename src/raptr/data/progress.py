"""A progress bar on stderr for what takes more than a moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_MOMENT = 0.7  # seconds


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
