"""Configs: presets, overrides, and every wrong file refused with one message."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raptr.config import DataConfig, RunConfig, dump, load, parse, presets
from raptr.config.catalogue import preset_entry
from raptr.errors import RaptrError
from raptr.plan import METHODS, Full, ModelShape, RaPTr, Schedule

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a config file and returns its path."""

    def _write(text: str | bytes, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return path

    return _write


def refusal(source: str | Path, overrides: Sequence[str] = ()) -> str:
    """The message with which a config or one of its methods is refused."""
    with pytest.raises(RaptrError) as caught:
        _build(load(source, overrides))
    return str(caught.value)


def _build(config: RunConfig) -> list[Any]:
    """The specs of all methods that a config names."""
    return [config.build_method(label) for label in config.methods]


# Presets


@pytest.mark.parametrize("name", presets())
def test_presets_load_and_their_methods_fit_their_model(name: str) -> None:
    config = load(name)
    assert config.name == name
    layers = preset_entry(name).layers
    for label in {config.method, *config.methods, "full"}:
        plan = config.build_method(label).plan(ModelShape.of(layers=layers), config.training["max_steps"])
        assert plan.stages[-1].sizes == layers


def test_the_demo_is_what_it_says() -> None:
    config = load("demo")
    assert "demo" in presets()
    assert config.build_method() == RaPTr("6-8-10-12", fixed=(0, -1), sampler="fixed", seed=0)
    assert config.build_method("full") == Full()
    assert config.training["learning_rate"] == 2e-2
    assert config.data.max_bytes == 12_000_000


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    message = refusal("dmeo")
    assert "'dmeo'" in message
    assert "neither a file nor a preset" in message
    for name in presets():
        assert name in message


# Overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E-3", 0.001),
        ("1.5e-3", 0.0015),
        (".5e2", 50.0),
        ("-2e4", -20000.0),
        ("0.001", 0.001),
        ("100", 100),
        ("1_000", 1000),
        ("true", True),
        ("null", None),
        ("", None),
        ("linear", "linear"),
        ("'1e-3'", "1e-3"),
        ("e-3", "e-3"),
        ("[1, 2e-1, x]", [1, 0.2, "x"]),
        ("{a: 1e-3}", {"a": 0.001}),
        ("a=b", "a=b"),
        ("runs/x-1e3", "runs/x-1e3"),
    ],
)
def test_override_values_are_yaml_in_which_1e_3_is_a_number(text: str, value: Any) -> None:
    found = load("demo", [f"training.some_key={text}"]).training["some_key"]
    assert found == value
    assert type(found) is type(value)


def test_overrides_reach_every_section_and_leave_the_rest() -> None:
    plain = load("demo")
    config = load(
        "demo",
        [
            "name=other",
            "seed=7",
            "data.sequence_length=64",
            "training.learning_rate=1e-3",
            "training.new.nested.key=[1, 2]",
            "methods.raptr.fixed=[0]",
            "methods.raptr.warmup=0.1",
            "methods.control.method=raptr",
            "methods.control.schedule=12",
            "evaluation.every=50",
            "seed=8",
        ],
    )
    assert (config.name, config.seed, config.data.sequence_length) == ("other", 8, 64)
    assert config.training == {**plain.training, "learning_rate": 0.001, "new": {"nested": {"key": [1, 2]}}}
    assert config.build_method() == RaPTr(Schedule.parse("6-8-10-12", warmup=0.1), fixed=(0,), seed=8)
    assert config.build_method("control") == RaPTr("12", seed=8)
    assert config.model == plain.model
    assert config.evaluation.every == 50
    assert load("demo") == plain


def test_an_override_does_not_leak_through_an_alias(write: Write) -> None:
    path = write("name: x\nmethods:\n  a: &a {method: raptr, schedule: 6-12}\n  b: *a\n")
    try:
        config = load(path, ["methods.a.warmup=5"])
    except RaptrError:  # refusing aliases is as good
        return
    assert (config.methods["a"].warmup, config.methods["b"].warmup) == (5, 0)


