"""What every refusal must say."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from raptr.errors import RaptrError


def refused(build: Callable[[], Any], given: Sequence[str], expected: Sequence[str]) -> None:
    """The call is refused in one message that says what was given and what is expected."""
    with pytest.raises(RaptrError) as caught:
        build()
    message = str(caught.value)
    for part in (*given, *expected):
        assert part in message, f"{part!r} is not in: {message}"
    assert message.endswith("."), message
    assert "  " not in message, message
