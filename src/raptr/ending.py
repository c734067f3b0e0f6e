"""How a command ends: its exit code, and the one message that goes with it."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console

from raptr.errors import STOPPED, RaptrError, Stopped

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def ended() -> Iterator[None]:
    """Exit code 2 and one message for what a user can mend, no traceback; with RAPTR_TRACEBACK set, that too."""
    try:
        yield
    except RaptrError as error:
        _fail(str(error), 2)
    except OSError as error:
        if error.errno in _FULL:
            _fail(f"{error.strerror}: nothing could be written; free some space, and give the same command again.", 2)
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; give another path, or make this one usable.", 2)


@contextmanager
def interruptible(what_happens: str) -> Iterator[None]:
    """Say what an interruption means, and end with the exit code that shells use for it, or with that of a stop."""
    try:
        yield
    except Stopped as stopped:
        _fail(f"{stopped}; {what_happens}.", STOPPED)
    except KeyboardInterrupt:
        _fail(f"interrupted; {what_happens}.", 130)


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("RAPTR_TRACEBACK"):
        traceback.print_exc()
    Console(stderr=True).print(f"raptr: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
