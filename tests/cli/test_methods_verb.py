"""`raptr methods`: the list, a card, and unknown names."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import raptr
from raptr.cli import app as cli
from raptr.config import catalogue
from raptr.config.methods import SETTINGS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def methods(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`raptr methods` in this process: exit code and what it printed to either stream."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raptr", "methods", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_all_methods_are_listed_with_a_line_and_their_flops(methods: Any) -> None:
    code, out, _ = methods()
    assert code == 0
    words = " ".join(out.split())
    for entry in catalogue.entries():
        assert entry.line.endswith(tuple("abcdefghijklmnopqrstuvwxyz0123456789)"))
        assert f"{entry.key} {entry.share:.1%} {entry.line.split()[0]}" in words
    assert [entry.key for entry in catalogue.entries()] == list(SETTINGS)
    for row in ("raptr 75.0%", "stochastic_depth 72.9%", "late_expansion 26.7%", "smaller 75.0%"):
        assert row in words


@pytest.mark.parametrize("key", SETTINGS)
def test_a_card_is_shown_without_marks(key: str, methods: Any) -> None:
    code, out, err = methods(key)
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    for heading in ("What it does", "Formula", "Saving in FLOPs", "Known failures and limits", "Reference"):
        assert heading in words
    assert "<!--" not in out
    assert "arXiv" in words or "ICML" in words


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("midass", "did you mean 'midas'?"),
        ("MIDAS", "did you mean 'midas'?"),
        ("RaPTr", "did you mean 'raptr'"),
        ("late-expansion", "did you mean 'late_expansion'?"),
        ("StochasticDepth", "'stochastic_depth'"),
        ("xyz", "there are: full, raptr"),
        ("../README", "is not known"),
        ("", "is not known"),
    ],
)
def test_an_unknown_name_ends_with_2_and_one_message(given: str, hint: str, methods: Any) -> None:
    code, out, err = methods(given)
    assert (code, out) == (2, "")
    assert hint in err
    assert err.startswith(f"raptr: method {given!r} is not known; ")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_from_a_source_tree_the_cards_are_those_of_docs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raptr", "methods", "midas"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "ceil(k / 2)" in done.stdout


def test_missing_cards_are_said(methods: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue.resources, "files", lambda _: tmp_path / "lib" / "raptr")
    code, _, err = methods("midas")
    assert code == 2
    assert "the card of 'midas' is neither in the installed package" in err


@pytest.mark.slow
def test_the_verb_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; sys.argv = ['raptr', 'methods', 'raptr']\n"
        "from raptr.cli import app as cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'altair', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(raptr.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