@pytest.mark.parametrize("override", ["abc", "=3", "", "a..b=3", ".a=3", "a.=3", "--seed 3"])
def test_what_is_not_key_value_is_refused(override: str) -> None:
    message = refusal("demo", [override])
    assert repr(override) in message
    assert "key=value" in message


def test_an_override_into_a_value_is_refused() -> None:
    assert "'name.first=3': name is a value" in refusal("demo", ["name.first=3"])
    assert "methods.raptr.schedule is a value" in refusal("demo", ["methods.raptr.schedule.x.y=3"])


def test_an_override_fills_an_empty_section(write: Write) -> None:
    path = write("name: x\ntraining:\n")
    assert load(path, ["training.max_steps=3"]).training == {"max_steps": 3}


def test_overrides_fill_an_empty_file_or_say_that_it_is_empty(write: Write) -> None:
    path = write("")
    try:
        assert load(path, ["name=x"]).name == "x"
    except RaptrError as error:
        assert "empty" in str(error)  # noqa: PT017


# Unknown keys

UNKNOWN = [
    ("nmae: x", "nmae", "'name'"),
    ("name: x\ntrainning: {}", "trainning", "'training'"),
    ("name: x\nmodel: {architectur: llama}", "model.architectur", "'architecture'"),
    ("name: x\ndata: {sequence_len: 5}", "data.sequence_len", "'sequence_length'"),
    ("name: x\nobjective: {name: masked, rat: 0.2}", "objective.rat", "'rate'"),
    ("name: x\nevaluation: {evry: 5}", "evaluation.evry", "'every'"),
    ("name: x\nmethods: {raptr: {shedule: 6-12}}", "methods.raptr.shedule", "'schedule'"),
    ("name: x\nmethods: {own: {method: raptr, lenghts: equal}}", "methods.own.lenghts", "'lengths'"),
]


@pytest.mark.parametrize(("text", "key", "suggestion"), UNKNOWN, ids=[key for _, key, _ in UNKNOWN])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    write: Write, text: str, key: str, suggestion: str
) -> None:
    message = refusal(write(text))
    assert f"{key}: this key is not known; did you mean {suggestion}" in message
    assert "run.yaml" in message


@pytest.mark.parametrize(
    ("text", "key", "candidates"),
    [
        ("name: x\nzzz: 1", "zzz", ["data", "evaluation", "method", "methods", "model", "objective", "training"]),
        ("name: x\nmodel: {zzz: 1}", "model.zzz", ["architecture", "config"]),
        ("name: x\nmethods: {raptr: {zzz: 1}}", "methods.raptr.zzz", ["schedule", "lengths", "warmup", "fixed"]),
    ],
)
def test_an_unknown_key_that_is_near_nothing_is_refused_with_all_known_ones(
    write: Write, text: str, key: str, candidates: list[str]
) -> None:
    message = refusal(write(text))
    assert f"{key}: this key is not known" in message
    for name in candidates:
        assert name in message


def test_every_problem_is_named_at_once(write: Write) -> None:
    message = refusal(write("nmae: x\nseed: -1\ndata: {sequence_length: 1}"))
    for part in ("nmae: this key", "seed", "data.sequence_length", "name is missing"):
        assert part in message


# Wrong values

