"""A page taken apart with the standard library, to look for what must not be in it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from raptr.report.page import render
from raptr.results.folder import read_folder

LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "xlink:href"}
ELEMENTS = """
html head meta title style body main header section h1 h2 h3 p noscript code svg line table thead tbody tr th td
button span div article figure figcaption label input i ul li strong a br dl dt dd details summary pre script
"""


def page_of(folder: Path) -> str:
    """Returns the page of a folder without writing anything."""
    return render([read_folder(folder)], folder)


@dataclass
class Page:
    """Tags, scripts, links and cells of a page."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    text: str = ""


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.inside, self.cell = Page(), "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.page.tags.append((tag, found))
        if tag in ("script", "style"):
            self.inside = tag
            (self.page.scripts if tag == "script" else self.page.styles).append("")
        elif tag == "tr":
            self.page.rows.append({})
        elif tag in ("td", "th"):
            self.cell = found.get("data-label", "Method")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""
        if tag in ("td", "th"):
            self.cell = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            (self.page.scripts if self.inside == "script" else self.page.styles)[-1] += data
            return
        self.page.text += data
        if self.cell:
            row = self.page.rows[-1]
            row[self.cell] = f"{row.get(self.cell, '')} {data.strip()}".strip()


def parse(html: str) -> Page:
    """Returns ``html`` taken apart."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.page


def intruders(html: str) -> list[str]:
    """Returns what a page of ours never has: other elements, handlers, whatever loads something."""
    page = parse(html)
    found = [tag for tag, _ in page.tags if tag not in ELEMENTS.split()]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if (
                name.startswith("on")
                or name in LOADING
                or (name == "href" and (":" in value or value.startswith("//")))
            ):
                found.append(f"{tag} {name}={value}")
    found += ["script"] * (len(page.scripts) - 3)
    found += [style for style in page.styles if "url(" in style or "@import" in style]
    return found
