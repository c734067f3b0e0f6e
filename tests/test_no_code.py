"""No code from data: what a config, a model, a tokenizer or a dataset holds is read, and never run.

Checkpoints have a file of their own, tests/train/resume/test_safe_load.py; unsafe YAML is in
tests/config/test_config.py, and what a report shows in tests/report/test_page.py.
"""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml

import raptr
from helpers.evil import BOTH, SCRIPT, Save, nothing_ran, pickled, ran, saved  # noqa: F401
from helpers.runs import TINY, run, tiny
from raptr.config import parse
from raptr.data import load_tokenizer
from raptr.errors import RaptrError
from raptr.train.setup.model import build_model, build_model_config
from raptr.train.task import prepare_task

ROOT = Path(raptr.__file__).parent
# The source


PROCESSES = "data/tokens/encode_pool.py"  # talks to processes that it has started itself, through pipes
LISTS = "train/resume/safe_load.py"  # makes the classes of a list of tensors and no others, see its tests


ALWAYS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"),
    *("pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"),
}
"""Calls that run what they read, or may."""

OPTIONS = {"weights_only": "True", "allow_pickle": "False", "trust_remote_code": "False", "shell": "False"}
"""The only value with which an option may be given, word for word."""

HIDING = ("pickle", "marshal", "shelve", "yaml", "dill", "joblib", "cloudpickle")
"""Modules from which nothing is imported by name, so that their calls are seen."""