WRONG = [
    ("seed: -1", "seed", "-1"),
    ("seed: 4294967296", "seed", "4294967296"),
    ("seed: 1.5", "seed", "1.5"),
    ("seed: [1]", "seed", "[1]"),
    ("name: [x]", "name", "['x']"),
    ("name: ../x", "name", "'../x'"),
    ("name: .hidden", "name", "'.hidden'"),
    ("name: ''", "name", "''"),
    ('name: "x\\n"', "name", "x"),
    ("model: llama", "model", "'llama'"),
    ("model: {config: [1]}", "model.config", "[1]"),
    ("training: [1]", "training", "[1]"),
    ("training: {1: 2}", "training.1", "1"),
    ("methods: [raptr]", "methods", "['raptr']"),
    ("methods: {raptr: 6-12}", "methods.raptr", "'6-12'"),
    ("methods: {a/b: {}}", "methods.a/b", "'a/b'"),
    ("methods: {raptr: {sampler: bernouli}}", "methods.raptr.sampler", "'bernouli'"),
    ("methods: {raptr: {inactive: thaw}}", "methods.raptr.inactive", "'thaw'"),
    ("methods: {raptr: {lengths: equall}}", "methods.raptr.lengths", "'equall'"),
    ("methods: {raptr: {fixed: 0}}", "methods.raptr.fixed", "0"),
    ("methods: {raptr: {fixed: [0.5]}}", "methods.raptr.fixed", "0.5"),
    ("methods: {raptr: {schedule: [6, 12]}}", "methods.raptr.schedule", "[6, 12]"),
    ("methods: {raptr: {schedule: true}}", "schedule", "rue"),
    ("methods: {raptr: {warmup: often}}", "methods.raptr.warmup", "'often'"),
    ("methods: {raptr: {schedule: 6-12, warmup: .nan}}", "warmup", "nan"),
    ("data: {sequence_length: 1}", "data.sequence_length", "1"),
    ("data: {max_bytes: 0}", "data.max_bytes", "0"),
    ("data: {validation_share: 1.0}", "data.validation_share", "1.0"),
    ("data: {validation_share: .nan}", "data.validation_share", "nan"),
    ("data: {tokenizer: 2.5}", "data.tokenizer", "2.5"),
    ("data: {tokenizer: -5}", "data.tokenizer", "-5"),
    ("data: {tokenizer: ''}", "data.tokenizer", "''"),
    ("data: {source: {a: 5}}", "data.source", "5"),
    ("data: {source: ''}", "data.source", "''"),
    ("model: {from_pretrained: ''}", "model.from_pretrained", "''"),
    ("objective: {name: permuted}", "objective", "'permuted'"),
    ("objective: {name: masked, rate: 0}", "objective.rate", "0"),
    ("objective: {name: causal, rate: 0.2}", "objective.rate", "not known"),
    ("objective: {rate: 0.2}", "objective.", "name"),
    ("objective: {}", "objective.name", "causal"),
    ("methods: {own: {schedule: 6-12}}", "methods.own.method", "raptr"),
    ("evaluation: {every: 0}", "evaluation.every", "0"),
    ("evaluation: {every: 1.5}", "evaluation.every", "1.5"),
    ("evaluation: {every: .nan}", "evaluation.every", "nan"),
    ("evaluation: {sequences: 0}", "evaluation.sequences", "0"),
]


@pytest.mark.parametrize(("text", "key", "given_"), WRONG, ids=[text for text, *_ in WRONG])
def test_a_wrong_value_is_refused_with_its_key_and_what_was_given(
    write: Write, text: str, key: str, given_: str
) -> None:
    message = refusal(write(text if text.startswith("name") else f"name: x\n{text}"))
    assert key in message
    assert given_ in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "methods: {raptr: {lengths: proprtional}}",
            "methods.raptr.lengths is 'proprtional'; expected equal, proportional, or a list such as "
            "[0.1, 0.2, 0.7] or [100, 200, 700]; did you mean 'proportional'?",
        ),
        ("methods: {own: {method: raptr, lengths: [0.5, x]}}", "methods.own.lengths is [0.5, 'x']; expected equal,"),
        (
            "methods: {raptr: {warmup: often}}",
            "methods.raptr.warmup is 'often'; expected a number of steps, or",
        ),
        ("methods: {raptr: {fixed: [0.5]}}", "methods.raptr.fixed holds 0.5; expected layer numbers such as [0, -1]"),
        ("methods: {raptr: {fixed: x}}", "methods.raptr.fixed is 'x'; expected layer numbers such as [0, -1]"),
        ("data: {tokenizer: 1024.5}", "data.tokenizer is 1024.5; expected a number of entries such as 4096, or the"),
        ("data: {tokenizer: -5}", "data.tokenizer: Input should be greater than 0; given: -5"),
        ("data: {sources: {int: 5}}", "data.sources.int: Input should be a valid dictionary"),
        ("data: {int: 5}", "data.int: this key is not known"),
        ("evaluation: {every: abc}", "evaluation.every is 'abc'; expected a number of steps, or a share of the run"),
    ],
)
def test_a_value_that_may_be_of_several_types_is_refused_in_one_line(write: Write, text: str, line: str) -> None:
    first, *lines = refusal(write(f"name: x\nseed: -1\n{text}")).splitlines()
    assert first.endswith("is not valid:")
    assert lines[0].startswith("  seed: ")
    assert len(lines) == 2
    assert lines[1].startswith(f"  {line}")


