"""The house stands: who imports whom, what is public, what `import raptr` costs, what is installed."""

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib import resources
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

import raptr
from raptr.config.catalogue import card
from raptr.config.methods import SETTINGS

ROOT = Path(raptr.__file__).parent
PROJECT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.rglob("*.py"))
ROOMS = sorted(file.parent.name for file in ROOT.glob("*/__init__.py"))
NOT_ROOMS = {"__init__", "__main__"}


# Who imports whom


def _contracts() -> list[dict[str, Any]]:
    with (PROJECT / "pyproject.toml").open("rb") as file:
        contracts: list[dict[str, Any]] = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return contracts


def _lint(folder: Path, pythonpath: Path | None = None) -> tuple[int, str]:
    """Exit code and output of `lint-imports` with the project's contracts, run in a folder."""
    environment = dict(os.environ)
    if pythonpath:
        environment["PYTHONPATH"] = str(pythonpath)
    program = "import sys; from importlinter.cli import lint_imports_command as main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--config", str(PROJECT / "pyproject.toml")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_import_contracts_hold() -> None:
    code, output = _lint(PROJECT)
    assert code == 0, output
    assert f"Contracts: {len(_contracts())} kept, 0 broken." in output


# By hand, from DESIGN.md: plan < objectives < config < rundir < model, data < train < compare < cli; report and results
# know plan, config and rundir; compare and cli know results, the files of runs as values.
FORBIDDEN = [
    ("errors", "raptr.plan"),
    ("plan", "raptr.objectives"),
    ("plan", "raptr.config"),
    ("plan", "raptr.model"),
    ("plan", "raptr.report"),
    ("plan", "torch"),
    ("plan", "transformers"),
    ("objectives", "raptr.config"),
    ("objectives", "raptr.data"),
    ("objectives", "torch"),
    ("config", "raptr.model"),
    ("config", "raptr.data"),
    ("config", "torch"),
    ("config", "transformers"),
    ("model", "raptr.data"),
    ("model", "raptr.train"),
    ("model", "raptr.report"),
    ("data", "raptr.model"),
    ("data", "raptr.train"),
    ("train", "raptr.compare"),
    ("train", "raptr.report"),
    ("train", "raptr.cli"),
    ("train", "raptr.cli.show"),
    ("rundir", "raptr.model"),
    ("rundir", "raptr.train"),
    ("rundir", "torch"),
    ("units", "raptr.plan"),
    ("messages", "raptr.config"),
    ("lock", "raptr.train"),
    ("compare", "raptr.report"),
    ("compare", "raptr.cli"),
    ("config", "raptr.rundir"),
    ("objectives", "raptr.rundir"),
    ("plan", "raptr.rundir"),
    ("rundir", "raptr.model"),
    ("rundir", "raptr.data"),
    ("rundir", "raptr.train"),
    ("rundir", "raptr.results"),
    ("rundir", "raptr.report"),
    ("rundir", "torch"),
    ("rundir", "transformers"),
    ("report", "raptr.objectives"),
    ("report", "raptr.model"),
    ("report", "raptr.data"),
    ("report", "raptr.train"),
    ("report", "raptr.compare"),
    ("report", "torch"),
    ("report", "transformers"),
    ("results", "raptr.objectives"),
    ("results", "raptr.model"),
    ("results", "raptr.data"),
    ("results", "raptr.train"),
    ("results", "raptr.compare"),
    ("results", "raptr.report"),
    ("results", "torch"),
    ("results", "altair"),
    ("train", "raptr.results"),
    ("model", "raptr.results"),
    ("data", "raptr.results"),
    ("config", "raptr.results"),
    ("plan", "raptr.results"),
]
ALLOWED = [
    ("plan", "raptr.errors"),
    ("plan", "numpy"),
    ("objectives", "raptr.plan"),
    ("config", "raptr.plan"),
    ("model", "raptr.plan"),
    ("model", "torch"),
    ("config", "raptr.objectives"),
    ("rundir", "raptr.plan"),
    ("rundir", "raptr.config"),
    ("model", "raptr.rundir"),
    ("data", "raptr.config"),
    ("data", "raptr.rundir"),
    ("train", "raptr.rundir"),
    ("compare", "raptr.rundir"),
    ("train", "raptr.model"),
    ("train", "raptr.data"),
    ("train", "transformers"),
    ("compare", "raptr.train"),
    ("report", "raptr.plan"),
    ("report", "raptr.config"),
    ("report", "raptr.rundir"),
    ("report", "raptr.results"),
    ("report", "altair"),
    ("results", "raptr.plan"),
    ("results", "raptr.config"),
    ("results", "raptr.rundir"),
    ("results", "scipy"),
    ("compare", "raptr.results"),
    ("cli", "raptr.compare"),
    ("cli", "raptr.results"),
    ("cli", "raptr.report"),
]


