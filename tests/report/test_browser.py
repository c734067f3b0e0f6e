"""The page in a real Chromium, where there is one; with RAPTR_REQUIRE_BROWSER=1 there has to be."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.browser import Page, chromium, find_chromium
from helpers.html_page import page_of
from helpers.synthetic_runs import METHODS, sweep_of, write_comparison, write_run
from raptr.report.page import render
from raptr.results import read_folder

pytestmark = pytest.mark.slow

SHORT = {key: {**options, "steps": options["steps"] // 9} for key, options in METHODS.items()}
WIDTHS = (1280, 390)

TOGGLE = "document.querySelectorAll('.chip')[0].click()"
MARKS = "document.querySelectorAll('[data-chart=\"0/loss-*\"] .mark-line.role-mark path').length"
# Not innerWidth: on a phone it grows with what sticks out.
SIDEWAYS = (
    "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - document.documentElement.clientWidth"
)
CHARTS = "document.querySelectorAll('.chart').length"
# A chart is blank if it has no picture, an SVG without any drawn path or text, or a canvas of one colour.
# What is folded away is not drawn.
BLANK = """[...document.querySelectorAll('.chart')].filter(chart => {
  if (chart.closest('details:not([open])')) return false;
  const svg = chart.querySelector('svg'), canvas = chart.querySelector('canvas');
  if (svg) return !(svg.clientWidth > 100 && svg.querySelector('.role-mark path, .role-mark text'));
  if (!canvas || canvas.width < 100) return true;
  const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return new Set(pixels).size < 3;
}).map(chart => chart.dataset.chart)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests of this file."""
    binary = find_chromium()
    if binary is None:
        if os.environ.get("RAPTR_REQUIRE_BROWSER") == "1":
            pytest.fail("RAPTR_REQUIRE_BROWSER is 1, but there is no chromium on this machine")
        pytest.skip("no chromium on this machine")
    with chromium(binary, tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    """The browser with nothing noted yet."""
    browser.problems.clear()
    browser.requests.clear()
    return browser


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of every kind."""
    root = tmp_path_factory.mktemp("reports")
    many = {"full": SHORT["full"]}
    many |= {f"m{n}": {**SHORT["raptr"], "label": f"A rather long name {n}"} for n in range(14)}
    unfinished = {**SHORT, "slow": {**SHORT["raptr"], "label": "Slow", "done": 20}}
    sweep = sweep_of({"full": {1e-3: 3.9, 2e-3: 3.8}, "raptr": {1e-3: 3.9, 2e-3: 3.7}})
    write_comparison(root / "many", methods=many, seeds=2)
    write_comparison(root / "unfinished", methods=unfinished, missing=("raptr-seed2", "slow-seed1"))
    write_comparison(root / "tuned", methods=SHORT, sweep=sweep, sources=("wiki", "code"))
    write_run(root / "single", steps=60)
    for name in ("many", "unfinished", "tuned", "single"):
        (root / name / "report.html").write_text(page_of(root / name))
    several = [read_folder(root / name) for name in ("tuned", "unfinished", "single")]
    (root / "several").mkdir()
    (root / "several" / "report.html").write_text(render(several, root / "several"))
    return root


def check(page: Page) -> None:
    """Everything is drawn, nothing went wrong, nothing sticks out, nothing was loaded."""
    assert page.problems == []
    assert page.evaluate(CHARTS) > 5
    assert page.evaluate(BLANK) == []
    assert page.evaluate(SIDEWAYS) <= 0
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1  # the page itself


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["many", "unfinished", "tuned", "single", "several"])
def test_every_kind_of_report_is_drawn(page: Page, folders: Path, name: str, width: int) -> None:
    page.open(folders / name / "report.html", width, dark=width == 390)
    check(page)


def test_methods_axes_and_themes_switch_and_tables_sort(page: Page, demo: Path) -> None:
    page.open(demo / "report.html", 1280)
    before = page.evaluate(MARKS)
    page.evaluate(TOGGLE)
    page.wait(f"{MARKS} < {before}")
    assert page.evaluate("document.querySelectorAll('figure[data-method=full][hidden]').length") == 1
    assert page.evaluate("document.querySelectorAll('.chip[aria-pressed=false]').length") == 3  # wherever it is shown
    page.evaluate(TOGGLE)
    page.wait(f"{MARKS} === {before}")
    page.evaluate("document.querySelector('input[value=tokens]').click()")
    page.wait("document.querySelector('#loss').textContent.includes('Tokens seen')")
    page.theme(dark=True)
    page.wait("document.querySelector('#loss svg text').getAttribute('fill') === '#9aa5b4'")
    first = "document.querySelector('#result tbody th').textContent"
    assert page.evaluate(first) == "Full"
    for expected in ("Full", "RaPTr 6-8-10-12"):  # steps rising, then falling
        page.evaluate(
            "[...document.querySelectorAll('#result th button')].find(b => b.textContent === 'Steps').click()"
        )
        assert page.evaluate("document.querySelector('th[aria-sort]').textContent") == "Steps"
        assert page.evaluate(first) == expected
    check(page)


