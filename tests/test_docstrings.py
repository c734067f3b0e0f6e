"""The examples in docstrings run, in every module of raptr."""

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import raptr

ROOT = Path(raptr.__file__).parent
LEAST = 10


def modules() -> list[str]:
    """The names of all modules of raptr, without importing any."""
    names = []
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def examples(module: ModuleType) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


def run(tests: list[doctest.DocTest]) -> tuple[int, str]:
    """How many examples were run, and what was said of those that failed."""
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    attempted = 0
    for test in tests:
        attempted += runner.run(test, out=said.append).attempted
    return attempted, "".join(said)


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except SystemExit as error:
        pytest.fail(f"importing {name} ends the process ({error!r})")
    tests = examples(module)
    attempted, said = run(tests)
    assert said == ""
    assert attempted == sum(len(test.examples) for test in tests), "an example is skipped"


def test_there_are_examples_to_run() -> None:
    pure = [name for name in modules() if name.startswith("raptr.plan")]
    found = [example for name in pure for test in examples(importlib.import_module(name)) for example in test.examples]
    assert len(found) >= LEAST


@pytest.mark.parametrize(
    ("text", "failed"), [(">>> 1 + 1\n2\n", False), (">>> 1 + 1\n3\n", True), (">>> 1 / 0\n", True)]
)
def test_a_wrong_example_is_noticed(text: str, failed: bool) -> None:
    module = ModuleType("made_up", text)
    attempted, said = run(examples(module))
    assert attempted == 1
    assert bool(said) is failed
