"""What `raptr methods` and `raptr presets` print.

Apart from `show`, which takes a second to load what reports are drawn with.
"""

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from raptr.config.catalogue import SHAPE, STEPS, Entry, Preset


def show_methods(console: Console, entries: Sequence[Entry]) -> None:
    """A line for each method, with its expected layer FLOPs."""
    table = Table("method", box=box.SIMPLE_HEAD)
    table.add_column("layer FLOPs*", justify="right")
    table.add_column("what it does")
    for entry in entries:
        table.add_row(entry.key, f"{entry.share:.1%}", entry.line)
    console.print(table, highlight=False)
    console.print(
        "* expected, of full training's for as many steps: "
        f"{SHAPE.layers[0]} equal layers, default settings, {STEPS:,} steps.\n"
        "`raptr methods NAME` shows a method's card. A saving in FLOPs is not a saving at equal loss: "
        "`raptr compare` measures that.",
        highlight=False,
        soft_wrap=True,
    )


def show_card(console: Console, card: str) -> None:
    """A method's card, without the marks of its computed parts."""
    console.print(Markdown(re.sub(r"<!--.*?-->\n", "", card), hyperlinks=False))


def show_presets(console: Console, entries: Sequence[Preset]) -> None:
    """A line for each preset."""
    table = Table("preset", "architecture", box=box.SIMPLE_HEAD)
    for column in ("parameters", "layers"):
        table.add_column(column, justify="right")
    table.add_column("objective")
    table.add_column("method and schedule")
    for entry in entries:
        layers = " + ".join(map(str, entry.layers))
        table.add_row(entry.name, entry.architecture, f"{entry.parameters:,}", layers, entry.objective, entry.method)
    console.print(table, highlight=False)
    console.print(
        "`raptr presets NAME` prints a preset's file, with the source of every value; `raptr plan NAME` and "
        "`raptr inspect NAME` say what it costs, `raptr train NAME` trains it.",
        highlight=False,
        soft_wrap=True,
    )
