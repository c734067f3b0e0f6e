"""The request to stop a run: a signal (preemption, Ctrl-C) or a limit of time."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from raptr.errors import RaptrError


class Stop:
    """Whether a run is to stop, and why.

    Args:
        minutes: of wall clock from now, after which it is; None for no limit.

    Attributes:
        reason: why it is to stop; None while it is not.

    Raises:
        RaptrError: ``minutes`` is not above 0.

    Example:
        >>> Stop(minutes=1e-9).reason
        'after 1e-09 minutes'
        >>> Stop().reason is None
        True
    """

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not minutes > 0:
            raise RaptrError(f"--max-minutes is {minutes:g}; expected a number above 0.")
        self._minutes = minutes
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._signal: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the run is to stop; None while it is not."""
        if self._signal is not None:
            return f"on {self._signal}"
        if self._end is not None and time.monotonic() >= self._end:
            return f"after {self._minutes:g} minutes"
        return None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to stop. The second one does at once what it always does."""
        if threading.current_thread() is not threading.main_thread():  # only there can signals be heard
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def heard(number: int, frame: FrameType | None) -> None:
            self._signal = signal.Signals(number).name
            give_back()

        def give_back() -> None:
            for number, handler in before.items():
                if signal.getsignal(number) is heard:
                    signal.signal(number, handler)

        for number in before:
            signal.signal(number, heard)
        try:
            yield
        finally:
            give_back()