@pytest.mark.parametrize("width", WIDTHS)
def test_many_methods_are_switched_at_once_sorted_and_unfolded(page: Page, folders: Path, width: int) -> None:
    page.open(folders / "many" / "report.html", width)
    pressed = "document.querySelectorAll('#loss .chip[aria-pressed=true]').length"
    page.evaluate("document.querySelector('#loss .every[data-every=off]').click()")
    assert page.evaluate(pressed) == 0
    page.wait(f"{MARKS} === 0")
    page.evaluate("document.querySelectorAll('#loss .chip')[3].click()")
    page.wait(f"{MARKS} > 0")
    # one method, two seeds: its mean and its seeds, of both charts
    assert page.evaluate("document.querySelectorAll('figure[data-method]:not([hidden])').length") == 1
    page.evaluate("document.querySelector('#loss .every[data-every=on]').click()")
    assert page.evaluate(pressed) == 15
    # a table of many rows sorts on a phone too: its heads are there, and its names stay in view
    assert page.evaluate("document.querySelector('#result thead').getClientRects().length") == 1
    page.evaluate("document.querySelector('#result th button').click()")
    assert page.evaluate("document.querySelector('#result th[aria-sort]').textContent") == "Validation loss"
    page.evaluate("document.querySelector('#result .table').scrollLeft = 200")
    left = "document.querySelector('#result tbody th').getBoundingClientRect().left"
    assert page.evaluate(f"{left} >= 0 && {left} < 60")
    folded = "[...document.querySelectorAll('#paths details .chart')]"
    assert page.evaluate(f"{folded}.length") == 9
    assert page.evaluate(f"{folded}.every(chart => !chart.querySelector('canvas'))")
    page.evaluate("document.querySelector('#paths details').open = true")
    page.wait(f"{folded}.every(chart => chart.querySelector('canvas')?.width > 100) && {BLANK}.length === 0")
    check(page)


TOOLTIP = "(document.querySelector('#vg-tooltip-element.visible')?.innerText ?? '')"


@pytest.mark.parametrize("chart", ["0/loss-*", "0/end-*", "0/loss", "0/grad_norm"])
def test_pointing_at_a_curve_names_the_method(page: Page, demo: Path, chart: str) -> None:
    page.open(demo / "report.html", 1280)
    assert page.evaluate(TOOLTIP) == ""
    page.point(f'[data-chart="{chart}"]', 0.5, 0.5)
    page.wait(f"{TOOLTIP} !== ''")
    said = page.evaluate(TOOLTIP)
    assert "Full" in said or "RaPTr 6-8-10-12" in said
    assert "undefined" not in said
    assert "null" not in said


def test_a_growing_method_and_a_smaller_model_are_drawn(page: Page, tmp_path: Path) -> None:
    methods = {
        **SHORT,
        "stacking": {"label": "Stacking", "sizes": (3, 8.7, 12), "steps": 60, "grows": True},
        "smaller": {"label": "Smaller", "sizes": (9,), "layers": 9, "steps": 60, "control": "smaller"},
    }
    folder = write_comparison(tmp_path / "grows", methods=methods, seeds=2, sources=("wiki", "code"))
    (folder / "report.html").write_text(page_of(folder))
    for width in WIDTHS:
        page.requests.clear()
        page.open(folder / "report.html", width)
        check(page)
        if width > 600:
            page.evaluate("document.querySelector('#loss .every[data-every=off]').click()")
            page.evaluate("document.querySelector('#loss .chip[data-method=stacking]').click()")
            page.wait(f"{MARKS} > 0")
            page.point('[data-chart="0/loss-*"]', 0.12, 0.3)
            page.wait(f"{TOOLTIP} !== ''")
            assert "the part trained so far (full model: 7" in page.evaluate(TOOLTIP)
        ticks = "[...document.querySelectorAll('[data-chart=\"0/loss-*\"] .role-axis-label text')]"
        assert max(float(one) for one in page.evaluate(f"{ticks}.map(one => one.textContent)")) < 70


def test_a_validation_source_is_chosen(page: Page, folders: Path) -> None:
    page.open(folders / "tuned" / "report.html", 1280)
    label = "document.querySelector('[data-chart=\"0/end-*\"] .mark-line.role-mark path').getAttribute('aria-label')"
    together = page.evaluate(label)
    page.evaluate("document.querySelectorAll('input[name=source-0]')[2].click()")
    page.wait(f"{label} !== {together!r}")
    check(page)


def test_a_method_is_switched_off_in_all_comparisons(page: Page, folders: Path) -> None:
    page.open(folders / "several" / "report.html", 1280)
    page.evaluate("document.querySelector('#c0-loss .chip[data-method=raptr]').click()")
    pressed = "document.querySelectorAll('.chip[data-method=raptr][aria-pressed=true]').length"
    assert page.evaluate(pressed) == 0
    assert page.evaluate("document.querySelectorAll('#c1-loss .chip[aria-pressed=true]').length") == 2
    # the other comparison's switch of axes is its own
    page.evaluate("document.querySelector('#c1-loss input[value=tokens]').click()")
    page.wait("document.querySelector('#c1-loss').textContent.includes('Tokens seen')")
    assert "Tokens seen" not in page.evaluate("document.querySelector('#c0-loss').textContent")
    page.evaluate("document.querySelector('#c1-loss .chip[data-method=raptr]').click()")
    page.wait(f"{BLANK}.length === 0")
    check(page)


def test_the_checks_notice_what_they_look_for(page: Page, folders: Path) -> None:
    page.open(folders / "single" / "report.html", 390)
    page.evaluate("console.error('seen?')")
    page.evaluate("document.querySelector('.chart svg').replaceChildren()")
    page.evaluate("document.querySelector('.chart canvas').getContext('2d').reset()")
    assert len(page.evaluate(BLANK)) == 2
    page.evaluate("document.querySelector('h1').style.width = '900px'")
    assert len(page.problems) == 1
    assert page.evaluate(SIDEWAYS) > 0
    page.evaluate("fetch('https://example.org').catch(() => 0)")
    page.wait("true")
    assert len(page.problems) > 1  # the page's policy refuses it, loudly
