"""A corpus of several sources: one tokenizer, a store each, and what of it depends on what."""

import json

import numpy as np
import pytest

from raptr.config import DataConfig
from raptr.data import TrainingData, open_source, prepare
from raptr.data import corpus as corpora
from raptr.data.tokens import store
from raptr.errors import RaptrError


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def two(corpus, tmp_path, write_jsonl):
    """The sources of a config: many short documents, and a few of other words with validation text of their own."""
    rows = [{"text": f"Zebras {i} graze quietly, zzz zzz. " * 3} for i in range(100)]
    write_jsonl(tmp_path / "more.jsonl", rows)
    write_jsonl(tmp_path / "valid.jsonl", [{"text": f"Zebras sleep {i}. " * 4} for i in range(9)])
    return {
        "words": {"path": str(corpus)},
        "zebras": {"path": str(tmp_path / "more.jsonl"), "validation": str(tmp_path / "valid.jsonl")},
    }


@pytest.fixture
def given(two, cache, tmp_path):
    """A tokenizer that is given, not trained."""
    made = prepare(DataConfig(sources=two, tokenizer=320), cache)
    made.tokenizer.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_every_source_keeps_its_own_text_in_the_order_of_the_config(two, cache):
    made = prepare(DataConfig(sources=two, mixture="zebras:1,words:3", tokenizer=320), cache)
    assert list(made.stores) == ["words", "zebras"]
    assert made.weights == {"words": 0.75, "zebras": 0.25}
    tokenizer = made.tokenizer
    assert "Zebras" in tokenizer.decode(made.stores["zebras"].train[:50])
    assert "Zebras" not in tokenizer.decode(made.stores["words"].train)
    assert "Zebras sleep 0" in tokenizer.decode(made.stores["zebras"].validation[:50])
    assert {store.tokenizer.backend_tokenizer.to_str() for store in made.stores.values()} == {
        tokenizer.backend_tokenizer.to_str()
    }
    assert made.training(16).shares == pytest.approx((0.75, 0.25))
    assert list(made.validation(16)) == ["words", "zebras"]


def test_the_description_sums_up_and_names_each(two, cache):
    made = prepare(DataConfig(sources=two, mixture="words:1,zebras:1", tokenizer=320), cache)
    told, own = made.description, {name: store.description for name, store in made.stores.items()}
    assert told["sources"] == own
    for what in ("documents", "bytes", "tokens"):
        for split in ("train", "validation"):
            assert told[what][split] == sum(one[what][split] for one in own.values())
    assert told["mixture"] == {"words": 0.5, "zebras": 0.5}
    assert json.loads(json.dumps(told)) == told
    assert told["content_hash"] not in {one["content_hash"] for one in own.values()}
    facts = made.facts(16)
    assert facts["training sequences"] == len(made.training(16))
    assert facts["shares of training"] == {"words": "0.5", "zebras": "0.5"}
    assert facts["zebras: tokens"] == own["zebras"]["tokens"]


def test_one_source_is_described_as_it_always_was(corpus, cache):
    made = prepare(DataConfig(source=str(corpus), tokenizer=400), cache)
    assert made.description == made.stores["data"].description
    named = prepare(DataConfig(sources={"mine": {"path": str(corpus)}}, tokenizer=400), cache)
    assert named.description == made.description  # the name of a source does not matter to its tokens


def test_other_weights_do_not_tokenize_again(two, given, cache, monkeypatch):
    first = prepare(DataConfig(sources=two, mixture="words:1,zebras:1", tokenizer=given), cache)
    monkeypatch.setattr(store, "write_resumable", lambda *_: pytest.fail("it was tokenized again"))
    other = prepare(DataConfig(sources=two, mixture="words:1,zebras:9", tokenizer=given), cache)
    by_size = prepare(DataConfig(sources=two, tokenizer=given), cache)
    alone = prepare(DataConfig(sources={"zebras": two["zebras"]}, tokenizer=given), cache)
    assert alone.stores["zebras"].path == other.stores["zebras"].path == first.stores["zebras"].path
    keys = {made.description["key"] for made in (first, other, by_size, alone)}
    assert len(keys) == 4
    assert first.description["content_hash"] == other.description["content_hash"]