def test_problems_stay_in_their_order_and_only_those_of_one_key_are_merged(write: Write) -> None:
    text = "name: [5]\nseed: x\ndata: {tokenizer: 1.5, text_field: [3]}\nevaluation: {every: x, sequences: x}\n"
    keys = ["name", "seed", "data.text_field", "data.tokenizer", "evaluation.every", "evaluation.sequences"]
    assert [line.split()[0].rstrip(":") for line in refusal(write(text)).splitlines()[1:]] == keys


@pytest.mark.parametrize(
    "text",
    [
        "seed: true",
        "seed: '3'",
        "evaluation: {every: true}",
        "evaluation: {every: '5'}",
        "data: {tokenizer: true}",
        "methods: {raptr: {schedule: 6-12, warmup: '0.1'}}",
        "methods: {raptr: {schedule: 6-12, warmup: true}}",
        "methods: {raptr: {schedule: 6-12, fixed: ['0']}}",
    ],
)
def test_a_text_or_a_truth_value_is_not_taken_for_a_number(write: Write, text: str) -> None:
    assert "not valid" in refusal(write(f"name: x\n{text}"))


def test_a_name_is_required(write: Write) -> None:
    assert "name is missing" in refusal(write("seed: 1"))


# Files


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none.yaml")
    assert "none.yaml" in message
    assert "No such file" in message


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(tmp_path)


def test_a_folder_does_not_hide_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("demo").name == "demo"


@pytest.mark.parametrize("source", ["", "a" * 5000, "a" * 5000 + ".yaml", "a\0b", "a\0b.yaml"], ids=lambda s: s[-9:])
def test_impossible_file_names_are_refused(source: str) -> None:
    assert refusal(source)


def test_a_file_without_a_yaml_ending_is_read(write: Write) -> None:
    assert load(write("name: x", "config.txt")).name == "x"


@pytest.mark.parametrize("content", [b"name: \xff\xfe", "name: x".encode("utf-16")])
def test_what_is_not_utf_8_is_refused(write: Write, content: bytes) -> None:
    message = refusal(write(content))
    assert "run.yaml" in message
    assert "utf-8" in message


@pytest.mark.parametrize(("text", "holds"), [("", ""), ("- a", "list"), ("5", "int"), ("text", "str"), ("~", "")])
def test_what_is_not_a_mapping_is_refused(write: Write, text: str, holds: str) -> None:
    message = refusal(write(text))
    assert "run.yaml" in message
    assert holds in message
    assert "'model:'" in message


# YAML

UNSAFE = [
    "name: !!python/object/apply:os.system ['touch {mark}']",
    "name: x\ntraining: !!python/object/apply:subprocess.check_output [['touch', '{mark}']]",
    "!!python/object/new:os.system ['touch {mark}']",
    "name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]",
    "name: !!python/name:os.system",
    "name: !!python/tuple [1]",
    "name: !own x",
]