def _house(folder: Path, imports: list[tuple[str, str]]) -> None:
    """A package of raptr's rooms, empty except for the given imports, each in a module of its own."""
    package = folder / "raptr"
    for room in [*ROOMS, "errors", "messages", "units", "lock"]:
        (package / room).mkdir(parents=True, exist_ok=True)
        (package / room / "__init__.py").touch()
    for file in (ROOT / "cli").glob("*.py"):
        (package / "cli" / file.name).touch()
    (package / "__init__.py").touch()
    for number, (room, imported) in enumerate(imports):
        (package / room / f"m{number}.py").write_text(f"import {imported}\n")


@pytest.mark.slow
def test_the_contracts_allow_what_the_design_allows(tmp_path: Path) -> None:
    _house(tmp_path, ALLOWED)
    code, output = _lint(tmp_path, tmp_path)
    assert code == 0, output


@pytest.mark.slow
def test_the_contracts_forbid_what_the_design_forbids(tmp_path: Path) -> None:
    _house(tmp_path, [*ALLOWED, *FORBIDDEN])
    code, output = _lint(tmp_path, tmp_path)
    assert code == 1, output
    missed = [
        f"{room} -> {imported}"
        for number, (room, imported) in enumerate(FORBIDDEN, start=len(ALLOWED))
        if f"raptr.{room}.m{number} -> {imported} (l.1)" not in output
    ]
    assert missed == []


def test_the_contracts_cover_every_room() -> None:
    named: set[str] = set()
    for contract in _contracts():
        assert contract["type"] in ("layers", "forbidden", "independence", "protected", "acyclic_siblings")
        for layer in contract.get("layers", []):
            named |= {room.strip().strip("()") for part in layer.split("|") for room in part.split(":")}
        named |= {*contract.get("source_modules", []), *contract.get("containers", [])}
    rooms = {f"raptr.{file.stem}" for file in ROOT.glob("*.py") if file.stem not in NOT_ROOMS}
    rooms |= {f"raptr.{room}" for room in ROOMS}
    # with `containers`, layers are named without their container
    named |= {f"raptr.{name}" for name in named}
    assert sorted(rooms - named) == []


# Who knows the control

CONTROL = re.compile(r"SMALLER|Smaller|smaller(?=_|['\"`])|(?<=[_'\"`])smaller|smaller (dense )?model")
"""Names of the control that is a smaller model, not the comparative of everyday English."""

KNOW_THE_CONTROL = {
    "config/smaller.py": "the control: its settings and their model",
    "config/methods.py": "registers it beside the methods",
    "report/notes.py": "the part of a model that a growing method trains first",
}


