"""Settings that are text are what was typed, whatever YAML reads it as; everything else is never cut."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raptr.cli.options import cache_folder
from raptr.compare.sweep import parse_sweep
from raptr.config import RunConfig, dump, load, parse
from raptr.config.filter_rule import parse_rule
from raptr.config.literal import read_setting
from raptr.config.yaml import read_yaml, write_yaml
from raptr.errors import RaptrError

ODD = (
    *("notes #1", "#1", "a\t#b", "&a notes", "*a", "!x notes", "--- notes", "...", "%x", "- notes", "? x", "a: b"),
    *("2026", "007", "0x10", "1_000", "-5", "+5", ".5", ".inf", ".nan", "1:30", "12:30:45.5", "0b11", "|", ">"),
    *(
        "2026-01-31",
        "2026-01-31 10:00:00",
        "2026-99-99",
        "yes",
        "no",
        "On",
        "OFF",
        "true",
        "False",
        "~",
        "=",
        "<<",
        "@x",
    ),
    *("`x`", "{x}", "[x", "[ab]*.txt", " notes", "notes ", "\tnotes", "'a' 'b'", "a\nb"),
)
"""Texts that YAML 1.1 reads as something else, as a part of themselves, or not at all."""

PLAIN = ("notes", "1e3", "0o17", "it's", "a, b", "a  b", "C:\\new", "日本", "a#b", "no 1")
"""Texts that YAML 1.1 reads as they are."""


def configured(*overrides: str) -> RunConfig:
    return load("demo", overrides)


@pytest.mark.parametrize("text", [*ODD, *PLAIN])
def test_a_text_on_the_command_line_is_taken_literally(text: str) -> None:
    for key in ("data.source", "model.architecture", "data.sources.a.filter", "methods.x.schedule"):
        assert read_setting(key.split("."), text, "it") == text


def test_texts_of_the_command_line_reach_the_config() -> None:
    files = ["data.source=null", "data.sources.a.dataset=csv", "data.sources.a.files=[ab]*.txt #1"]
    assert configured(*files).data.sources["a"].files == ["[ab]*.txt #1"]
    assert configured("data.source=notes #1").data.source == "notes #1"
    assert configured("data.source=no", "data.validation=2026").data.validation == "2026"


def test_the_odd_texts_are_odd() -> None:
    def read(text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            return error

    assert [text for text in ODD if read(text) == text] == []
    assert [text for text in PLAIN if read(text) != text] == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data.validation=null", None),
        ("data.source='notes #1'", "notes #1"),
        ('data.source="a\\tb"', "a\tb"),
        ("data.source='null'", "null"),
        ("methods.raptr.schedule=12", "12"),
        ("methods.raptr.schedule=012", "012"),
        ("methods.raptr.schedule=6:12", "6:12"),
        ("methods.raptr.lengths=[10, 20]", [10, 20]),
        ("methods.raptr.lengths=equal", "equal"),
        ("data.tokenizer=4096", 4096),
        ("data.tokenizer=notes #1", "notes #1"),
        ("seed=0x10", 16),
        ("name=2026-01-31", "2026-01-31"),
        ("training.run_name=notes #1", "notes #1"),
        ("training.run_name=#1", "#1"),
        ("training.run_name=2026-01-31", "2026-01-31"),
        ("training.run_name=1:30", "1:30"),
        ("training.run_name=---", "---"),
        ("training.bf16=yes", True),
        ("model.config.id2label={0: a, 1: no}", {0: "a", 1: False}),
        ("model.config.x=[2026-01-31, 1:30]", ["2026-01-31", "1:30"]),
    ],
)
def test_quotes_null_and_values_of_other_types_are_as_in_yaml(setting: str, value: Any) -> None:
    keys = setting.partition("=")[0].split(".")
    found: Any = configured(setting)
    for key in keys:
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.max_steps=0100", "0100 begins with a zero"),
        ("seed=-010", "-010 begins with a zero"),
        ("seed=1:30", "'1:30'"),
        ("seed=1 #2", "'1 #2'"),
        ("data.max_bytes=2026-01-31", "'2026-01-31'"),
        ("data.source=", "is empty"),
        ("name=", "is empty"),
        ("methods.raptr.fixed=[0, -1] #2", "'#2' would be cut off"),
        ("training.run_name='a' # b", "'# b' would be cut off"),
        ("training.run_name=&a b", "anchors"),
        ("training.run_name=!x b", "not safe, plain YAML"),
        ("evaluation.every=0,5", "'0,5'"),
        ("data.strict=ja", "'ja'"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(setting: str, said: str) -> None:
    with pytest.raises(RaptrError, match=re.escape(said)):
        configured(setting)


FILE = """
name: 2026-01-31
method: 007
methods: {007: {method: full}, no: {method: raptr, schedule: 6:30}, 6.5: {method: smaller, layers: 0_9}}
model: {architecture: yes, config: {id2label: {0: a}, day: 2026-01-31, time: 1:30, flag: on}}
data:
  sources:
    2026: {path: 1e3, text: no, filter: [a == 1, 2026-01-31 < 3], validation: null}
    on: {dataset: text, files: [1_000, .5, "no", off], validation: ~}
  mixture: 2026:1,on:30
  tokenizer: 1:30