@pytest.mark.parametrize("text", UNSAFE)
def test_unsafe_yaml_is_refused_and_not_run(write: Write, tmp_path: Path, text: str) -> None:
    mark = tmp_path / "mark"
    message = refusal(write(text.replace("{mark}", str(mark))))
    assert "not safe, plain YAML" in message
    assert not mark.exists()
    override = text.replace("{mark}", str(mark)).splitlines()[-1].partition(": ")[2]
    if override:
        assert "not safe, plain YAML" in refusal("demo", [f"training.x={override}"])
        assert not mark.exists()


@pytest.mark.slow
def test_the_unsafe_text_would_have_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    yaml.unsafe_load(UNSAFE[0].replace("{mark}", str(mark)))
    assert mark.exists()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("name: x\nseed: 1\nseed: 1", "'seed'"),
        ("name: x\nmodel: {config: {a: 1, b: 2, a: 3}}", "'a'"),
        ("name: x\nmethods:\n  raptr: {schedule: 6-12}\n  raptr: {schedule: 8-12}", "'raptr'"),
    ],
)
def test_a_repeated_key_is_refused_with_its_line(write: Write, text: str, key: str) -> None:
    message = refusal(write(text))
    assert f"key {key} is given twice" in message
    assert "line" in message


@pytest.mark.parametrize(
    "text",
    [
        "name: {{ x }}",
        "? [a]\n: b",
        "{a: 1}: b",
        "seed: 2020-99-99",
        "seed: 0100",
        "seed: 1:30",
        "seed: &a 5",
        "seed: 0b_",
        "seed: 0x_",
        "seed: " + "9" * 5000,
        "seed: 0x" + "f" * 5000,
        "seed: !!int abc",
        "seed: !!float abc",
        "name: !!bool abc",
        "name: !!timestamp abc",
        "name: !!binary abc",
        "name: *nowhere",
        "name: [",
        "name: 'x",
        "name: x\n---\nname: y",
        "\x00",
        "name: x\n\tseed: 1",
        "a: &a [*a]",
        "&a {b: *a}",
        "%YAML 9.9\n---\nname: x: y",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_broken_yaml_is_refused(write: Write, text: str) -> None:
    assert "run.yaml" in refusal(write(text))
    value = text.partition(": ")[2]
    with pytest.raises(RaptrError):
        load(load_source := write("seed: 1"), [f"seed={value}"])
    assert load_source.exists()


def test_a_merge_key_is_merged_or_refused_by_its_name(write: Write) -> None:
    path = write("name: x\nmethods:\n  a: &a {method: raptr, schedule: 6-12}\n  b: {<<: *a, warmup: 5}\n")
    try:
        assert load(path).build_method("b") == RaPTr(Schedule.parse("6-12", warmup=5))
    except RaptrError as error:
        assert "merge key" in str(error) or "alias" in str(error)  # noqa: PT017


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (6, 6))
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from raptr.config import dump, load
from raptr.config.catalogue import preset_entry
from raptr.errors import RaptrError
try:
    dump(load(sys.argv[1]))
except RaptrError as error:
    print("refused", len(str(error)))
else:
    print("accepted")
"""


def _limited(path: Path) -> str:
    """What becomes of a config in a process that may use 6 s and 1 GiB."""
    command = [sys.executable, "-c", LIMITED, str(path)]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip() or "crashed"
    except subprocess.TimeoutExpired:
        return "hung"


def _bomb(levels: int) -> list[str]:
    """Ten aliases a level: 10**levels values in a few hundred bytes."""
    lines = ["b0: &b0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"b{level}: &b{level} [{', '.join([f'*b{level - 1}'] * 10)}]")
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("place", ["top", "model", "name", "method"])
def test_an_alias_bomb_is_refused_in_no_time(write: Write, place: str) -> None:
    lines = _bomb(12)
    inner = "\n".join(f"    {line}" for line in lines)
    text = {
        "top": "name: x\n" + "\n".join(lines),
        "model": f"name: x\nmodel:\n  config:\n{inner}",
        "name": f"model:\n  config:\n{inner}\nname: *b11",
        "method": f"name: x\nmodel:\n  config:\n{inner}\nmethods: {{raptr: {{fixed: *b11}}}}",
    }[place]
    answer = _limited(write(text))
    assert answer.startswith("refused")
    assert int(answer.split()[1]) < 20_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["name: x\nmodel: {config: {y: " + "[" * 20000, "name: x\nseed: " + "[" * 200 + "]" * 200, "{a: " * 20000]
)
def test_deep_nesting_is_refused_in_no_time(write: Write, text: str) -> None:
    answer = _limited(write(text))
    assert answer.startswith("refused")
    assert int(answer.split()[1]) < 20_000


@pytest.mark.slow
def test_the_limited_process_accepts_what_is_right(write: Write) -> None:
    assert _limited(write("name: x\nobjective: {name: masked}")) == "accepted"


def test_a_message_does_not_repeat_a_megabyte(write: Write) -> None:
    assert len(refusal(write(f"name: x\nseed: [{', '.join(['0'] * 20_000)}]"))) < 20_000


# Methods


def test_a_method_needs_no_entry_and_an_entry_may_name_its_method(write: Write) -> None:
    config = load(write("name: x\nmethods: {base: {method: full}, half: {method: raptr, schedule: 50%-100%}}"))
    assert config.build_method("full") == config.build_method("base") == Full()
    assert config.build_method("half") == RaPTr("50%-100%", seed=0)
    assert config.settings("half").method == "raptr"


def test_all_settings_of_raptr_arrive(write: Write) -> None:
    text = (
        "name: x\nseed: 3\nmethods:\n  raptr: {schedule: 6-8-12, lengths: [0.2, 0.3, 0.5], "
        "warmup: 0.1, fixed: [0, 1, -1], sampler: bernoulli}"
    )
    schedule = Schedule.parse("6-8-12", lengths=(0.2, 0.3, 0.5), warmup=0.1)
    expected = RaPTr(schedule, fixed=(0, 1, -1), sampler="bernoulli", seed=3)
    assert load(write(text)).build_method() == expected
    counts = load(write(text), ["methods.raptr.lengths=[10, 20, 30]", "methods.raptr.warmup=7"]).build_method()
    assert counts == RaPTr(
        Schedule.parse("6-8-12", lengths=(10, 20, 30), warmup=7), fixed=(0, 1, -1), sampler="bernoulli", seed=3
    )


def test_an_unknown_method_is_refused_with_the_known_ones(write: Write) -> None:
    config = load(write("name: x\nmethod: stacking\nmethods: {own: {method: full}, other: {method: full}}"))
    for label, said in (
        (None, ["'stacking'", "did you mean", "'gradual_stacking'"]),
        ("raptor", ["'raptor'", "did you mean 'raptr'?"]),
        ("otter", ["did you mean 'other'?", "methods.otter"]),
        ("xyz", ["'xyz'", "full", "raptr", "other", "own"]),
    ):
        with pytest.raises(RaptrError) as caught:
            config.build_method(label)
        for part in said:
            assert part in str(caught.value)
        assert ("late_expansion" in str(caught.value)) == (label == "xyz"), "all of them only where none is near"
    message = refusal(write("name: x\nmethods: {own: {method: stacking}}"))
    assert "methods.own" in message
    for name in ("'stacking'", *METHODS):
        assert name in message


@pytest.mark.parametrize(
    "setting",
    ["schedule: 6-12", "warmup: 0", "lengths: equal", "fixed: [0]", "sampler: fixed", "inactive: zero"],
)
def test_settings_without_effect_on_full_training_are_refused(write: Write, setting: str) -> None:
    message = refusal(write(f"name: x\nmethods: {{base: {{method: full, {setting}}}}}"))
    assert f"methods.base.{setting.partition(':')[0]}" in message


def test_raptr_without_a_schedule_has_the_papers_in_shares(write: Write) -> None:
    expected = RaPTr(Schedule.parse("50%-66.7%-83.3%-100%", warmup=5))
    assert load(write("name: x\nmethods: {raptr: {warmup: 5}}")).build_method() == expected
    assert load(write("name: x")).build_method() == load(write("name: x\nmethods:\n  raptr:\n")).build_method()
    assert load(write("name: x")).build_method().plan(ModelShape.of(layers=12), 100).stages[0].sizes == (6,)


@pytest.mark.parametrize(
    ("settings_", "given_"),
    [
        ("schedule: 6-x", "'6-x'"),
        ("schedule: 0-12", "size 0"),
        ("schedule: 6-12, lengths: [1]", "1 stage lengths"),
        ("schedule: 6-12, lengths: [0.5, 0.6]", "1.1"),
        ("schedule: 6-12, lengths: []", "0 stage lengths"),
        ("schedule: 6-12, warmup: -1", "warmup=-1"),
        ("schedule: 6-12, warmup: 1.0", "warmup=1.0"),
        ("schedule: 6-12, warmup: .nan", "nan"),
        ("schedule: 6-12, lengths: [.nan, 0.5]", "nan"),
    ],
)
def test_a_wrong_schedule_is_refused_with_what_was_given(write: Write, settings_: str, given_: str) -> None:
    assert given_ in refusal(write(f"name: x\nmethods: {{raptr: {{{settings_}}}}}"))


# Round trip

FULL = """
name: round-trip_1.0
seed: 5
method: base
methods:
  base: {method: full}
  full: {}
  raptr: {schedule: 12, fixed: [], lengths: proportional}
  other: {method: raptr, schedule: 50%-100%, lengths: [0.25, 0.75], warmup: 0.1, sampler: bernoulli, inactive: zero}
  third: {method: raptr, schedule: 6-12, lengths: [10, 20], warmup: 3}
model: {architecture: bert, config: {hidden_size: 8, words: [a, 'no', "1e-3", é, "\\n", null, 1.5e-7, true]}}
data: {source: a.txt, validation: b.txt, max_bytes: 1000000, tokenizer: gpt2, text_field: body}
objective: {name: masked, rate: 0.3}
training: {learning_rate: 1e-3, betas: [0.9, 0.95], nested: {a: {b: 1}}}
evaluation: {every: 1.0, sequences: 3}
"""


@pytest.mark.parametrize("text", [None, "name: x", "name: x\nobjective: {name: masked}", FULL])
def test_a_config_that_is_written_and_read_again_is_the_same(write: Write, text: str | None) -> None:
    config = load("demo") if text is None else load(write(text, "first.yaml"))
    again = load(write(dump(config), "again.yaml"))
    assert again == config
    assert dump(again) == dump(config)
    assert type(again.evaluation.every) is type(config.evaluation.every)
    for label in {"full", *config.methods}:
        assert again.build_method(label) == config.build_method(label)


def test_a_written_config_holds_every_value() -> None:
    data = yaml.safe_load(dump(load("demo")))
    assert set(data) == set(RunConfig.model_fields)
    assert data["data"]["validation_share"] == 0.02


def test_a_config_is_frozen() -> None:
    config = load("demo")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValueError, match="frozen"):
        config.data.sequence_length = 3


# Anything at all

KEYS = st.sampled_from([*RunConfig.model_fields, "raptr", "schedule", "fixed", "lengths", "warmup", "every", "config"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(["x", "full", "raptr", "causal", "masked", "6-8-10-12", "50%-100%", "equal", "bernoulli"]),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(KEYS, KEYS, SCALARS), inner, max_size=5),
    ),
    max_leaves=12,
)
RIGHT = [
    {"method": "raptr", "schedule": "6-8-10-12"},
    {"method": "raptr", "schedule": "50%-100%", "lengths": [0.25, 0.75], "warmup": 0.1, "sampler": "bernoulli"},
    {"method": "raptr", "schedule": "6-12", "lengths": [30, 60], "warmup": 10, "fixed": [0, 1, -1]},
]
SIZES = st.one_of(st.sampled_from(["12-6", "6-8", "0-12", 12]), st.text("0123456789%-. ", max_size=12))
NUMBERS = st.one_of(st.floats(), st.integers(), st.sampled_from([float("nan"), float("inf"), 10**30, -1, 0, 0.0, 1.0]))
ONE_WRONG = st.one_of(
    st.tuples(st.just("schedule"), SIZES),
    st.tuples(st.just("warmup"), NUMBERS),
    st.tuples(st.just("lengths"), st.lists(NUMBERS, min_size=2, max_size=2)),
    st.tuples(st.just("fixed"), st.lists(st.integers(-20, 20), max_size=4)),
    st.tuples(st.sampled_from(["method", "schedule", "lengths", "warmup", "fixed", "sampler", "inactive"]), JUNK),
)
METHODS_JUNK = st.fixed_dictionaries(
    {"raptr": st.builds(lambda right, wrong: {**right, wrong[0]: wrong[1]}, st.sampled_from(RIGHT), ONE_WRONG)}
)
SECTIONS = st.fixed_dictionaries(
    {"name": st.just("x")},
    optional={
        "seed": SCALARS,
        "method": st.one_of(st.sampled_from(["raptr", "full", "own"]), JUNK),
        "methods": METHODS_JUNK,
        "model": JUNK,
        "data": st.dictionaries(st.sampled_from([*DataConfig.model_fields]), SCALARS, max_size=4),
        "objective": st.dictionaries(st.sampled_from(["name", "rate"]), SCALARS),
        "training": JUNK,
        "evaluation": st.dictionaries(st.sampled_from(["every", "sequences"]), SCALARS),
    },
)
PIECES = [
    *("name", "seed", "x", "1", ": ", ": ", "- ", "\n", "\n  ", "{", "}", "[", "]", ", ", "? ", "&a ", "*a", "<<: "),
    *("!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!set ", "!!omap ", "!!binary ", "!x ", "0x_", "0b_", "1e3"),
    *("2020-99-99", "2020-01-01", ".nan", ".inf", "1:30", "'", '"', "#", "|\n", ">\n", "%YAML 1.1\n", "---\n", "\t"),
    *("~", "=", "\\", '"\\ud800"', '"\\0"', "\x07", "é", "@", "`", "true", "no"),
]


def _escaped(make: Callable[[], RunConfig]) -> Exception | None:
    """What a config, its methods or their plans raised that is not a RaptrError."""
    try:
        config = make()
        for label in {config.method, *config.methods}:
            config.build_method(label).plan(ModelShape.of(layers=12), 100)
    except RaptrError:
        return None
    except Exception as error:
        return error
    return None


@pytest.mark.slow
@given(st.one_of(JUNK, SECTIONS, METHODS_JUNK.map(lambda methods: {"name": "x", "methods": methods})))
@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_data_raises_anything_but_a_raptr_error(junk: Any) -> None:
    assert _escaped(lambda: parse(junk, "junk")) is None


@pytest.mark.slow
@example(text="!!int ")
@given(st.one_of(JUNK.map(yaml.dump), st.lists(st.sampled_from(PIECES), max_size=9).map("".join)))
@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_file_and_no_override_raises_anything_but_a_raptr_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "junk.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    assert _escaped(lambda: load(path)) is None
    assert _escaped(lambda: load("demo", [f"training.x={text}", text])) is None
    assert _escaped(lambda: load("demo", [f"methods.raptr.warmup={text}"])) is None


def test_what_escapes_is_noticed() -> None:
    assert isinstance(_escaped(lambda: 1 / 0), ZeroDivisionError)  # type: ignore[arg-type,return-value]
    assert _escaped(lambda: load("demo")) is None
    assert _escaped(lambda: load("demo", ["methods.raptr.schedule=6-8"])) is None
