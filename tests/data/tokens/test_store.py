"""The token store: what is in it, when it is made again, and that nothing half is ever left."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from raptr.config import DataConfig, SourceConfig
from raptr.data import corpus as corpora
from raptr.data import open_source
from raptr.data.tokens import journal, store
from raptr.errors import RaptrError


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def prepare(source, cache, **options):
    """The store of a corpus of one path."""
    return corpora.prepare(DataConfig(source=str(source), **options), cache).stores["data"]


def opened(source):
    return open_source(SourceConfig(path=str(source)), cache=Path("unused"))


def write_word_level(path, size=3):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "low": 1, **{f"w{i}": i for i in range(2, size)}}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[SEP]"])
    tokenizer.save(str(path))
    return str(path)


def test_every_document_comes_back_followed_by_its_end(corpus, cache):
    made = prepare(source=corpus, tokenizer=400, cache=cache)
    source = opened(corpus)
    for split in ("train", "validation"):
        tokens = getattr(made, split)
        assert isinstance(tokens, np.memmap)
        assert tokens.dtype == np.uint16
        ends = np.flatnonzero(tokens == made.tokenizer.eos_token_id)
        assert ends[-1] == len(tokens) - 1
        documents = np.split(tokens, ends + 1)[:-1]
        assert [made.tokenizer.decode(ids[:-1]) for ids in documents] == list(source.documents(split))
        assert made.description["tokens"][split] == len(tokens)


def test_the_description_says_what_is_there(corpus, cache):
    made = prepare(source=corpus, tokenizer=400, cache=cache)
    source, told = opened(corpus), made.description
    assert told["content_hash"] == source.content_hash
    assert told["documents"] == source.counts.documents
    assert told["bytes"] == source.counts.bytes
    assert told["vocabulary"] == 400
    total = sum(told["tokens"].values())
    assert told["bytes_per_token"] == pytest.approx(sum(told["bytes"].values()) / total, rel=1e-3)
    assert told["key"] == made.path.name
    assert told == json.loads((made.path / "description.json").read_text())


def test_a_prepared_store_is_used_again(corpus, cache, monkeypatch):
    first = prepare(source=corpus, tokenizer=400, cache=cache)
    monkeypatch.setattr(store, "write_resumable", lambda *_: pytest.fail("it was made again"))
    again = prepare(source=corpus, tokenizer=400, cache=cache)
    assert again.description == first.description
    assert (again.train == first.train).all()


@pytest.mark.slow
def test_other_text_tokenizer_or_format_is_another_store(corpus, cache, tmp_path, monkeypatch):
    options = {"source": corpus, "tokenizer": 400, "cache": cache}
    paths = [prepare(**options).path]
    paths.append(prepare(**{**options, "tokenizer": 300}).path)
    paths.append(prepare(**{**options, "tokenizer": 300}, max_bytes=30_000).path)
    paths.append(prepare(**options, validation_share=0.1).path)
    words = write_word_level(tmp_path / "words.json")
    paths.append(prepare(**{**options, "tokenizer": words}).path)
    write_word_level(tmp_path / "words.json", size=9)  # the same name, another content
    paths.append(prepare(**{**options, "tokenizer": words}).path)
    monkeypatch.setattr(store, "FORMAT", 99)
    paths.append(prepare(**options).path)
    assert len(set(paths)) == len(paths) == len(list(cache.iterdir()))


def test_an_interrupted_run_goes_on_with_what_is_finished(corpus, cache, tmp_path, monkeypatch):
    whole = prepare(source=corpus, tokenizer=400, cache=tmp_path / "other")
    monkeypatch.setattr(journal, "CHUNK", 5_000)
    original, calls = store.encoder, []

    def interrupted(tokenizer):
        def encode(texts):
            calls.append(texts)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return original(tokenizer)(texts)

        return encode

    monkeypatch.setattr(store, "encoder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(source=corpus, tokenizer=400, cache=cache)
    assert [path.name for path in cache.iterdir()] == [f".partial-{whole.path.name}"]
    monkeypatch.setattr(corpora, "train_kind", lambda *_, **__: pytest.fail("the tokenizer was trained again"))
    made = prepare(source=corpus, tokenizer=400, cache=cache)
    assert calls[4] == calls[3], "it goes on with the part at which it was interrupted"
    assert made.made.found > 0
    assert made.made.found + made.made.bytes == sum(made.description["bytes"].values())
    assert contents(made.path) == contents(whole.path)
    assert list(cache.iterdir()) == [made.path]


def contents(folder):
    """All files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_run_is_not_taken_for_a_finished_one(corpus, cache):
    code = "import os; from pathlib import Path; from raptr.config import DataConfig; "
    code += "from raptr.data import prepare; from raptr.data.tokens import store; "
    code += "store.encoder = lambda tokenizer: lambda texts: os._exit(9); "
    code += f"prepare(DataConfig(source={str(corpus)!r}, tokenizer=400), Path({str(cache)!r}))"
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, env=env).returncode == 9
    assert [path.name.startswith(".") for path in cache.iterdir()] == [True]
    made = prepare(source=corpus, tokenizer=400, cache=cache)
    assert len(made.train) == made.description["tokens"]["train"] > 1000


def test_the_faster_of_two_processes_wins(corpus, cache, monkeypatch):
    original = store.write_resumable

    def overtaken(folder, write):
        def slow(partial):
            write(partial)
            monkeypatch.setattr(store, "write_resumable", original)
            prepare(source=corpus, tokenizer=400, cache=cache)

        original(folder, slow)

    monkeypatch.setattr(store, "write_resumable", overtaken)
    made = prepare(source=corpus, tokenizer=400, cache=cache)
    assert list(cache.iterdir()) == [made.path]


def test_chunks_do_not_change_the_tokens(corpus, cache, tmp_path, monkeypatch):
    whole = prepare(source=corpus, tokenizer=400, cache=cache)
    monkeypatch.setattr(journal, "CHUNK", 500)
    cut = prepare(source=corpus, tokenizer=400, cache=tmp_path / "other")
    assert (whole.train == cut.train).all()
    assert (whole.validation == cut.validation).all()


@pytest.mark.slow
def test_a_large_vocabulary_needs_32_bits(corpus, cache, tmp_path):
    for size, dtype in ((2**16 - 1, np.uint16), (2**16, np.uint32)):  # and one more for [SEP]
        words = write_word_level(tmp_path / f"{size}.json", size)
        made = prepare(source=corpus, tokenizer=words, cache=cache)
        assert made.description["vocabulary"] == size + 1
        assert made.train.dtype == dtype
        assert made.train[-1] == made.description["separator"] == size


def test_a_damaged_store_is_refused(corpus, cache):
    made = prepare(source=corpus, tokenizer=400, cache=cache)
    content = (made.path / "train.bin").read_bytes()
    (made.path / "train.bin").write_bytes(content[:-2])
    with pytest.raises(RaptrError, match=r"are damaged .*delete that folder"):
        prepare(source=corpus, tokenizer=400, cache=cache)


def test_a_cache_that_is_no_folder_is_refused(corpus, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RaptrError, match="cannot be written to"):
        prepare(source=corpus, tokenizer=400, cache=tmp_path / "file")


def test_builtin_python_becomes_tokens(cache):
    made = prepare(source="builtin:python", max_bytes=300_000, tokenizer=512, cache=cache)
    assert len(made.train) > 50_000
    assert len(made.validation) > 1_000
    assert made.train.max() < 512
    assert "import" in made.tokenizer.decode(made.train[:5000])
