"""The table of docs/families.md."""

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "families.md"


def rows() -> dict[str, list[str]]:
    """Name of a row of the table -> its other cells."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOCS.read_text("utf-8").splitlines()]
    return {row[0]: row[1:] for row in cells if len(row) == 4 and row[1].startswith("`")}