"""


def test_texts_of_a_file_are_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(FILE)
    config = load(path)
    assert (config.name, config.method, list(config.methods)) == ("2026-01-31", "007", ["007", "no", "6.5"])
    assert (config.methods["no"].schedule, config.methods["6.5"].layers) == ("6:30", "0_9")  # type: ignore[attr-defined]
    assert config.model.architecture == "yes"
    assert config.model.config == {"id2label": {0: "a"}, "day": "2026-01-31", "time": "1:30", "flag": True}
    first, second = config.data.sources["2026"], config.data.sources["on"]
    assert (first.path, first.text, first.filter) == ("1e3", "no", ["a == 1", "2026-01-31 < 3"])
    assert (second.files, second.validation) == (["1_000", ".5", "no", "off"], None)
    assert config.data.tokenizer == "1:30"
    assert dump(parse(yaml.safe_load(dump(config)), "again")) == dump(config)  # also to a reader of YAML 1.1
    assert yaml.safe_load(FILE)["methods"].keys() == {7, False, 6.5}  # the negative control


@given(st.text(alphabet="0123456789_.:+-eExboanNifI~#&*!'\" ,[]{}tynosuOFf", max_size=8))
@example("-.5")
@example("1.5_0e3")
@example("0_9")
@example("=")
@example("<<")
@settings(max_examples=300, derandomize=True, deadline=None)
def test_a_text_that_is_written_is_read_again(text: str) -> None:
    for value in (text, [text], {text: text}):
        assert read_yaml(write_yaml({"a": value}), "it") == {"a": value}


def test_a_number_sign_in_a_text_of_a_file_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\ndata:\n  source: notes #1\n")
    with pytest.warns(UserWarning, match="line 3: '#1' is read as a comment; put 'notes #1' in quotes"):
        assert load(path).data.source == "notes"
    path.write_text("name: x # the name\nseed: 1 #2\ndata:\n  source: 'notes #1' #2\n  text_field: body  #3\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path).data.source == "notes #1"


@pytest.mark.parametrize(
    ("key", "is_text"),
    [
        *((key, True) for key in ("name", "method", "data.source", "data.sources.a.files", "methods.x.schedule")),
        *((key, True) for key in ("objective.name", "objective.denoisers.R.mode", "methods.x.inactive")),
        *((key, False) for key in ("seed", "data.tokenizer", "methods.x.lengths", "training.run_name", "data", "nmae")),
    ],
)
def test_which_settings_are_text(key: str, is_text: bool) -> None:
    if is_text:
        assert read_setting(key.split("."), "007", "it") == "007"
    else:
        with pytest.raises(RaptrError, match="begins with a zero"):
            read_setting(key.split("."), "007", "it")


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("title == notes #1", "notes #1"),
        ("title == #1", "#1"),
        ("language == no", "no"),
        ("day == 2026-01-31", "2026-01-31"),
        ("time == 1:30", "1:30"),
        ("new == true", True),
        ("x == null", None),
        ("x == 1e-3", 0.001),
        ("id == '007'", "007"),
    ],
)
def test_rules_take_the_whole_of_their_value(rule: str, value: Any) -> None:
    found = parse_rule(rule)
    assert (found.value, type(found.value)) == (value, type(value))
    assert value is None or found.holds(value)


def test_yes_and_no_are_texts_to_texts_and_truth_values_to_truth_values() -> None:
    rule = parse_rule("language == no")
    assert (rule.holds("no"), rule.holds("en"), rule.holds(False), rule.holds(True)) == (True, False, True, False)
    with pytest.raises(TypeError):
        parse_rule("language == nein").holds(False)
    with pytest.raises(RaptrError, match="007 begins with a zero"):
        parse_rule("id == 007")


def test_values_of_a_sweep_are_not_cut() -> None:
    assert parse_sweep(["training.optim_args=a #1,b #2"]) == {"training.optim_args": ["a #1", "b #2"]}
    with pytest.raises(RaptrError, match="begins with a zero"):
        parse_sweep(["training.warmup_steps=010,020"])


def test_an_empty_variable_is_not_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPTR_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder(None) == Path.home() / ".cache" / "raptr"
    monkeypatch.setenv("RAPTR_CACHE", "kept #1")
    assert cache_folder(None) == Path("kept #1")