def _naming(folder: Path) -> dict[str, list[str]]:
    """The lines that name the control, by file."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        named = [line.strip() for line in lines if CONTROL.search(line)]
        if named:
            found[file.relative_to(folder).as_posix()] = named
    return found


def test_only_its_own_module_and_its_registration_name_the_control() -> None:
    found = _naming(ROOT)
    assert set(found) == set(KNOW_THE_CONTROL)
    assert len(found["config/methods.py"]) == 2, "the import and the entry of SETTINGS"
    assert len(found["report/notes.py"]) == 1


@pytest.mark.parametrize(
    "line",
    [
        'if info.control == "smaller":',
        "from raptr.config import SMALLER",
        "task = smaller_task(task, label)",
        "settings = SmallerSettings()",
        '"""The task of the smaller model."""',
    ],
)
def test_a_special_case_of_the_control_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(f"{line}\n")
    assert _naming(tmp_path) == {"task.py": [line]}
    (tmp_path / "task.py").write_text("a stage is smaller than its set; begin with a smaller seed\n")
    assert _naming(tmp_path) == {}


# What importing costs

HEAVY = ["torch", "transformers", "accelerate", "tokenizers", "datasets", "matplotlib", "altair", "plotly", "pandas"]
LIGHT = {
    "raptr": [*HEAVY, "numpy", "pydantic", "yaml", "rich", "typer"],
    "raptr.errors": [*HEAVY, "numpy"],
    "raptr.plan": [*HEAVY, "pydantic", "yaml", "rich", "typer"],
    "raptr.objectives": HEAVY,
    "raptr.config": HEAVY,
    "raptr.rundir": [*HEAVY, "pydantic", "yaml", "rich", "typer"],
    "raptr.results": ["torch", "transformers", "accelerate", "datasets", "matplotlib", "altair", "pydantic", "yaml"],
    "raptr.report": ["torch", "transformers", "accelerate", "datasets", "matplotlib"],
    "raptr.cli.app": ["torch", "transformers", "accelerate", "datasets", "matplotlib", "altair"],
}


def _loaded(code: str) -> set[str]:
    """The top-level modules that a new process has loaded after running some code."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("module", LIGHT)
def test_importing_stays_light(module: str) -> None:
    loaded = _loaded(f"import {module}")
    assert "raptr" in loaded
    assert sorted(loaded & set(LIGHT[module])) == []


@pytest.mark.slow
def test_public_names_are_loaded_when_they_are_used() -> None:
    loaded = _loaded("import raptr; raptr.RaPTr; raptr.Schedule; raptr.Subnetwork; raptr.RaptrError")
    assert "numpy" in loaded
    assert "torch" not in loaded
    # control: what needs torch is seen to load it; and loading it touches no accelerator
    loaded = _loaded("import raptr; raptr.attach; import torch; assert not torch.cuda.is_initialized()")
    assert "torch" in loaded


@pytest.mark.slow
def test_packages_are_loaded_when_they_are_used() -> None:
    loaded = _loaded("import raptr; assert raptr.plan.METHODS; assert raptr.config.load; dir(raptr)")
    assert {"numpy", "pydantic"} <= loaded
    assert sorted(loaded & {"torch", "transformers"}) == []
    assert sorted(raptr._PACKAGES) == ROOMS
    assert set(ROOMS) <= set(dir(raptr))


# What is public


def test_the_public_names_are_few_and_said_once() -> None:
    assert 0 < len(raptr.__all__) <= 12
    assert len(set(raptr.__all__)) == len(raptr.__all__)
    assert sorted(raptr.__all__) == sorted(raptr._ROOMS)
    assert set(raptr.__all__) <= set(dir(raptr))


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    found = {
        alias.asname or alias.name: node.module
        for block in guarded
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found == raptr._ROOMS


@pytest.mark.parametrize("name", raptr.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(raptr, name)
    assert value is getattr(importlib.import_module(raptr._ROOMS[name]), name)
    assert _documented(value)


@pytest.mark.slow
def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"'RaPTR'.*RaPTr"):
        raptr.RaPTR  # noqa: B018
    with pytest.raises(ImportError):
        exec("from raptr import nothing_of_that_name")
    with pytest.raises(AttributeError, match="other methods are in raptr"):
        raptr.Stacking  # noqa: B018
    with pytest.raises(
        AttributeError, match=r"in raptr\.plan\.methods: from raptr\.plan\.methods import GradualStacking"
    ):
        raptr.GradualStacking  # noqa: B018
    with pytest.raises(AttributeError, match=r"in raptr\.plan: from raptr\.plan import LayerCosts"):
        raptr.LayerCosts  # noqa: B018
    # nor is anything loaded to say where a module is that is not there
    assert "numpy" not in _loaded("import raptr; assert not hasattr(raptr, 'nothing')")


def _documented(value: Any) -> bool:
    """Whether a class or function has words of its own: the signature of a dataclass is none."""
    text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    return bool(text) and not text.startswith(f"{value.__name__}(")


def _undocumented(value: Any) -> list[str]:
    """A class or function, and a class's own public methods and properties, that have no docstring."""
    missing = [] if _documented(value) else [value.__name__]
    if inspect.isclass(value):
        for name, member in vars(value).items():
            inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if not name.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property)):
                missing += [] if inner.__doc__ else [f"{value.__name__}.{name}"]
    return missing


