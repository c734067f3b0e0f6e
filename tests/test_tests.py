"""The tests are in order: where they are, what they import, that each asserts something, and who names them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))
TREES = {name: ast.parse((TESTS / name).read_text(encoding="utf-8")) for name in FILES}
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES}
THIS = Path(__file__).name
SHARED = ("helpers", "reference")
"""The folders from which tests import: what tests share, and independent implementations to compare with."""

NOT_ROOMS = {*SHARED, "fuzz"}
"""Folders of tests that mirror none of raptr's."""

PRIVATE = {
    ("compare/test_comparison.py", "raptr.compare.jobs._run_task"): "a run of other length, without training it",
    ("compare/test_workers.py", "raptr.compare.workers._work"): "replaced: what a process would do on a GPU",
    ("data/tokens/test_tokenizer.py", "raptr.data.tokens.tokenizer._OURS"): "emptied: what the process chose before",
    ("test_architecture.py", "raptr._PACKAGES"): "the table of packages, which has to be complete",
    ("test_architecture.py", "raptr._ROOMS"): "the table of public names, which has to be complete",
    ("test_no_code.py", "raptr.config.yaml._Loader"): "what the loader of configs constructs is a promise",
    ("train/resume/test_checkpoint.py", "raptr.train.resume.checkpoint._complete"): "watched: files before and after",
}
"""Private names of raptr that tests use -> why no public one would do."""


# Where they are


def test_folders_mirror_those_of_the_package() -> None:
    folders = {Path(name).parent.as_posix() for name in FILES}
    of_tests = {folder for folder in folders if folder != "." and folder.split("/")[0] not in NOT_ROOMS}
    assert len(of_tests) > 15
    assert [folder for folder in sorted(of_tests) if not (ROOT / "src" / "raptr" / folder).is_dir()] == []


def test_what_is_shared_holds_no_tests() -> None:
    assert [name for name in FILES if name.startswith(SHARED) and Path(name).name.startswith("test_")] == []


# What they import


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names of all modules that a file imports anywhere, and of what it imports from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "tests import by full names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def of_tests(tree: ast.AST) -> set[str]:
    """The files of the tests that a file imports."""
    found = (MODULES.get(name) or MODULES.get(name.rpartition(".")[0]) for name in imported(tree))
    return {name for name in found if name is not None}


def allowed(name: str, other: str) -> bool:
    """Whether a file of the tests may import another: a shared one, or the script of a process beside it."""
    if name.startswith("reference/"):
        return other.startswith("reference/")
    return other.startswith(SHARED) or (other.endswith("_worker.py") and Path(other).parent == Path(name).parent)


def test_files_import_only_what_is_shared() -> None:
    found = {name: [other for other in sorted(of_tests(TREES[name])) if not allowed(name, other)] for name in FILES}
    assert {name: others for name, others in found.items() if others} == {}


def test_code_in_strings_imports_no_test() -> None:
    found = [
        (name, node.value)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if name != THIS and isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.search(r"^\s*(from|import) [\w.]*\btest_\w+", node.value.replace("; ", "\n"), re.MULTILINE)
    ]
    assert found == []


def test_an_import_of_a_test_is_noticed() -> None:
    for code in ("from data.test_corpus import two", "import data.test_corpus", "from data import test_corpus"):
        [other] = of_tests(ast.parse(code))
        assert other == "data/test_corpus.py"
        assert not allowed("data/test_docs.py", other)
        assert not allowed("helpers/runs.py", other)
    assert of_tests(ast.parse("import raptr\nfrom raptr.data import corpus")) == set()
    assert allowed("data/test_docs.py", "helpers/runs.py")
    assert not allowed("reference/plan.py", "helpers/runs.py")
    assert not allowed("train/test_engine.py", "model/parts_worker.py")


# Private names


def is_private(name: str) -> bool:
    """Whether a part of a dotted name begins with one underscore."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def private(tree: ast.AST) -> set[str]:
    """The private names of raptr that a file imports, reaches through what it imports, or replaces by name."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name.split(".")[0]: alias.asname and alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def full(node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return (known[node.id] or node.id) if node.id in known else None
        if isinstance(node, ast.Attribute) and (owner := full(node.value)):
            return f"{owner}.{node.attr}"
        return None

    found = {name or short for short, name in known.items()}
    for node in ast.walk(tree):
        found |= {name for name in [full(node)] if name}
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+", node.value):
            found.add(node.value)
        if isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            found.add(f"{full(node.args[0])}.{node.args[1].value}")  # setattr and its like
    parts = (name.split(".") for name in found if name.startswith("raptr.") and is_private(name))
    return {".".join(part[: next(i for i, one in enumerate(part) if is_private(one)) + 1]) for part in parts}


