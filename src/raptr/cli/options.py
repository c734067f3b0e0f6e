"""Arguments and options that several verbs of the command line take."""

import os
from pathlib import Path
from typing import Annotated

import typer

from raptr.errors import STOPPED

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...",
        help="A YAML file or a preset's name (default: the preset 'demo'), then values to override in it, "
        "e.g. training.max_steps=100.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The folder to write to. Default: runs/<name>.", show_default=False),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Where tokenized data is kept. Default: $RAPTR_CACHE or ~/.cache/raptr.", show_default=False),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        help=f"Stop after so many minutes, with a checkpoint and exit code {STOPPED}; the same command goes on.",
        show_default=False,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad file or record of the data.")]
Workers = Annotated[
    int,
    typer.Option(
        help="Runs at a time, each with its share of the cores and one GPU; 0: one on each GPU, or else on each core. "
        "Faster where models are small; a run's seconds are then of little use."
    ),
]


def names_in(text: str) -> list[str]:
    """Names that an option lists, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def cache_folder(given: Path | None) -> Path:
    """Where tokenized data is kept."""
    if given is not None:
        return given
    if os.environ.get("RAPTR_CACHE"):
        return Path(os.environ["RAPTR_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raptr"
