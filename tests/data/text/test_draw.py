"""What a tokenizer is trained on: a sample from all over the text, the same of the same files."""

import gzip
import hashlib
import shutil
import tracemalloc
from pathlib import Path

import pytest
import tokenizers

from helpers.languages import LANGUAGES, lines, records, texts
from helpers.languages import shares_of as shares
from raptr.config import DataConfig, SourceConfig
from raptr.data import corpus as corpora
from raptr.data import open_source, prepare, train_tokenizer
from raptr.data.text.draw import PASSAGE, draw
from raptr.data.tokens.store import FORMAT


def opened(path, **options):
    return open_source(SourceConfig(path=str(path), **options), cache=Path("unused"))


def packed(folder, write_jsonl):
    for letters in LANGUAGES:
        (folder / f"{letters[0]}.txt.gz").write_bytes(gzip.compress("\n".join(lines(letters, 2000)).encode()))


def one_text(folder, write_jsonl):
    (folder / "all.txt").write_text("\n".join(line for letters in LANGUAGES for line in lines(letters, 2000)))


def one_file(folder, write_jsonl):
    write_jsonl(folder / "all.jsonl", [{"text": line} for letters in LANGUAGES for line in lines(letters, 2000)])


def many_files(folder, write_jsonl):
    for letters in LANGUAGES:
        for i, line in enumerate(lines(letters, 600)):
            (folder / f"{letters[0]}-{i:03d}.txt").write_text(line * 4)


def subfolders(folder, write_jsonl):
    for letters in LANGUAGES:
        (folder / letters[0]).mkdir()
        for i in range(4):
            rows = [{"text": line} for line in lines(letters, 500, seed=i)]
            write_jsonl(folder / letters[0] / f"{i}.jsonl", rows)


def mixed_kinds(folder, write_jsonl):
    (folder / "a.txt").write_text("\n".join(lines(LANGUAGES[0], 2000)))
    write_jsonl(folder / "b.jsonl", [{"text": line} for line in lines(LANGUAGES[1], 2000)])
    write_jsonl(folder / "c.jsonl", [{"text": "\n".join(lines(LANGUAGES[2], 2000))}])


LAYOUTS = [texts, records, packed, one_text, one_file, many_files, subfolders, mixed_kinds]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_language_of_a_text_is_in_the_sample(tmp_path, write_jsonl, layout):
    layout(tmp_path, write_jsonl)
    source = opened(tmp_path)
    total, size = source.counts.bytes["train"], 80_000
    assert total > 1.5 * size
    found = list(draw(source, size))
    assert sum(len(text.encode()) for text in found) == size
    assert min(shares("".join(found))) > 0.1  # passages of 10,000 characters are few here
    control = "".join(source.documents("train"))[:size]  # in the order of the names
    assert min(shares(control)) == 0


def test_the_sample_is_fair(tmp_path, write_jsonl):
    records(tmp_path, write_jsonl)
    found = "".join(draw(opened(tmp_path), 150_000))
    assert shares(found) == pytest.approx([1 / 3] * 3, abs=0.05)


@pytest.mark.parametrize("size", [1, 2, 71, 72, 9_999, 10_000, 50_001, 200_000, 10**9])
def test_the_sample_has_its_size_and_its_order(tmp_path, write_jsonl, size):
    records(tmp_path, write_jsonl)
    source = opened(tmp_path)
    documents = list(source.documents("train"))
    found = list(draw(source, size))
    assert sum(len(text.encode()) for text in found) == min(size, source.counts.bytes["train"])
    assert len(set(found)) == len(found)
    places = [documents.index(text) for text in found if text in documents]
    assert places == sorted(places)
    assert len(found) - len(places) <= 1, "one passage is cut"
    larger = set(draw(source, 2 * size))
    assert sum(text not in larger for text in found) <= 1, "a larger sample holds a smaller one"


def test_a_passage_is_not_cut_inside_a_character(tmp_path):
    (tmp_path / "a.txt").write_text("é" * 40_000)
    found = list(draw(opened(tmp_path), 30_001))
    assert "".join(found) == "é" * 15_000
    assert max(map(len, found)) == PASSAGE


def test_no_more_than_the_sample_is_held(tmp_path, write_jsonl):
    write_jsonl(tmp_path / "big.jsonl", ({"text": f"{i} " + "word " * 4000} for i in range(600)))
    source = opened(tmp_path)

    def peak(size):
        tracemalloc.start()
        sum(len(text) for text in draw(source, size))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(100_000) < 2e6
    assert peak(8_000_000) > 8e6  # control


def trained(path, cache, **options):
    return prepare(DataConfig(source=str(path), tokenizer=300, sequence_length=8, **options), cache)


def rules(made):
    return made.tokenizer.backend_tokenizer.to_str()