@pytest.mark.parametrize("room", ROOMS)
def test_everything_that_a_room_exports_is_there_and_documented(room: str) -> None:
    module = importlib.import_module(f"raptr.{room}")
    values = [getattr(module, name) for name in getattr(module, "__all__", [])]
    assert values
    missing = [
        name for value in values if inspect.isclass(value) or inspect.isroutine(value) for name in _undocumented(value)
    ]
    assert missing == []


def test_a_missing_docstring_is_noticed() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Bare:
        x: int

        def method(self) -> None: ...

        @property
        def value(self) -> int:
            """A value."""
            return 1

    def bare() -> None: ...

    assert _undocumented(Bare) == ["Bare", "Bare.method"]
    assert _undocumented(bare) == ["bare"]


# The files


def test_every_source_file_says_what_it_is_and_is_short() -> None:
    texts = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in SOURCES}
    assert [name for name, text in texts.items() if not ast.get_docstring(ast.parse(text))] == []
    assert {name: lines for name, text in texts.items() if (lines := len(text.splitlines())) > 400} == {}


def test_there_are_source_files() -> None:
    assert len(SOURCES) > 30
    assert {"plan", "objectives", "model", "data", "train", "compare", "rundir", "results", "report"} <= set(ROOMS)


# What is installed


def is_editable(direct_url: str | None) -> bool:
    """Whether a distribution's ``direct_url.json`` says that it is installed as a link to its sources."""
    return direct_url is not None and json.loads(direct_url).get("dir_info", {}).get("editable") is True


EDITABLE = is_editable(distribution("raptr").read_text("direct_url.json"))
"""Whether raptr is installed for development (``make dev``). ``make test`` and CI test the installed package."""


def test_the_tests_run_against_the_installed_package() -> None:
    if EDITABLE:
        assert ROOT.resolve() == PROJECT.resolve() / "src" / "raptr", f"raptr is at {ROOT}"
        return
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")]
    assert any(ROOT.resolve().is_relative_to(folder) for folder in installed), f"raptr is at {ROOT}"


def test_an_installation_for_development_is_told_from_another() -> None:
    assert is_editable('{"dir_info": {"editable": true}, "url": "file:///raptr"}')
    assert not is_editable('{"dir_info": {}, "url": "file:///raptr"}')
    assert not is_editable('{"archive_info": {}, "url": "https://example.org/raptr.whl"}')
    assert not is_editable(None)


def test_the_presets_and_the_files_of_the_report_are_installed() -> None:
    package = resources.files("raptr")
    assert yaml_names(package / "presets") >= {"demo.yaml"}
    assert (package / "py.typed").is_file()
    for name in ("report.html.j2", "page.css", "page.js"):
        assert (package / "report" / name).read_text(encoding="utf-8").strip()


def test_the_method_cards_are_installed_as_they_are_in_docs() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (PROJECT / "docs" / "methods").glob("*.md")}
    assert len(written) > 15
    if EDITABLE:  # they are read where they are written
        assert {f"{key}.md": card(key) for key in SETTINGS} | {"README.md": written["README.md"]} == written
        return
    installed = {file.name: file.read_text(encoding="utf-8") for file in (resources.files("raptr") / "cards").iterdir()}
    assert installed == written


def yaml_names(folder: Any) -> set[str]:
    """The YAML files of a folder of a package."""
    return {file.name for file in folder.iterdir() if file.name.endswith(".yaml")}
