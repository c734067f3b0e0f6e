"""The page and the figures: complete, self-contained, escaped, and right in its numbers."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from helpers.html_page import intruders, page_of, parse
from helpers.synthetic_runs import METHODS, sweep_of, write_comparison, write_run
from raptr.report import write_report
from raptr.report.figures.build import palette_of, png_specs
from raptr.report.figures.path_panels import panels_of
from raptr.report.page import own_palette, shared_palette
from raptr.report.verdict import verdict_sentence
from raptr.results import summarise
from raptr.results.folder import read_folder

pytestmark = pytest.mark.slow

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></style><!-- {{7*7}}\u2028</title>"
SOME = ("final", "loss-total_flops-0", "end-seconds-0", "loss-tokens-0", "path-0", "path-1", "grad_norm", "speed")
DRAWN = ("loss-flops", "loss-time", "loss-tokens", "path-map", "training", "boundaries", "speed")
PNG = {f"{name}.png" for name in DRAWN}
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
    assert {f"0/{name}" for name in SOME} <= set(charts)
    asked = {attributes["data-chart"] for _, attributes in page.tags if "data-chart" in attributes}
    assert {name.replace("*", "tokens-0") for name in asked} <= set(charts)
    assert all(set(chart["datasets"]) <= set(figures_of(html)["data"]) for chart in charts.values())
    assert "url" not in json.dumps(charts)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert "raptr-seed0/config.yaml" in links
    assert all((demo / link).is_file() for link in links)
    assert "content hash" in page.text
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
    assert set(sizes) == {"result.png", "savings.png"} | PNG
    assert all(1200 < width < 3000 and 150 < height < 4000 for width, height in sizes.values())
    assert [path.name for path in demo.iterdir() if path.name.startswith(".")] == []


def rows_of(html: str, column: str) -> dict[str, dict[str, str]]:
    """The rows of the table that has a column, by method."""
    return {row["Method"]: row for row in parse(html).rows if column in row}


def test_the_table_says_what_the_summary_says(demo: Path) -> None:
    methods = json.loads((demo / "summary.json").read_text())["methods"]
    rows = rows_of((demo / "report.html").read_text(), "Verdict")
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
    sweep = sweep_of({key: {1e-3: 3.0, 2e-3: 2.9} for key in SHORT})
    for trial in sweep["trials"]:
        trial["values"] = {EVIL: EVIL}
    sweep["grid"] = {EVIL: [EVIL]}
    sweep["chosen"] = {key: {EVIL: EVIL} for key in SHORT}
    write_comparison(folder, methods=methods, seeds=2, sources=(EVIL, "b"), sweep=sweep)
    edit(folder / "comparison.json", name=EVIL, budget=EVIL, notes=[EVIL, EVIL])
    for path in (folder / "comparison.yaml", *folder.glob("*/config.yaml")):
        path.write_text(f"note: {EVIL}\n")
    for path in folder.glob("*/run.json"):
        plan = json.loads(path.read_text())["plan"]
        plan["stacks"] = [{"name": EVIL, "layers": 12}]
        edit(path, plan=plan, name=EVIL)
    for seed in range(2):
        edit(folder / f"raptr-seed{seed}" / "run.json", environment={EVIL: 2, "torch": EVIL * seed})
    (folder / "full-seed0").rename(folder / "<img src=x onerror=1>&\"'-seed0")
    html = page_of(folder)
    assert intruders(html) == []
    assert html.lower().count("</script") == 3
    assert html.lower().count("</style") == 1
    assert html.lower().count("</title") == 1
    assert "\u2028" not in parse(html).scripts[0]
    page = parse(html)
    assert EVIL in page.text  # shown, not swallowed
    assert figures_of(html)["sections"][0][0][1].startswith(EVIL)
    assert "Not comparable" in page.text
    assert "&" not in page.scripts[0]
    assert "<" not in page.scripts[0]


def test_unfinished_runs_are_shown_as_that(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path / "c",
        methods={"full": SHORT["full"], "raptr": {**SHORT["raptr"], "done": 20}},
        missing=("full-seed1",),
    )
    (folder / "raptr-seed2" / "metrics.jsonl").unlink()
    sentence = verdict_sentence(read_folder(folder))
    assert sentence == "Not finished yet: 2 of 6 runs are done, and nothing is decided."
    assert write_report(folder).is_file()
    page = parse((folder / "report.html").read_text())
    rows = rows_of((folder / "report.html").read_text(), "Verdict")
    assert rows["RaPTr 6-8-10-12"]["Verdict"] == "unfinished 0 of 3 runs finished"
    assert rows["Full"]["Verdict"] == "unfinished 2 of 3 runs finished"
    assert "Not begun: full-seed1." in page.text
    assert not (folder / "summary.json").exists()
    assert "unfinished: step 20 of 49" in page.text
    assert "unfinished: step 0 of 49" in page.text


@pytest.mark.parametrize(("done", "said"), [(None, "finished 60 steps in"), (25, "25 of 60 steps are done")])
def test_a_single_run_has_facts_instead_of_a_table(tmp_path: Path, done: int | None, said: str) -> None:
    folder = write_run(tmp_path / "run", steps=60, done=done, nan_from=20 if done else None)
    html = write_report(folder).read_text()
    page = parse(html)
    assert intruders(html) == []
    assert rows_of(html, "Verdict") == {}
    assert said in page.text
    assert "0/final" not in figures_of(html)["charts"]
    assert "Nothing was tuned" not in page.text
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all((folder / link).is_file() for link in links)
    assert {path.name for path in (folder / "figures").iterdir()} == PNG
    assert not (folder / "summary.json").exists()


def test_one_seed_with_a_diverged_method(tmp_path: Path) -> None:
    methods = {**SHORT, "wild": {**SHORT["raptr"], "label": "Wild", "nan_from": 10}}
    folder = write_comparison(tmp_path / "c", methods=methods, seeds=1)
    html = write_report(folder).read_text()
    rows = rows_of(html, "Verdict")
    assert rows["RaPTr 6-8-10-12"]["Verdict"] == "one seed: no interval"
    assert " to " not in rows["RaPTr 6-8-10-12"]["Difference"]
    assert rows["RaPTr 6-8-10-12"]["Validation loss"].endswith(" n = 1")
    assert rows["Wild"]["Validation loss"] == "– n = 1"
    assert "NaN" not in parse(html).scripts[0]


def test_fifteen_methods(tmp_path: Path) -> None:
    methods = {"full": SHORT["full"]}
    methods |= {f"m{number}": {**SHORT["raptr"], "label": f"Variant {number}"} for number in range(14)}
    html = page_of(write_comparison(tmp_path / "c", methods=methods, seeds=2))
    assert len(rows_of(html, "Verdict")) == 15
    assert len(rows_of(html, "FLOPs saved")) == 14
    assert len([name for name in figures_of(html)["charts"] if name.startswith("0/path-")]) == 15
    assert intruders(html) == []


@pytest.mark.parametrize(
    ("offset", "seeds", "start"),
    [
        (-0.3, 3, "RaPTr 6-8-10-12 ends better than Full at equal total FLOPs: its validation loss is 0."),
        (0.3, 3, "RaPTr 6-8-10-12 ends worse than Full at equal total FLOPs: its validation loss is 0."),
        (-0.01, 2, "Too short to decide: RaPTr 6-8-10-12 ends"),
        (-0.03, 1, "One seed only: RaPTr 6-8-10-12 ends"),
    ],
)
def test_the_verdict_in_one_sentence(tmp_path: Path, offset: float, seeds: int, start: str) -> None:
    methods = {"full": SHORT["full"], "raptr": {**SHORT["raptr"], "steps": SHORT["full"]["steps"], "offset": offset}}
    sentence = verdict_sentence(read_folder(write_comparison(tmp_path / "c", methods=methods, seeds=seeds)))
    assert sentence.startswith(start)
    assert ("final loss" in sentence) == (abs(offset) == 0.3)
    assert ("For its own final loss it spends 9% fewer FLOPs" in sentence) == (offset == 0.3)  # it falls, then rises


def test_the_verdict_of_a_diverged_method(tmp_path: Path) -> None:
    methods = {"full": SHORT["full"], "raptr": {**SHORT["raptr"], "nan_from": 20}}
    comparison = read_folder(write_comparison(tmp_path / "c", methods=methods, seeds=2))
    assert verdict_sentence(comparison) == "RaPTr 6-8-10-12 against Full at equal total FLOPs: diverged."


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
    assert [name for name in figures_of(html)["charts"] if "path-" in name] == ["0/path-0", "0/path-1"]
    assert "RaPTr 6-8-10-12 · decoder" in parse(html).text


def test_savings_are_those_of_the_summary(demo: Path) -> None:
    saving = summarise(demo)["methods"]["raptr"]["savings"]["total_flops"]
    (row,) = rows_of((demo / "report.html").read_text(), "FLOPs saved").values()
    low, high = saving["interval"]
    expected = f"{saving['saving'] * 100:.1f} % {low * 100:.1f} to {high * 100:.1f} %"
    assert row["FLOPs saved"].replace("−", "-") == expected
    assert row["Total FLOPs"] == f"{saving['method'] / 1e12:.1f} TFLOP Full: {saving['baseline'] / 1e12:.1f} TFLOP"
    spots = figures_of((demo / "report.html").read_text())
    drawn = [row for name in spots["charts"]["0/saved-total_flops"]["datasets"] for row in spots["data"][name]]
    assert pytest.approx(sorted(saving["seeds"])) == sorted(row["y"] for row in drawn if "seed" in row)


def test_the_summary_is_made_again_from_the_runs(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT, seeds=2)
    (folder / "summary.json").write_text("an old one")
    write_report(folder)
    assert json.loads((folder / "summary.json").read_text()) == summarise(folder)


def test_what_was_tuned_is_said(tmp_path: Path) -> None:
    plain = parse(page_of(write_comparison(tmp_path / "plain", methods=SHORT, seeds=1))).text
    assert "Nothing was tuned:" in plain
    assert "How it was tuned" not in plain
    sweep = sweep_of({"full": {1e-3: 3.9, 2e-3: 3.8, 4e-3: 3.85}, "raptr": {1e-3: 3.9, 2e-3: None, 4e-3: 3.7}})
    html = page_of(write_comparison(tmp_path / "tuned", methods=SHORT, seeds=1, sweep=sweep))
    page = parse(html)
    assert "Nothing was tuned" not in page.text
    assert "Tuned: learning_rate:" in page.text
    assert "Chosen at the edge of the grid: RaPTr 6-8-10-12 (learning_rate 0.004)." in page.text
    rows = rows_of(html, "learning_rate 0.002")
    assert rows["Full"]["learning_rate 0.002"] == "3.8000 chosen"
    assert rows["RaPTr 6-8-10-12"]["learning_rate 0.002"] == "diverged"
    assert rows["RaPTr 6-8-10-12"]["learning_rate 0.004"] == "3.7000 chosen, at the edge"
    (tmp_path / "tuned" / "sweep.json").unlink()
    assert "Tuning is not finished" in parse(page_of(tmp_path / "tuned")).text


def test_sources_have_curves_and_a_table(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", methods=SHORT, seeds=2, sources=("wiki", "code"))
    html = page_of(folder)
    figures = figures_of(html)
    assert [f"0/loss-tokens-{k}" in figures["charts"] for k in range(4)] == [True, True, True, False]
    ends = []
    for number in (1, 2):
        rows = [
            row for name in figures["charts"][f"0/loss-tokens-{number}"]["datasets"] for row in figures["data"][name]
        ]
        ends.append([row["y"] for row in rows if row.get("m") == "Full" and "lo" in row][-1])
    assert ends[1] - ends[0] == pytest.approx(0.4)  # code is harder, by as much as the synthetic runs say
    entry = summarise(folder)["methods"]["raptr"]["sources"]["wiki"]
    assert rows_of(html, "wiki")["RaPTr 6-8-10-12"]["wiki"].startswith(f"{entry['mean']:.4f}")
    assert "By validation source" not in page_of(write_comparison(tmp_path / "d", methods=SHORT, seeds=1))


def test_facts_are_words_not_json(tmp_path: Path) -> None:
    sources = {"wiki": {"documents": {"train": 1_200, "validation": 3}, "skipped": {}, "files": ["a", "b"]}}
    folder = write_run(tmp_path / "run", steps=20, data={"source": "wiki", "filtered": None, "sources": sources})
    text = parse(page_of(folder)).text
    for said in ("wiki: documentstrain 1,200, validation 3", "wiki: skippednone", "wiki: filesa, b", "filterednone"):
        assert said in text
    assert "{" not in text.partition("How it was made")[2].partition("config.yaml")[0]


def test_several_comparisons_make_one_page(tmp_path: Path) -> None:
    one = write_comparison(tmp_path / "one", methods=SHORT, seeds=2)
    other = {"full": SHORT["full"], "short": {**SHORT["raptr"], "label": "Short"}, "raptr": SHORT["raptr"]}
    two = write_comparison(tmp_path / "two", methods=other, seeds=2, model={"parameters": 7_000_000})
    single = write_run(tmp_path / "alone", steps=40)
    path = write_report(one, two, single, output=tmp_path / "page")
    assert path == tmp_path / "page" / "report.html"
    html = path.read_text()
    assert intruders(html) == []
    page = parse(html)
    overview = [row for row in page.rows if "Budget" in row]
    assert [(row["Comparison" if "Comparison" in row else "Method"].split()[0], row["Parameters"]) for row in overview]
    assert len(overview) == 4
    assert {row["Difference"].split()[0] for row in overview} >= {
        f"{summarise(folder)['methods'][key]['difference']:+.4f}".replace("-", "−")
        for folder, keys in ((one, ["raptr"]), (two, ["raptr", "short"]))
        for key in keys
    }
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert "../two/short-seed1/config.yaml" in links
    assert all((path.parent / link).is_file() for link in links)
    assert {name.partition("/")[0] for name in figures_of(html)["charts"]} == {"overview", "0", "1", "2"}
    assert [file.name for file in (tmp_path / "page" / "figures").iterdir()] == ["overview.png"]
    assert not (one / "report.html").exists()
    comparisons = [read_folder(folder) for folder in (one, two)]
    shared = shared_palette(comparisons)
    first, second = (own_palette(shared, comparison) for comparison in comparisons)
    colours = [dict(zip(own.names, own.colours, strict=True)) for own in (first, second)]
    assert colours[0]["RaPTr 6-8-10-12"] == colours[1]["RaPTr 6-8-10-12"] != colours[1]["Short"]


def test_a_growing_method_and_a_smaller_model_are_told(tmp_path: Path) -> None:
    methods = {
        **SHORT,
        "stacking": {"label": "Stacking", "sizes": (3, 8.7, 12), "steps": 60, "grows": True},
        "smaller": {
            "label": "Smaller",
            "sizes": (9,),
            "layers": 9,
            "steps": 60,
            "control": "smaller",
            "model": {"parameters": 2_100_000},
        },
    }
    html = page_of(write_comparison(tmp_path / "c", methods=methods, seeds=2))
    page = parse(html)
    assert intruders(html) == []
    assert "Until its last boundary a growing method's curve is that of the part trained so far (Stacking)" in page.text
    assert "begins at its first evaluation after its last boundary" in page.text
    assert "Not comparable" not in page.text
    assert "Smaller: a smaller model, trained whole, as a control." in page.text
    row = next(row for row in page.rows if "Verdict" in row and row["Method"].startswith("Smaller"))
    assert row["Method"] == "Smaller a smaller model: 9 layers, 2.10 M parameters"
    rows = rows_of(html, "Boundary 1")
    assert "3 to 8.7 layers" in rows["Stacking"]["Boundary 1"]
    assert "8.7 to 12 layers" in rows["Stacking"]["Boundary 2"]
    stages = [row for rows in figures_of(html)["data"].values() for row in rows if row.get("n") == "8.7"]
    assert {row["k"] for row in stages} == {"8.7 layers"}
    plain = parse(page_of(write_comparison(tmp_path / "plain", methods=SHORT, seeds=2)))
    assert "Until its last boundary" not in plain.text
    assert "smaller model" not in plain.text


def test_many_methods_are_folded_and_few_are_not(tmp_path: Path) -> None:
    methods = {"full": SHORT["full"]}
    methods |= {f"m{number}": {**SHORT["raptr"], "label": f"Variant {number}"} for number in range(9)}
    page = parse(page_of(write_comparison(tmp_path / "many", methods=methods, seeds=2)))
    assert "The other 4 path maps" in page.text
    assert "All 20 runs" in page.text
    assert [attributes["data-every"] for _, attributes in page.tags if "data-every" in attributes] == ["on", "off"] * 3
    few = parse(page_of(write_comparison(tmp_path / "few", methods=SHORT, seeds=2)))
    assert "path maps" not in few.text.replace("The path maps", "")
    assert not any("data-every" in attributes for _, attributes in few.tags)


def test_specifications_are_valid_vega_lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import altair as alt

    seen = []
    original = alt.LayerChart.to_dict

    def validating(self: alt.LayerChart, *, validate: bool = True, **kwargs: Any) -> Any:
        seen.append(validate)
        return original(self, validate=True, **kwargs)

    monkeypatch.setattr(alt.LayerChart, "to_dict", validating)
    page_of(write_comparison(tmp_path / "c", methods=SHORT, seeds=2))
    assert len(seen) > 10
    assert not any(seen[:1])  # control: what is written is not validated by itself


def test_fifteen_methods_are_drawn_as_png_without_what_is_slow(tmp_path: Path) -> None:
    # Clipping and the opacity of whole marks made one PNG take 14 s; strokes and fills have opacities of their own.
    methods = {"full": SHORT["full"]}
    methods |= {f"m{number}": {**SHORT["raptr"], "label": f"Variant {number}"} for number in range(14)}
    comparison = read_folder(write_comparison(tmp_path / "c", methods=methods, seeds=2))
    specs = png_specs(comparison, palette_of(comparison), panels_of(comparison))
    slow = json.dumps({name: spec for name, spec in specs.items() if name.startswith("loss")})
    assert '"clip": true' not in slow
    assert '"opacity": 0' not in slow