def test_the_same_files_give_the_same_tokenizer_wherever_they_lie(tmp_path, write_jsonl, monkeypatch):
    monkeypatch.setattr(corpora, "SAMPLE_BYTES", 60_000)
    (tmp_path / "here").mkdir()
    subfolders(tmp_path / "here", write_jsonl)
    first = trained(tmp_path / "here", tmp_path / "cache")
    shutil.copytree(tmp_path / "here", tmp_path / "else" / "where")
    for spec in (tmp_path / "else" / "where", tmp_path / "else" / "where" / "**" / "*.jsonl"):
        other = trained(spec, tmp_path / "other")
        assert rules(other) == rules(first)
        assert other.description["key"] == first.description["key"]
    (tmp_path / "else" / "where" / "a").rename(tmp_path / "else" / "where" / "z")
    assert rules(trained(tmp_path / "else" / "where", tmp_path / "other")) != rules(first)


def test_all_languages_are_in_a_trained_vocabulary(tmp_path, write_jsonl, monkeypatch):
    texts(tmp_path, write_jsonl)
    monkeypatch.setattr(corpora, "SAMPLE_BYTES", 60_000)

    def merged(made):
        return [
            sum(len(token) > 1 and set(token) <= {*letters, "Ġ"} for token in made.get_vocab()) for letters in LANGUAGES
        ]

    assert min(merged(trained(tmp_path, tmp_path / "cache").tokenizer)) >= 5
    source = opened(tmp_path)
    before = train_tokenizer(source.documents("train"), 300, sample_bytes=60_000)
    assert min(merged(before)) == 0  # control


def key_of(content_hash, *more):
    """The key of a store whose tokenizer is trained, by hand."""
    recipe = "\n".join(["byte-level BPE", "300", str(corpora.SAMPLE_BYTES), tokenizers.__version__, *more])
    parts = "\0".join([str(FORMAT), content_hash, recipe])
    return hashlib.blake2b(parts.encode("utf8"), digest_size=12).hexdigest()


def test_what_fits_and_what_is_built_in_keep_their_tokenizers_and_keys(tmp_path, write_jsonl, monkeypatch):
    texts(tmp_path, write_jsonl)
    whole = trained(tmp_path, tmp_path / "cache")
    assert whole.description["key"] == key_of(opened(tmp_path).content_hash)
    monkeypatch.setattr(corpora, "SAMPLE_BYTES", 60_000)
    drawn = trained(tmp_path, tmp_path / "cache")
    assert drawn.description["key"] == key_of(opened(tmp_path).content_hash, "sampled")
    source = opened("builtin:python", max_bytes=200_000)
    built_in = trained("builtin:python", tmp_path / "cache", max_bytes=200_000)
    assert built_in.description["key"] == key_of(source.content_hash)
    assert (
        rules(built_in)
        == train_tokenizer(source.documents("train"), 300, sample_bytes=60_000).backend_tokenizer.to_str()
    )


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_other_kinds_are_trained_on_the_sample_too(tmp_path, write_jsonl, monkeypatch, kind):
    texts(tmp_path, write_jsonl)
    monkeypatch.setattr(corpora, "SAMPLE_BYTES", 60_000)
    data = DataConfig(source=str(tmp_path), tokenizer=120, tokenizer_kind=kind, sequence_length=8)
    vocabulary = prepare(data, tmp_path / "cache").tokenizer.get_vocab()
    assert all(any(letter in token for token in vocabulary) for letters in LANGUAGES for letter in letters)


def test_a_share_of_a_source_is_drawn_from_all_over_it(tmp_path, write_jsonl, monkeypatch):
    for name in ("one", "two", "none"):
        (tmp_path / name).mkdir()
    texts(tmp_path / "one", write_jsonl)
    write_jsonl(tmp_path / "two" / "d.jsonl", [{"text": line} for line in lines("yz", 3000)])
    write_jsonl(tmp_path / "none" / "e.jsonl", [{"text": line} for line in lines("AB", 900)])
    samples = []
    train = corpora.train_kind

    def watched(kind, texts, size, **options):
        samples.append("".join(texts := list(texts)))
        return train(kind, texts, size, **options)

    monkeypatch.setattr(corpora, "train_kind", watched)
    monkeypatch.setattr(corpora, "SAMPLE_BYTES", 100_000)
    sources = {name: {"path": str(tmp_path / name)} for name in ("one", "two", "none")}
    config = DataConfig(sources=sources, mixture="one:1,two:1,none:0", tokenizer=300, sequence_length=8)
    made = prepare(config, tmp_path / "cache")
    assert len(samples[0]) == 100_000
    assert "A" not in samples[0]
    assert min(shares(samples[0])) > 0.1
    assert prepare(config, tmp_path / "cache").description == made.description