def test_a_tokenizer_is_trained_on_the_mixture_in_its_shares(two, cache, monkeypatch):
    samples = []
    train = corpora.train_kind

    def watched(kind, texts, size, *, sample_bytes, **options):
        texts = list(texts)
        samples.append((sum("ebra" in text or "zzz" in text for text in texts), texts, sample_bytes))
        return train(kind, texts, size, sample_bytes=sample_bytes, **options)

    monkeypatch.setattr(corpora, "train_kind", watched)
    monkeypatch.setattr(corpora, "SAMPLE_BYTES", 10_000)
    for mixture, share in (("words:4,zebras:1", 0.2), ("words:1,zebras:9", 0.9)):
        made = prepare(DataConfig(sources=two, mixture=mixture, tokenizer=300), cache)
        _, texts, size = samples[-1]
        zebras = sum(len(text) for text in texts if "ebra" in text or "zzz" in text)
        assert size == sum(len(text.encode()) for text in texts) == 10_000
        assert zebras == pytest.approx(10_000 * share, abs=100)
    assert len(samples) == 2  # once for both stores
    monkeypatch.setattr(corpora, "train_kind", lambda *_, **__: pytest.fail("it was trained again"))
    again = prepare(DataConfig(sources=two, mixture="words:1,zebras:9", tokenizer=300), cache)
    assert again.description == made.description


def test_a_source_too_small_for_its_share_of_the_sample_is_repeated(two, cache):
    few = prepare(DataConfig(sources=two, mixture="words:1,zebras:99", tokenizer=300), cache)
    assert few.stores["zebras"].description["bytes"]["train"] < 0.99 * few.description["bytes"]["train"]
    assert few.description["vocabulary"] == 300


def test_a_source_of_weight_nothing_is_validated_on_only(two, cache):
    made = prepare(DataConfig(sources=two, mixture="words:1,zebras:0", tokenizer=300), cache)
    mixture = made.training(16)
    assert len(mixture) == len(made.stores["words"].train) // 16
    data = TrainingData(mixture, seed=0, samples=500)
    assert {data[i]["index"] // 2**40 for i in range(500)} == {0}
    assert list(made.validation(16)) == ["words", "zebras"]


def test_a_mixture_is_made_of_the_sequences_of_its_sources(two, cache):
    made = prepare(DataConfig(sources=two, mixture="words:1,zebras:1", tokenizer=300), cache)
    data = TrainingData(made.training(16), seed=3, samples=400)
    for item in (data[i] for i in range(400)):
        source, number = divmod(item["index"], 2**40)
        train = list(made.stores.values())[source].train
        assert (item["tokens"] == np.asarray(train[16 * number : 16 * number + 16])).all()


def test_a_source_without_enough_text_is_named(two, cache):
    made = prepare(DataConfig(sources=two, tokenizer=300), cache)
    with pytest.raises(RaptrError, match="words, train text: the text has"):
        made.training(100_000)


@pytest.mark.slow
def test_train_text_that_is_validation_text_of_another_source_is_counted_and_said(
    corpus, tmp_path, cache, write_jsonl, capsys
):
    rows = [json.loads(line) for line in (corpus / "part-0.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "valid.jsonl", [*rows[:7], {"text": "Of its own."}])
    write_jsonl(tmp_path / "zebras.jsonl", [{"text": f"Zebras {i} graze quietly."} for i in range(20)])
    path = str(tmp_path / "zebras.jsonl")
    sources = {
        "words": {"path": str(corpus), "validation_share": 0.05},
        "zebras": {"path": path, "validation": str(tmp_path / "valid.jsonl")},
    }
    in_words = open_source(DataConfig(sources=sources).named_sources()["words"], cache=cache)
    in_train = sum(any(row["text"] == text for text in in_words.documents("train")) for row in rows[:7])
    assert 0 < in_train <= 7

    made = prepare(DataConfig(sources=sources, tokenizer=270), cache)
    assert made.shared == made.description["shared"] == {"zebras": {"words": in_train}}
    said = f"words: {in_train} documents that are trained on are validation text of zebras"
    assert said in capsys.readouterr().err
    assert said in made.facts(16)["shared"]
    prepare(DataConfig(sources=sources, tokenizer=270), cache)
    assert said in capsys.readouterr().err, "and said again where all tokens are there"

    capsys.readouterr()
    alone = prepare(DataConfig(sources=sources, mixture="words:0,zebras:1", tokenizer=270), cache)
    assert (alone.shared, "shared" in alone.description) == ({}, False), "what is not trained on"
    sources["zebras"] = {"path": path, "validation_share": 0.5}
    apart = prepare(DataConfig(sources=sources, tokenizer=270), cache)
    assert (apart.shared, capsys.readouterr().err) == ({}, "")


def test_other_shares_of_the_same_text_hold_out_what_the_other_trains_on(corpus, cache):
    sources = {name: {"path": str(corpus), "validation_share": share} for name, share in (("a", 0.02), ("b", 0.1))}
    made = prepare(DataConfig(sources=sources, tokenizer=320), cache)
    held_out = {name: store.description["documents"]["validation"] for name, store in made.stores.items()}
    assert made.shared == {"b": {"a": held_out["b"] - held_out["a"]}}
    assert held_out["b"] > held_out["a"] > 0
