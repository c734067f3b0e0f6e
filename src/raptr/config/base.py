"""What every section of a configuration has in common."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""Of a run, a method or a source: it is part of file names."""

Place = Annotated[str, Field(min_length=1)]
"""A path, or a name on the Hub. An empty text would be the current folder."""

SECTION = ConfigDict(extra="forbid", frozen=True, strict=True)
"""Of every section: unknown keys are errors, values are not converted, and nothing changes afterwards."""


@dataclass(frozen=True)
class Expected:
    """Annotation of a type that is a union: the values it takes, in the words of an error message."""

    values: str


CountOrShare = Annotated[int | float, Expected("a number of steps, or a share of the run such as 0.1")]
"""Steps of a run."""
