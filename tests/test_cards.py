"""The method cards: one for each method, with the same headings, and saying what the code says now."""

import copy
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.synthetic_runs import write_comparison
from raptr.config.methods import SETTINGS
from raptr.plan import METHODS
from raptr.results import summarise

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "docs" / "methods"
HEADINGS = [
    "What it does",
    "Formula",
    "When to use it",
    "Settings",
    "Saving in FLOPs",
    "Measured",
    "Known failures and limits",
    "Reference",
]
KEYS = [*METHODS, "smaller"]


def script() -> Any:
    """benchmarks/cards.py, which writes the computed parts of the cards."""
    spec = importlib.util.spec_from_file_location("cards", ROOT / "benchmarks" / "cards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cards = script()


def card(key: str) -> str:
    """The card of a method; if there is none, the failure says what to add."""
    path = CARDS / f"{key}.md"
    assert path.is_file(), (
        f"add docs/methods/{key}.md: the headings of docs/methods/layerdrop.md, with its pairs of marks and nothing "
        "between them; then run python benchmarks/cards.py, which fills them in and adds the line of the index"
    )
    return path.read_text(encoding="utf-8")


def sections(key: str) -> dict[str, str]:
    """The parts of a card by heading."""
    _, *parts = re.split(r"^## (.*)\n", card(key), flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("key", KEYS)
def test_every_method_has_a_card(key: str) -> None:
    """What a new method needs beside its file and its line, with the words that say where."""
    assert card(key).startswith("# ")
    index = (CARDS / "README.md").read_text(encoding="utf-8")
    assert f"| [`{key}`]({key}.md) |" in index, "run python benchmarks/cards.py, which adds the line of the index"
    assert key in SHARES, f"add {key!r} to SHARES in tests/test_cards.py: its layer FLOPs with the defaults, by hand"


def test_every_card_has_a_method() -> None:
    assert list(SETTINGS) == KEYS
    assert {path.stem for path in CARDS.glob("*.md")} <= {*KEYS, "README"}


@pytest.mark.parametrize("key", KEYS)
def test_a_card_has_its_headings_in_order_and_something_under_each(key: str) -> None:
    found = sections(key)
    assert list(found) == HEADINGS
    for heading, text in found.items():
        assert len(re.sub(r"<!--.*?-->", "", text).strip()) > 10, heading
    assert "```text" in found["Formula"]
    title = card(key).partition("##")[0]
    assert f"Key `{key}`" in title
    if key in METHODS:
        assert f"`raptr.plan.methods.{METHODS[key].__name__}`" in title


@pytest.mark.parametrize("key", METHODS)
def test_a_reference_is_that_of_the_docstring(key: str) -> None:
    told = set(re.findall(r"\d{4}\.\d{5}", METHODS[key].__doc__ or ""))
    assert told <= set(re.findall(r"\d{4}\.\d{5}", card(key)))


def test_computed_parts_are_what_the_script_writes_now() -> None:
    for path, text in cards.pages(cards.read_results()).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run python benchmarks/cards.py"


# By hand: the layer FLOPs of 12 layers with the default settings.
SHARES = {
    "full": 1.0,
    "raptr": (6 + 8 + 10 + 12) / 48,
    "width_raptr": (0.5 + 0.75 + 1) / 3,
    # 70 % of 12 heads are 8, of 3,072 neurons 2,150; 80 %: 10 and 2,458; 90 %: 11 and 2,765
    "depth_width_raptr": (
        6 * (8 / 12 + 2 * 2150 / 3072) / 3
        + 8 * (10 / 12 + 2 * 2458 / 3072) / 3
        + 10 * (11 / 12 + 2 * 2765 / 3072) / 3
        + 12
    )
    / 48,
    "constant_size": 0.75,
    "reversed": 0.75,
    "layerdrop": 0.8,
    "stochastic_depth": 1 - 0.5 * 13 / 24,
    "pld": 1 - 0.5 * 13 / 24 * (1 - (1 - 2.718281828**-10) / 10),  # the mean of exp(-0.001 t), nearly
    "sequence_layer_dropout": 1 - 0.6 / 4,
    "gradual_stacking": (6 + 9 + 12) / 36,
    "progressive_stacking": (3 + 6 + 12) / 36,
    "midas": (3 * 1 + 6 * 2 + 9 * 3 + 12 * 4) / 120,
    "gstack": 0.1 * 3 / 12 + 0.9,
    "late_expansion": 0.8 / 12 + 0.2,
    "smaller": 9 / 12,
}


@pytest.mark.parametrize("key", KEYS)
def test_savings_by_hand(key: str) -> None:
    default = re.search(r"^\| default.*?\| ([\d.]+) % \| ([\d.]+)x", sections(key)["Saving in FLOPs"], flags=re.M)
    assert default is not None
    assert float(default[1]) / 100 == pytest.approx(SHARES[key], abs=6e-4)
    assert float(default[2]) == pytest.approx(1 / SHARES[key], abs=2e-3)


@pytest.mark.parametrize("key", METHODS)
def test_every_setting_of_a_config_is_in_the_card(key: str) -> None:
    named = re.findall(r"^\| `(\w+)` \|", sections(key)["Settings"], flags=re.M)
    assert set(SETTINGS[key].model_fields) - {"method"} <= set(named)
    assert len(named) == len(set(named))


def test_a_changed_default_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cards.settings("layerdrop"), cards.saving("layerdrop")

    class LayerDrop(METHODS["layerdrop"]):  # type: ignore[misc, name-defined]
        __doc__ = METHODS["layerdrop"].__doc__

        def __init__(self) -> None:
            super().__init__(rate=0.3)

    monkeypatch.setitem(METHODS, "layerdrop", LayerDrop)  # type: ignore[arg-type]
    assert cards.settings("layerdrop") != before[0]
    assert "70.0 %" in cards.saving("layerdrop")


def results_of(folder: Path) -> dict[str, Any]:
    """A kept comparison, made up: what `benchmarks/cards.py FOLDER` writes to benchmarks/results/methods.json."""
    summary = summarise(write_comparison(folder))
    full = summary["methods"]["full"]
    return {
        "command": "raptr compare config.yaml --methods full,raptr",
        "machine": "a processor, 2 threads, cpu",
        "versions": {"torch": "2.13.0"},
        "model": {"architecture": "llama", "layers": [12], "parameters": 2_000_000, "layer_parameters": 1_000_000},
        "text": "0123",
        "expected": dict.fromkeys(summary["methods"], 0.75) | {"full": 1.0},
        "full_step": full["layer_flops"] / full["steps"],
        "summary": summary,
    }


def test_measured_parts_come_from_the_summary(tmp_path: Path) -> None:
    results = results_of(tmp_path / "c")
    entry = results["summary"]["methods"]["raptr"]
    said = cards.measured("raptr", results)
    assert f"{entry['mean']:.3f}" in said
    assert entry["verdict"] in said
    assert "Nothing was tuned" in said
    assert "| 100.00 % |" in cards.measured("full", results)
    assert "Against" not in cards.measured("full", results)
    assert "not part of the comparison" in cards.measured("pld", results)
    table = cards.measured_table(results)
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(results["summary"]["methods"])
    means = [results["summary"]["methods"][re.findall(r"`(\w+)`", row)[0]]["mean"] for row in rows]
    assert means == sorted(means)
    assert results["command"] in table


def test_without_a_comparison_nothing_is_said_and_a_diverged_method_is(tmp_path: Path) -> None:
    assert cards.measured("raptr", None) == cards.measured_table(None) == "Not measured yet."
    results = copy.deepcopy(results_of(tmp_path / "c"))
    results["summary"]["methods"]["raptr"] |= {
        "mean": None,
        "interval": None,
        "difference": None,
        "verdict": "diverged",
    }
    assert "diverged" in cards.measured("raptr", results)
    rows = [line for line in cards.measured_table(results).splitlines() if line.startswith("| `")]
    assert rows[-1].startswith("| `raptr`"), "a method without a loss comes last"


def test_a_page_without_its_marks_is_refused() -> None:
    assert cards.fill("a\n<!-- x -->\nold\n<!-- /x -->\nb\n", "x", "new") == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n"
    with pytest.raises(SystemExit):
        cards.fill("no marks\n", "x", "new")


def test_files_that_the_cards_name_exist() -> None:
    for path in CARDS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\b((?:docs|benchmarks|tests|src)/[\w/]+\.\w+)", text):
            assert (ROOT / name).exists() or name.endswith("methods.json"), f"{path.name}: {name}"
        for name in re.findall(r"\]\(([\w./]+)\)", text):
            assert (path.parent / name).exists(), f"{path.name}: {name}"
