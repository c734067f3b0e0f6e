"""Settings of a config's ``training`` section that are raptr's own; all others are arguments of the Trainer."""

from dataclasses import dataclass, fields
from typing import get_type_hints

from pydantic import TypeAdapter, ValidationError

from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.train.setup.expected import words_of


@dataclass(frozen=True, kw_only=True)
class Own:
    """What raptr itself reads of the ``training`` section.

    Attributes:
        probe_memory: whether the full model is run once before the first step, so that what does not fit shows at once;
            by default on accelerators.
        peak_flops: FLOPs per second that one device reaches at best, in the precision of the run; with it the
            utilisation ("mfu") of every step is recorded.
        torch_compile: whether every layer is compiled by itself.
    """

    probe_memory: bool | None = None
    peak_flops: float | None = None
    torch_compile: bool = False


def own_settings(config: RunConfig) -> Own:
    """What a config says of raptr's own settings.

    Raises:
        RaptrError: a value of the wrong type, or a peak that is not above 0.
    """
    given = {field.name: config.training[field.name] for field in fields(Own) if field.name in config.training}
    try:
        own = TypeAdapter(Own).validate_python(given, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        expected = words_of(get_type_hints(Own)[name])
        raise RaptrError(f"training.{name} is {given[name]!r}; expected {expected}.") from error
    if own.peak_flops is not None and not 0 < own.peak_flops < float("inf"):
        raise RaptrError(
            f"training.peak_flops is {own.peak_flops}; expected the FLOPs per second of one device, e.g. 989e12."
        )
    return own


NAMES = frozenset(field.name for field in fields(Own))
"""Their names in the ``training`` section."""
