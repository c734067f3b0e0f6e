"""The guides say what is so: their code is run, and their way of adding a method is gone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import LlamaForCausalLM

import raptr
from helpers.runs import TINY
from helpers.started import Started, ranks_of, succeeded

DOCS = Path(__file__).parents[1] / "docs"
EXTENDING = (DOCS / "extending.md").read_text(encoding="utf-8")
WINDOW, WARMING, TWICE, SPEC, TRAINER = re.findall(r"```python\n(.*?)```", EXTENDING, flags=re.S)
(OPTIMIZER,) = re.findall(r"```python\n(.*?)```", (DOCS / "optimizer.md").read_text(encoding="utf-8"), flags=re.S)

SHARDED, DDP, ENGINES = re.findall(
    r"```python\n(.*?)```", (DOCS / "engines.md").read_text(encoding="utf-8"), flags=re.S
)

STRICT = "import warnings\nwarnings.filterwarnings('error', category=UserWarning, module='raptr')\n"
"""Before an example: a warning of raptr is an error."""


def run(*arguments: str, folder: Path, path: Path | None = None) -> str:
    """What Python prints, in a folder, with another raptr if one is given."""
    source = path or Path(raptr.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{folder}", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "example",
    [WINDOW, WARMING, TWICE, TRAINER, OPTIMIZER, ENGINES],
    ids=["plan", "random", "growth", "Trainer", "optimizer.md", "engines.md"],
)
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    (tmp_path / "windows.py").write_text(SPEC)
    (tmp_path / "example.py").write_text(STRICT + example)
    succeeded([Started(tmp_path / "example.py", folder=tmp_path)])


@pytest.mark.slow
@pytest.mark.parametrize("loop", [SHARDED, DDP], ids=["FSDP2", "DDP"])
def test_a_loop_on_two_ranks_saves_an_ordinary_model(loop: str, tmp_path: Path) -> None:
    """What torchrun gives each process is set here; tests/train/hf/test_engines.py runs torchrun itself."""
    (tmp_path / "loop.py").write_text(STRICT + loop)
    succeeded([Started(tmp_path / "loop.py", (), one, folder=tmp_path) for one in ranks_of(2)])
    model = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    assert type(model.model.layers[0]).__call__ is torch.nn.Module.__call__
    torch.manual_seed(0)
    begun = LlamaForCausalLM(model.config)
    assert not torch.equal(model.model.layers[1].mlp.up_proj.weight, begun.model.layers[1].mlp.up_proj.weight)


@pytest.mark.slow
def test_a_method_is_one_file_and_one_line(tmp_path: Path, cache: Path) -> None:
    """The line of the guide makes a copy of raptr whose command line, configs and runs know the method."""
    house = tmp_path / "src"
    package = house / "raptr"
    shutil.copytree(Path(raptr.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "plan" / "methods" / "windows.py").write_text(SPEC)
    (change,) = re.findall(r"```diff\n(.*?)```", EXTENDING, flags=re.S)
    (line,) = (line[1:] for line in change.splitlines() if line.startswith("+"))
    listing = package / "plan" / "methods" / "__init__.py"
    text = listing.read_text()
    assert "\n# isort: on\n" in text
    listing.write_text(text.replace("\n# isort: on\n", f"\n{line}\n# isort: on\n"))

    listed = run("-m", "raptr", "methods", folder=tmp_path, path=house)
    assert "windows 75.0% Each step trains a window" in " ".join(listed.split())
    tests = "import doctest, raptr.plan.methods.windows as m; print(doctest.testmod(m))"
    assert "failed=0, attempted=2" in run("-c", tests, folder=tmp_path, path=house)

    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({**TINY, "method": "windows", "methods": {"windows": {"schedule": "2-4"}}}))
    shared = ("-m", "raptr", "train", str(config), "--cache", str(cache), "--output", "out", "training.max_steps=4")
    assert "validation loss of the full model" in run(*shared, folder=tmp_path, path=house)
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    layers = re.findall(r'"layers": (\[\[.*?\]\])', "\n".join(lines))
    assert layers == ["[[0, 1]]", "[[1, 2]]", "[[0, 1, 2, 3]]", "[[0, 1, 2, 3]]"]


@pytest.mark.parametrize("guide", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_tests_and_files_that_a_guide_names_exist(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    for line in re.findall(r"^\|.*", text, flags=re.M):
        assert line.endswith("|"), line
    for name in re.findall(r"`((?:src|docs|tests|benchmarks)/[\w/.]+)`", text):
        assert (DOCS.parent / name).exists() or "windows" in name, name
