"""The page and the figures: complete, self-contained, escaped, and right in its numbers."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from raptr.report import write_report
from raptr.report.comparison import read_folder
from raptr.report.table import verdict_sentence
from report.html import intruders, page_of, parse
from report.synthetic import METHODS, write_comparison, write_run

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></style><!-- {{7*7}}\u2028</title>"
SHORT = {key: {**options, "steps": options["steps"] // 9} for key, options in METHODS.items()}


def figures_of(html: str) -> dict[str, Any]:
    """The JSON that the page draws."""
    found: dict[str, Any] = json.loads(parse(html).scripts[0])
    return found


def png_size(path: Path) -> tuple[int, int]:
    """Width and height from the header of a PNG."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def edit(path: Path, **changes: Any) -> None:
    """Changes some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_page_is_complete_and_loads_nothing(demo: Path) -> None:
    html = (demo / "report.html").read_text()
    page = parse(html)
    assert intruders(html) == []
    assert "default-src 'none'" in next(
        attributes["content"] for tag, attributes in page.tags if "content" in attributes and "http-equiv" in attributes
    )
    charts = figures_of(html)["charts"]
    assert set(charts) >= {"final", "loss-total_flops", "end-seconds", "loss-tokens", "path-0", "path-1", "grad_norm"}
    asked = {attributes["data-chart"] for _, attributes in page.tags if "data-chart" in attributes}
    assert {name.replace("*", "tokens") for name in asked} <= set(charts)
    assert "url" not in json.dumps(charts)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert "raptr-seed0/config.yaml" in links
    assert all((demo / link).is_file() for link in links)
    assert "content_hash" in page.text
    assert "learning-rate schedule of each method is stretched" in page.text
    assert len(html) < 2_000_000


@pytest.mark.parametrize(
    "added",
    ["<script>1</script>", "<img src=x>", "<p onclick=x>", "<a href=https://example.org>", "<link href=a.css>"],
)
def test_the_search_for_intruders_finds_them(demo: Path, added: str) -> None:
    html = (demo / "report.html").read_text()
    assert intruders(html.replace("<section", f"{added}<section", 1))


def test_figures_are_written_as_png(demo: Path) -> None:
    sizes = {path.name: png_size(path) for path in (demo / "figures").iterdir()}
    assert set(sizes) == {
        *("result.png", "loss-flops.png", "loss-time.png", "loss-tokens.png", "path-map.png", "training.png")
    }
    assert all(1200 < width < 3000 and 150 < height < 4000 for width, height in sizes.values())
    assert [path.name for path in demo.iterdir() if path.name.startswith(".")] == []


def test_the_table_says_what_the_summary_says(demo: Path) -> None:
    methods = json.loads((demo / "summary.json").read_text())["methods"]
    rows = {row["Method"]: row for row in parse((demo / "report.html").read_text()).rows[1:]}
    full, raptr = rows["Full"], rows["RaPTr 6-8-10-12"]
    told = methods["raptr"]
    low, high = told["interval"]
    assert raptr["Validation loss"] == f"{told['mean']:.4f} {low:.4f} to {high:.4f}, n = 3"
    low, high = told["difference_interval"]
    assert raptr["Difference"].replace("−", "-") == f"{told['difference']:+.4f} {low:+.4f} to {high:+.4f}"
    assert raptr["Verdict"] == told["verdict"]
    assert raptr["Steps"] == str(round(told["steps"])) == "447"
    assert raptr["Total FLOPs"] == f"{told['total_flops'] / 1e12:.1f} TFLOP"
    assert raptr["Layer FLOPs"] == f"{told['layer_flops'] / 1e12:.1f} TFLOP"
    assert raptr["Time"] == f"{told['seconds']:.0f} s"
    assert raptr["Tokens"] == f"{told['tokens'] / 1e6:.2f} M"
    assert raptr["Epochs"] == f"{told['epochs']:.2f}"
    assert (full["Difference"], full["Verdict"]) == ("–", "baseline")


def test_nothing_from_the_folder_gets_out_of_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    evil = {
        "command": EVIL,
        "data": {EVIL: EVIL, "source": EVIL, "files": [EVIL]},
        "model": {"architecture": EVIL},
        "environment": {"platform": EVIL, EVIL: 1},
        "flops": {"convention": EVIL},
    }
    methods = {key: {**options, **evil, "label": EVIL} for key, options in SHORT.items()}
    write_comparison(folder, methods=methods, seeds=2)
    summary = json.loads((folder / "summary.json").read_text())
    for told in summary["methods"].values():
        told.update(label=EVIL, verdict=EVIL)
    edit(folder / "summary.json", name=EVIL, budget=EVIL, notes=[EVIL, EVIL], methods=summary["methods"])
    for path in (folder / "comparison.yaml", *folder.glob("*/config.yaml")):
        path.write_text(f"note: {EVIL}\n")
    for path in folder.glob("*/run.json"):
        plan = json.loads(path.read_text())["plan"]
        plan["stacks"] = [{"name": EVIL, "layers": 12}]
        edit(path, plan=plan, name=EVIL)
    (folder / "full-seed0").rename(folder / "<img src=x onerror=1>&\"'-seed0")
    html = page_of(folder)
    assert intruders(html) == []
    assert html.lower().count("</script") == 3
    assert html.lower().count("</style") == 1
    assert html.lower().count("</title") == 1
    assert "\u2028" not in parse(html).scripts[0]
    page = parse(html)
    assert EVIL in page.text  # shown, not swallowed
    assert figures_of(html)["methods"][0].startswith(EVIL)
    assert "&" not in page.scripts[0]
    assert "<" not in page.scripts[0]


def test_unfinished_runs_are_shown_as_that(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path / "c", methods={"full": SHORT["full"], "raptr": {**SHORT["raptr"], "done": 20}}, summary=False
    )
    (folder / "raptr-seed2" / "metrics.jsonl").unlink()
    sentence = verdict_sentence(read_folder(folder))
    assert sentence == "Not finished yet: 3 of 6 runs are done, and nothing is decided."
    assert write_report(folder).is_file()
    page = parse((folder / "report.html").read_text())
    rows = {row["Method"]: row for row in page.rows[1:]}
    assert rows["RaPTr 6-8-10-12"]["Verdict"] == "unfinished 0 of 3 runs finished"
    assert "unfinished: step 20 of 49" in page.text
    assert "unfinished: step 0 of 49" in page.text


@pytest.mark.parametrize(("done", "said"), [(None, "finished 60 steps in"), (25, "25 of 60 steps are done")])
def test_a_single_run_has_facts_instead_of_a_table(tmp_path: Path, done: int | None, said: str) -> None:
    folder = write_run(tmp_path / "run", steps=60, done=done, nan_from=20 if done else None)
    html = write_report(folder).read_text()
    page = parse(html)
    assert intruders(html) == []
    assert page.rows == []
    assert said in page.text
    assert "final" not in figures_of(html)["charts"]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all((folder / link).is_file() for link in links)
    assert {path.name for path in (folder / "figures").iterdir()} == {
        *("loss-flops.png", "loss-time.png", "loss-tokens.png", "path-map.png", "training.png")
    }


def test_one_seed_with_a_diverged_method(tmp_path: Path) -> None:
    methods = {**SHORT, "wild": {**SHORT["raptr"], "label": "Wild", "nan_from": 10}}
    folder = write_comparison(tmp_path / "c", methods=methods, seeds=1)
    html = write_report(folder).read_text()
    rows = {row["Method"]: row for row in parse(html).rows[1:]}
    assert rows["RaPTr 6-8-10-12"]["Verdict"] == "one seed: no interval"
    assert " to " not in rows["RaPTr 6-8-10-12"]["Difference"]
    assert rows["RaPTr 6-8-10-12"]["Validation loss"].endswith(" n = 1")
    assert rows["Wild"]["Validation loss"] == "– n = 1"
    assert "NaN" not in parse(html).scripts[0]


def test_fifteen_methods(tmp_path: Path) -> None:
    methods = {"full": SHORT["full"]}
    methods |= {f"m{number}": {**SHORT["raptr"], "label": f"Variant {number}"} for number in range(14)}
    html = page_of(write_comparison(tmp_path / "c", methods=methods, seeds=2))
    assert len(parse(html).rows) == 16
    assert len([name for name in figures_of(html)["charts"] if name.startswith("path-")]) == 15
    assert intruders(html) == []


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"verdict": "better by 0.031"}, "RaPTr 6-8-10-12 ends better than Full at equal total FLOPs: its validation"),
        ({"verdict": "too short to decide"}, "Too short to decide: RaPTr 6-8-10-12 ends"),
        ({"verdict": "one seed: no interval", "difference_interval": None}, "One seed only: RaPTr 6-8-10-12 ends"),
        ({"verdict": "new words", "difference": None}, "RaPTr 6-8-10-12 against Full at equal total FLOPs: new words."),
    ],
)
def test_the_verdict_in_one_sentence(tmp_path: Path, change: dict[str, Any], start: str) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT, seeds=2)
    methods = json.loads((folder / "summary.json").read_text())["methods"]
    methods["raptr"].update(change)
    edit(folder / "summary.json", methods=methods)
    assert verdict_sentence(read_folder(folder)).startswith(start)


def test_two_stacks_have_two_panels(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=12)
    plan = json.loads((folder / "run.json").read_text())["plan"]
    plan["stacks"] = [{"name": "encoder", "layers": 12}, {"name": "decoder", "layers": 6}]
    for stage in plan["stages"]:
        stage["sizes"] = [stage["sizes"][0], 3]
    edit(folder / "run.json", plan=plan)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train":
            line["layers"].append([0, 2, 5])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = page_of(folder)
    assert [name for name in figures_of(html)["charts"] if name.startswith("path-")] == ["path-0", "path-1"]
    assert "RaPTr 6-8-10-12 · decoder" in parse(html).text
