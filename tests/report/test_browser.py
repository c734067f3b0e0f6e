"""The page in a real Chromium, where there is one."""

from pathlib import Path

import pytest

from report.browser import Page, chromium, find_chromium
from report.html import page_of
from report.synthetic import METHODS, write_comparison

TOGGLE = "document.querySelectorAll('.chip')[0].click()"
MARKS = "document.querySelectorAll('[data-chart=\"loss-*\"] .mark-line.role-mark path').length"
SIDEWAYS = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - innerWidth"
BLANK = "[...document.querySelectorAll('.chart')].filter(one => one.querySelector('svg, canvas') === null).length"


def check(page: Page) -> None:
    """Everything is drawn, nothing went wrong, nothing sticks out, nothing was loaded."""
    assert page.problems == []
    assert page.evaluate(BLANK) == 0
    assert page.evaluate(SIDEWAYS) <= 0
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_report_in_a_browser(demo: Path, tmp_path: Path) -> None:
    binary = find_chromium()
    if binary is None:
        pytest.skip("no chromium on this machine")
    many = tmp_path / "many"
    short = {"full": {**METHODS["full"], "steps": 30}}
    short |= {f"m{n}": {**METHODS["raptr"], "steps": 40, "label": f"A rather long name {n}"} for n in range(14)}
    write_comparison(many, methods=short, seeds=1)
    (many / "report.html").write_text(page_of(many))
    with chromium(binary, tmp_path / "profile") as page:
        for folder in (demo, many):
            for width in (1280, 390):
                page.open(folder / "report.html", width, dark=width == 390)
                check(page)
        page.open(demo / "report.html", 1280)
        before = page.evaluate(MARKS)
        page.evaluate(TOGGLE)
        page.wait(f"{MARKS} < {before}")
        assert page.evaluate("document.querySelectorAll('figure[data-method=\"0\"][hidden]').length") == 1
        page.evaluate(TOGGLE)
        page.wait(f"{MARKS} === {before}")
        page.evaluate("document.querySelector('input[value=tokens]').click()")
        page.wait("document.querySelector('#loss').textContent.includes('Tokens seen')")
        page.theme(dark=True)
        page.wait("document.querySelector('#loss svg text').getAttribute('fill') === '#9aa5b4'")
        page.evaluate("document.querySelectorAll('th button')[0].click()")
        assert page.evaluate("document.querySelector('th[aria-sort]').textContent") == "Steps"
        check(page)
        page.evaluate("console.error('seen?')")  # the check would notice
        page.wait("true")
        assert len(page.problems) == 1