def test_private_names_are_used_where_no_public_one_would_do() -> None:
    used = {(name, used) for name, tree in TREES.items() if name != THIS for used in private(tree)}
    assert used == set(PRIVATE)


@pytest.mark.parametrize(
    "code",
    [
        "from raptr.data.store import _write",
        "from raptr._data import store",
        "import raptr\nraptr.data.store._write()",
        "import raptr.data.store as room\nroom._write()",
        "from raptr.data import store\ndef f():\n    return store._write",
        "from raptr.data import store\npatch.setattr(store, '_write', None)",
        "patch.setattr('raptr.data.store._write', None)",
    ],
)
def test_a_private_name_is_noticed(code: str) -> None:
    assert len(private(ast.parse(code))) == 1
    assert private(ast.parse(code.replace("_write", "write").replace("_data", "data"))) == set()


# That each asserts something

CHECKS = ("raises", "warns", "fail", "simplefilter")
"""Of pytest; and of warnings, which are made errors."""


def functions(tree: ast.AST) -> dict[str, ast.AST]:
    """All functions and classes of a file, by name."""
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name: node for node in ast.walk(tree) if isinstance(node, kinds)}


def sources(tree: ast.AST) -> dict[str, str | None]:
    """What a file imports, by the name it has there -> the file of the tests that it is from, if any."""
    return {
        alias.asname or alias.name: MODULES.get(f"{node.module}.{alias.name}") or MODULES.get(str(node.module))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


FUNCTIONS = {name: functions(tree) for name, tree in TREES.items()}
SOURCES = {name: sources(tree) for name, tree in TREES.items()}


def asserts(name: str, node: ast.AST, seen: frozenset[tuple[str, str]] = frozenset()) -> bool:
    """Whether a function of a file asserts something, itself or in a function of the tests that it calls."""
    for part in ast.walk(node):
        if isinstance(part, ast.Assert) or (isinstance(part, ast.Raise) and "AssertionError" in ast.unparse(part)):
            return True
        if not isinstance(part, ast.Call):
            continue
        called = ast.unparse(part.func).split(".")
        if called[-1] in CHECKS or called[-1].startswith("assert_"):
            return True
        place = name if called[0] in FUNCTIONS[name] else SOURCES[name].get(called[0])
        if place is None or (place, called[-1]) in seen:
            continue
        inner = FUNCTIONS[place].get(called[-1])
        if inner is not None and asserts(place, inner, seen | {(place, called[-1])}):
            return True
    return False


def test_every_test_asserts_something() -> None:
    for name in (name for name in FILES if Path(name).name.startswith("test_")):
        found = {key: node for key, node in FUNCTIONS[name].items() if key.startswith("test_")}
        assert found, name
        assert [key for key, node in found.items() if not asserts(name, node)] == [], name


def test_a_test_without_an_assertion_is_noticed() -> None:
    bare = ast.parse("def test_it():\n    value = print(1 + 1)\n    value.call()")
    assert not asserts(THIS, bare)
    assert asserts(THIS, ast.parse("def test_it():\n    with pytest.raises(ValueError):\n        int('x')"))
    assert asserts(THIS, ast.parse("def test_it():\n    test_what_is_shared_holds_no_tests()"))


# What names them


def texts() -> list[Path]:
    """What may name files of the tests: guides, sources, benchmarks, and the tests themselves."""
    found = [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml", *(ROOT / "docs").rglob("*.md")]
    for folder in ("src", "benchmarks", "tests"):
        found += (ROOT / folder).rglob("*.py")
    return [path for path in found if path != Path(__file__)]


def missing(text: str) -> list[str]:
    """The files and folders of the tests that a text names and that are not there."""
    paths = [path.rstrip("./") for path in re.findall(r"(?<![\w./-])tests/[\w./-]+", text)]
    found = [path for path in paths if not (ROOT / path).exists()]
    names = re.findall(r"(?<![\w./-])test_\w+\.py", text)
    return found + [name for name in names if not any(file.rpartition("/")[2] == name for file in FILES)]


def test_files_that_are_named_are_there() -> None:
    found = {path.relative_to(ROOT).as_posix(): missing(path.read_text(encoding="utf-8")) for path in texts()}
    assert {name: absent for name, absent in found.items() if absent} == {}


def test_a_file_that_is_not_there_is_noticed() -> None:
    text = "As `tests/plan/test_matrix.py` and tests/plan show (see test_corpus.py), not `tests/plan/test_none.py`."
    assert missing(text + " Nor test_nowhere.py.") == ["tests/plan/test_none.py", "test_nowhere.py"]
