"""The section `data`: the short form, sources by name, mixtures, rules; and what is said about mistakes."""

from typing import Any

import pytest
import yaml

from raptr.config import DataConfig, SourceConfig, dump, parse
from raptr.errors import RaptrError


def data(**section: Any) -> DataConfig:
    return parse({"name": "x", "data": section}, "run.yaml").data


def refusal(**section: Any) -> str:
    with pytest.raises(RaptrError) as caught:
        data(**section)
    return str(caught.value)


def test_without_anything_it_is_the_embedded_corpus() -> None:
    assert data().source == "builtin:python"
    assert data(max_bytes=5).named_sources() == {"data": SourceConfig(path="builtin:python", max_bytes=5)}
    assert DataConfig().source == "builtin:python"
    assert data(source=None).source == "builtin:python"


def test_the_short_form_is_one_source() -> None:
    short = data(source="a", validation="b", text_field="body", max_bytes=7, validation_share=0.1)
    expected = SourceConfig(path="a", validation="b", text="body", max_bytes=7, validation_share=0.1)
    assert short.named_sources() == {"data": expected}
    assert short.weights() is None


def test_sources_have_what_the_section_says_unless_they_say_otherwise() -> None:
    sources = {"a": {"path": "x"}, "b": {"dataset": "org/name", "text": "body", "max_bytes": 9}}
    found = data(sources=sources, text_field="content", max_bytes=5, validation_share=0.1).named_sources()
    assert list(found) == ["a", "b"]
    assert (found["a"].text, found["a"].max_bytes, found["a"].validation_share) == ("content", 5, 0.1)
    assert (found["b"].text, found["b"].max_bytes, found["b"].validation_share) == ("body", 9, 0.1)


@pytest.mark.parametrize(
    "section",
    [
        {"sources": {"a": {"path": "x", "filter": "n > 3"}, "b": {"path": "y"}}, "mixture": "a:3, b:1", "max_bytes": 5},
        {"sources": {"a": {"dataset": "csv", "files": "x*.csv"}}, "strict": True},
        {"source": "x"},
        {},
    ],
)
def test_what_is_written_and_read_again_is_the_same(section: dict[str, Any]) -> None:
    config = parse({"name": "x", "data": section}, "first")
    assert parse(yaml.safe_load(dump(config)), "again") == config


def test_one_text_is_a_list_of_one() -> None:
    source = SourceConfig(dataset="csv", files="a.csv", filter="n > 3")
    assert (source.files, source.filter) == (["a.csv"], ["n > 3"])
    assert [rule.column for rule in source.rules()] == ["n"]


def test_weights_are_shares_in_the_order_of_the_sources() -> None:
    sources = {name: {"path": name} for name in ("wiki", "books", "more")}
    weights = data(sources=sources, mixture="books:1, more:0,wiki:3").weights()
    assert weights == {"wiki": 0.75, "books": 0.25, "more": 0.0}
    assert weights is not None
    assert list(weights) == list(sources)


@pytest.mark.parametrize(
    "mixture",
    [
        "",
        "wiki:1",
        "wiki,books",
        "wiki:1;books:1",
        "wiki:1,wiki:1",
        "wiki:0,books:0",
        "wiki:-1,books:2",
        "wiki:nan,books:1",
        "wiki:inf,books:1",
        "wiki:1,books:1,more:1",
    ],
)
def test_a_mixture_gives_every_source_a_weight(mixture: str) -> None:
    message = refusal(sources={"wiki": {"path": "a"}, "books": {"path": "b"}}, mixture=mixture)
    assert "mixture" in message
    assert "Value error" not in message  # the library's word
    assert "'path'" not in message  # nor the whole section, which says nothing more
    assert "wiki, books" in message


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ({"pth": "x"}, ["data.sources.wiki.pth", "this key is not known", "did you mean 'path'"]),
        ({"zzz": 1}, ["data.sources.wiki.zzz", "expected one of", "max_chars", "streaming"]),
        ({}, ["data.sources.wiki", "either path", "or dataset"]),
        ({"path": "x", "dataset": "y"}, ["data.sources.wiki", "either path"]),
        ({"path": "x", "streaming": True}, ["streaming has no effect on a path"]),
        ({"path": "x", "split": "test"}, ["split has no effect on a path"]),
        ({"path": "x", "validation_split": "test"}, ["validation_split has no effect on a path"]),
        ({"dataset": "parquet"}, ["the builder 'parquet' reads files"]),
        ({"dataset": "csv", "files": "x", "split": "test"}, ["is all one split, train"]),
        ({"dataset": "org/n", "validation": "x", "validation_split": "y"}, ["validation (a path) or validation_split"]),
        ({"path": "builtin:python", "filter": "a > 1"}, ["builtin:python takes no filter"]),
        ({"path": "x", "min_chars": 5, "max_chars": 4}, ["max_chars is 4, below min_chars 5"]),
        ({"path": "x", "filter": ["a > 1", "a ~ 1"]}, ["data.sources.wiki.filter.1", "'a ~ 1' is not of the form"]),
        ({"path": "x", "validation_share": 0.6}, ["data.sources.wiki.validation_share", "0.5"]),
        ({"path": "x", "max_bytes": 0}, ["data.sources.wiki.max_bytes"]),
        ({"path": 5}, ["data.sources.wiki.path"]),
        ("x", ["data.sources.wiki"]),
    ],
)
def test_a_source_that_cannot_be_is_refused_by_its_name(source: Any, parts: list[str]) -> None:
    message = refusal(sources={"wiki": source})
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"source": "x", "sources": {"a": {"path": "y"}}}, "not both"),
        ({"validation": "x", "sources": {"a": {"path": "y"}}}, "give each of the sources its own"),
        ({"source": "x", "mixture": "x:1"}, "the sources, which are missing"),
        ({"sources": 5}, "data.sources"),
        ({"sources": {"a b": {"path": "x"}}}, "data.sources.a b"),
        ({"strict": "yes"}, "data.strict"),
    ],
)
def test_forms_are_not_mixed(section: dict[str, Any], part: str) -> None:
    assert part in refusal(**section)
