"""HTML and script in names, files and messages stay text on a page, wherever they stand: the rest of test_page.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.html_page import Page, intruders, page_of, parse
from helpers.synthetic_runs import METHODS, write_comparison, write_run
from raptr.errors import RaptrError
from raptr.report import write_report
from raptr.report.page import render
from raptr.results.folder import read_folder

pytestmark = pytest.mark.slow

SHORT = {key: {**options, "steps": options["steps"] // 9} for key, options in METHODS.items()}
SCRIPTS = 3  # the page's own
EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]><svg/onload=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '<a href="javascript:alert(1)">x</a>',
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "</style><style>@import url(//example.org)</style>",
    "</title></textarea></noscript></code></pre><b>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;b&#62;",
    "{{ 7 * 7 }}{% raw %}{# #}{{ figures }}",
    "'];alert(1);//${alert(1)}`\\\u2028\u0000",
    '"]}, {"expr": "alert(1)"}',
    "javascript:alert(1)//",
]
NAMES = [text for text in EVIL if "/" not in text and "\0" not in text] + ["javascript:alert(1)"]
"""What a folder can be called."""


def edit(path: Path, **changes: Any) -> None:
    """Change some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def clean(html: str) -> Page:
    """The page, which has its own elements and scripts only."""
    assert intruders(html) == []
    lower = html.lower()
    assert (lower.count("</script"), lower.count("</style"), lower.count("</title")) == (SCRIPTS, 1, 1)
    page = parse(html)
    assert "<" not in page.scripts[0]
    figures = json.loads(page.scripts[0])
    assert not [part for chart in figures["charts"].values() for part in expressions(chart) if "alert(" in part]
    return page


def expressions(spec: Any) -> list[str]:
    """What Vega evaluates of a chart."""
    if isinstance(spec, list):
        return [found for part in spec for found in expressions(part)]
    if not isinstance(spec, dict):
        return []
    own = [str(spec[key]) for key in ("expr", "calculate", "filter", "test", "labelExpr", "signal") if key in spec]
    return own + [found for part in spec.values() for found in expressions(part)]


@pytest.mark.parametrize("text", [" ".join(EVIL), EVIL[1]], ids=["all", "one"])
def test_of_a_single_run(text: str, tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        steps=30,
        sources=(text, "other"),
        method=text,
        label=text,
        command=text,
        data={text: {text: [text]}, "source": text, "skipped_first": [text]},
        model={"architecture": text, text: text},
        environment={"platform": text, "cpu": text, text: [text]},
        changes=[{"key": text, "old": text, "new": text, "after_step": 3}],
        control=text,
    )
    plan = json.loads((folder / "run.json").read_text())["plan"]
    plan["stacks"] = [{"name": text, "layers": 12}]
    edit(folder / "run.json", plan=plan, name=text)
    (folder / "config.yaml").write_text(f"name: {text}\n")
    edit(folder / "result.json", message=text, **{text: text})
    page = clean(page_of(folder))
    assert text.replace("\0", "\ufffd") in page.text.replace("\0", "\ufffd"), "shown as it is"


def test_of_folders_and_keys_of_a_comparison(tmp_path: Path) -> None:
    methods = {"full": SHORT["full"], **{name: {**SHORT["raptr"], "label": name} for name in NAMES}}
    folder = write_comparison(tmp_path / NAMES[0], methods=methods, seeds=1)
    (folder / "comparison.yaml").write_text(" ".join(EVIL))
    for name in NAMES:
        write_run(folder / f"{name}-other", method=name, steps=20)
    page = clean(page_of(folder))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert sum("config.yaml" in link for link in links) == len(methods)
    assert not [link for link in links if ":" in link]
    keys = {attributes["data-method"] for _, attributes in page.tags if "data-method" in attributes}
    assert keys == set(methods), "in an attribute a key is its whole value"


def test_of_several_comparisons_and_of_the_files_that_are_written(tmp_path: Path) -> None:
    text = EVIL[1]
    folders = [write_comparison(tmp_path / name, methods=SHORT, seeds=2) for name in ("a", "b")]
    for folder in folders:
        edit(folder / "comparison.json", name=text, budget=text, notes=EVIL)
    page = clean(render([read_folder(folder) for folder in folders], tmp_path))
    assert all(note in page.text.replace("\r", "") for note in EVIL if "\0" not in note)
    clean(write_report(folders[0]).read_text(encoding="utf-8"))


def test_a_message_is_no_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=20)
    for text in EVIL:
        line = {"kind": "train", "step": 1, "layers": text, "loss": text}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        with pytest.raises(RaptrError):
            write_report(folder)
        assert not (folder / "report.html").exists()
    lines = [json.dumps({"kind": text, "step": 1, text: text}) + "\n" for text in EVIL]
    (folder / "metrics.jsonl").write_text("".join(lines))
    clean(page_of(folder))