def unsafe(source: str) -> list[str]:
    """The calls of a source file that run what they read, or may."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in HIDING:
            found.append(node.module)
        if isinstance(node, ast.ClassDef):
            found += [name for name in map(ast.unparse, node.bases) if name.endswith("Unpickler")]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            needed = {"weights_only"} if name == "torch.load" else set()
            if name.startswith("Auto") and name.endswith(".from_pretrained"):
                needed = {"trust_remote_code"}
            asked = any(given.get(option, value) != value for option, value in OPTIONS.items())
            if name in ALWAYS or asked or not needed <= given.keys():
                found.append(name)
    return found


def test_no_source_file_runs_what_it_reads() -> None:
    found = {
        file.relative_to(ROOT).as_posix(): calls
        for file in sorted(ROOT.rglob("*.py"))
        if (calls := unsafe(file.read_text(encoding="utf-8")))
    }
    assert found == {PROCESSES: ["pickle.load"] * 3, LISTS: ["pickle.Unpickler"]}


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=given)",
        "pickle.loads(data)",
        "from pickle import load",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "AutoConfig.from_pretrained(name)",
        "AutoModel.from_pretrained(name, trust_remote_code=given)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_search_finds_what_is_unsafe(line: str) -> None:
    assert len(unsafe(line)) == 1
    assert unsafe("torch.load(path, weights_only=True)\nyaml.safe_load(text)\nmodel.eval()\nre.compile(text)") == []


def test_what_is_unpickled_comes_from_processes_of_our_own() -> None:
    calls = [
        ast.unparse(node)
        for node in ast.walk(ast.parse((ROOT / PROCESSES).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pickle.load"
    ]
    assert sorted(calls) == [
        "pickle.load(process.stdout)",
        "pickle.load(sys.stdin.buffer)",
        "pickle.load(sys.stdin.buffer)",
    ]


def test_the_loader_of_configs_is_a_safe_one() -> None:
    from raptr.config.yaml import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    assert not issubclass(_Loader, yaml.FullLoader | yaml.UnsafeLoader)
    known = {tag for tag in _Loader.yaml_constructors if tag is not None}
    assert {tag for tag in known if not tag.startswith("tag:yaml.org,2002:")} == set()
    assert {tag for tag in known if "python" in tag} == set()


# Configs


REMOTE = [
    {"trust_remote_code": True},
    {"model": {"architecture": "llama", "trust_remote_code": True}},
    {"model": {"architecture": "llama", "config": {"trust_remote_code": True}}},
    {"model": {"architecture": "llama", "config": {"auto_map": {"AutoModelForCausalLM": "own.OwnModel"}}}},
    {"model": {"architecture": "llama", "config": {"attn_implementation": "someone/kernel"}}},
    {"model": {"from_config": "tiny-llama", "config": {"trust_remote_code": True}}},
    {"data": {"trust_remote_code": True}},
    {"data": {"tokenizer": {"name": "x", "trust_remote_code": True}}},
    {"data": {"sources": {"a": {"dataset": "x/y", "trust_remote_code": True}}}},
    {"data": {"sources": {"a": {"path": "x", "trust_remote_code": True}}}},
    {"training": {"trust_remote_code": True}},
    {"training": {**TINY["training"], "model_init_kwargs": {"trust_remote_code": True}}},
    {"methods": {"raptr": {"trust_remote_code": True}}},
    {"objective": {"name": "causal", "trust_remote_code": True}},
]


@pytest.mark.parametrize("changes", REMOTE, ids=json.dumps)
def test_no_config_asks_for_code_from_elsewhere(changes: dict[str, Any], cache: Path) -> None:
    given = {**TINY, **{key: changes[key] for key in changes}}
    with pytest.raises(RaptrError, match=r"trust_remote_code|auto_map|attn_implementation|model_init_|data\.tokenizer"):
        prepare_task(parse(given, "run.yaml"), cache)


@pytest.mark.slow
def test_the_config_of_a_run_that_goes_on_is_plain_yaml(tmp_path: Path, cache: Path) -> None:
    run(tiny(training__max_steps=4), tmp_path / "run", cache)
    place = tmp_path / "run" / "config.yaml"
    evil = f"!!python/object/apply:os.mkdir [{tmp_path / 'made'}]"
    place.write_text(place.read_text().replace("name: tiny", f"name: {evil}"))
    with pytest.raises(RaptrError, match=r"config\.yaml cannot be read"):
        run(tiny(training__max_steps=4), tmp_path / "run", cache)
    assert not (tmp_path / "made").exists()
    yaml.unsafe_load(place.read_text())
    assert (tmp_path / "made").exists(), "it would have run"


# Models and tokenizers


MAPS = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel", "AutoModel": "own.OwnModel"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A model's folder, with its tokenizer."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(tiny(training__max_steps=4), folder, cache)
    return folder / "model"


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Path:
    """The same with Python files of its own, which its configuration asks for."""
    folder = tmp_path / "own"
    shutil.copytree(trained, folder)
    (folder / "own.py").write_text(SCRIPT)
    edit(folder / "config.json", auto_map=MAPS)
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.slow
def test_the_folder_s_code_would_run_elsewhere(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    transformers.AutoConfig.from_pretrained(own, trust_remote_code=True)
    assert ran()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["from_config", "from_pretrained"])
def test_a_model_with_code_is_made_without_it(key: str, own: Path) -> None:
    config = tiny(model={key: str(own)}, data__tokenizer=str(own))
    made = build_model_config(config, 320)
    assert type(made) is transformers.LlamaConfig
    assert not hasattr(made, "auto_map"), "nor does what is saved ask for it"
    assert type(build_model(config, made)) is transformers.LlamaForCausalLM


@pytest.mark.slow
@pytest.mark.parametrize("key", ["from_config", "from_pretrained"])
def test_a_model_that_only_its_code_knows_is_refused(key: str, own: Path) -> None:
    edit(own / "config.json", model_type="own", architectures=["OwnModel"])
    with pytest.raises(RaptrError, match=f"model.{key} .* cannot be read"):
        build_model_config(tiny(model={key: str(own)}, data__tokenizer=str(own)), 320)


@pytest.mark.slow
def test_a_tokenizer_that_only_its_code_knows_is_refused(own: Path) -> None:
    edit(own / "config.json", model_type="own")
    edit(own / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": ["own.Own", None]})
    with pytest.raises(RaptrError, match=r"tokenizer .* cannot be loaded"):
        load_tokenizer(str(own))


@pytest.mark.slow
@BOTH
def test_weights_that_are_a_pickle_are_read_as_tensors_only(save: Save, own: Path) -> None:
    (own / "model.safetensors").unlink()
    save(own / "pytorch_model.bin")
    config = tiny(model={"from_pretrained": str(own)}, data__tokenizer=str(own))
    with pytest.raises(RaptrError, match=r"no llama model .* can be made from the weights"):
        build_model(config, build_model_config(config, 320))


# Data


def opened(section: dict[str, Any], cache: Path) -> Any:
    """The tokens of a config's data."""
    return prepare_task(parse({**TINY, "data": {**TINY["data"], **section}}, "run.yaml"), cache)


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (pickled, "description.json"),
        (saved, "description.json"),
        (saved, "train.bin"),
        (pickled, "validation.bin"),
        (saved, "tokenizer/tokenizer.json"),
        (pickled, "tokenizer/tokenizer_config.json"),
    ],
)
def test_stored_tokens_are_numbers_and_text(save: Save, name: str, tmp_path: Path, cache: Path) -> None:
    task = opened({}, cache)
    store = next(iter(task.store.stores.values())).path
    shutil.copytree(store, tmp_path / "cache" / store.name)
    save(tmp_path / "cache" / store.name / name)
    with pytest.raises(RaptrError, match=r"damaged|cannot be loaded"):
        prepare_task(task.config, tmp_path / "cache")


def test_a_dataset_s_script_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(SCRIPT)
    source = {"sources": {"a": {"dataset": str(folder)}}, "source": None}
    with pytest.raises(RaptrError, match="cannot be read"):
        opened(source, tmp_path / "cache")
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": f"line {k} of it"}) + "\n" for k in range(999)))
    with pytest.raises(RaptrError, match="cannot be read: Dataset scripts are no longer supported"):
        opened(source, tmp_path / "cache")


@pytest.mark.parametrize("builder", ["pandas", "webdataset", "sql", "eval"])
def test_builders_that_read_more_than_text_are_refused(builder: str, tmp_path: Path) -> None:
    pickled(tmp_path / "a.pkl")
    asked = {"dataset": builder, "files": str(tmp_path / "a.pkl"), "revision": 40 * "0"}
    with pytest.raises(RaptrError, match=f"dataset '{builder}' is a builder of the datasets library that raptr does"):
        opened({"sources": {"a": asked}, "source": None}, tmp_path / "cache")


def test_a_pickle_is_no_text(tmp_path: Path) -> None:
    for ending in ("txt", "jsonl", "parquet", "txt.gz", "jsonl.zst", "pkl"):
        pickled(tmp_path / f"a.{ending}")
        with pytest.raises(RaptrError):
            opened({"source": str(tmp_path / f"a.{ending}"), "strict": True}, tmp_path / "cache")
