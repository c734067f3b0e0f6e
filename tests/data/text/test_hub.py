"""The datasets library: builders of files, folders, saved datasets, streaming; the Hub by the same call."""

import json
import os
import subprocess
import sys

import pytest

from raptr.config import DataConfig, SourceConfig
from raptr.data import corpus as corpora
from raptr.data import open_source
from raptr.errors import RaptrError

datasets = pytest.importorskip("datasets")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"text": f"row {i} " + "lorem " * (i % 5), "language": "en" if i % 4 else "de"} for i in range(200)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The library's own copies go into the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path):
    """The rows as files of every builder."""
    table = datasets.Dataset.from_list(ROWS)
    folder = tmp_path / "files"
    folder.mkdir()
    table.to_parquet(folder / "a.parquet")
    table.to_csv(folder / "a.csv")
    (folder / "a.json").write_text(json.dumps(ROWS))
    (folder / "a.text").write_text("\n".join(row["text"] for row in ROWS))
    table.save_to_disk(str(tmp_path / "saved"))
    os.link(next((tmp_path / "saved").glob("*.arrow")), folder / "a.arrow")
    return folder


def texts(source, cache, strict=False):
    opened = open_source(source, cache=cache, strict=strict)
    return [text for _, text in opened.read()], opened


def source(**options):
    return SourceConfig(validation_share=0.04, **options)


def few(rows=ROWS):
    """What is read of so few documents: of each, the last 4 % is held out."""
    found = []
    for row in rows:
        cut = len(row["text"]) - round(len(row["text"]) * 0.04)
        found += [text for text in (row["text"][:cut], row["text"][cut:]) if text]
    return found


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("builder", ["arrow", "csv", "json", "parquet", "text"])
def test_every_builder_reads_its_files(files, cache, builder, streaming):
    found, _ = texts(source(dataset=builder, files=str(files / f"a.{builder}"), streaming=streaming), cache)
    assert [text.strip() for text in found] == [text.strip() for text in few()]
    assert len(list(cache.glob("text-*"))) == (1 if streaming else 0)


def test_filters_and_nested_columns_apply(files, cache):
    options = {"dataset": "parquet", "files": str(files / "*.parquet"), "filter": "language == en", "min_chars": 9}
    found, opened = texts(source(**options), cache)
    assert found == few([row for row in ROWS if row["language"] == "en" and len(row["text"]) >= 9])
    assert opened.counts.omitted.filtered == 200 - len(
        [row for row in ROWS if row["language"] == "en" and len(row["text"]) >= 9]
    )


def test_a_saved_dataset_is_read_with_or_without_splits(tmp_path, cache):
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": table, "test": table.select(range(20))}).save_to_disk(str(tmp_path / "two"))
    assert texts(source(dataset=str(tmp_path / "one")), cache)[0] == few()
    assert texts(source(dataset=str(tmp_path / "two"), split="test"), cache)[0] == few(ROWS[:20])
    held_out, opened = texts(source(dataset=str(tmp_path / "two"), validation_split="test"), cache)
    assert held_out == [row["text"] for row in ROWS]  # those of the test split first, and nowhere else
    assert opened.counts.documents == {"train": 180, "validation": 20}
    for options, message in (
        ({"dataset": str(tmp_path / "two"), "split": "dev"}, "no split 'dev'; it has 'train', 'test'"),
        ({"dataset": str(tmp_path / "one"), "split": "dev"}, "has no splits"),
        ({"dataset": str(tmp_path / "one"), "streaming": True}, "streaming has no effect"),
        ({"dataset": str(tmp_path / "one"), "text": "body"}, "no column 'body'; seen: 'text', 'language'"),
        ({"dataset": str(tmp_path / "none")}, "there is no such folder"),
    ):
        with pytest.raises(RaptrError, match=message):
            open_source(source(**options), cache=cache)


def test_a_folder_of_files_is_a_dataset(files, tmp_path, cache):
    folder = tmp_path / "folder"
    folder.mkdir()
    os.link(files / "a.parquet", folder / "train.parquet")
    for streaming in (False, True):
        assert texts(source(dataset=str(folder), streaming=streaming), cache)[0] == few()


def test_links_that_the_library_does_not_follow_are_counted(files, tmp_path, cache, capsys):
    (tmp_path / "folder").mkdir()
    os.link(files / "a.parquet", tmp_path / "folder" / "train.parquet")
    (tmp_path / "folder" / "more").symlink_to(files)
    for streaming in (False, True):
        found, opened = texts(source(dataset=str(tmp_path / "folder"), streaming=streaming), cache)
        assert found == few()  # of the linked folder nothing
        assert opened.counts.omitted.unread == {"link to a folder, not followed by the datasets library": 1}
        assert "not read (1 files, folders or links): 1 link to a folder, not followed" in capsys.readouterr().err


def test_one_broken_file_does_not_lose_the_others(files, cache, capsys):
    (files / "b.parquet").write_bytes(b"not a table")
    (files / "c.parquet").symlink_to(files / "missing")
    for streaming in (False, True):
        options = {"dataset": "parquet", "files": [str(files / "b.parquet"), str(files / "[ac].parquet")]}
        found, opened = texts(source(**options, streaming=streaming), cache)
        assert found == few()
        assert opened.counts.omitted.bad == {"unreadable file": 2}
        assert "b.parquet cannot be read: " in capsys.readouterr().err.replace("\n", "")
        with pytest.raises(RaptrError, match=r"b\.parquet cannot be read"):
            texts(source(**options, streaming=streaming), cache, strict=True)


def test_streamed_text_is_fetched_once(files, cache, monkeypatch):
    loads = []
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: loads.append(args) or load(*args, **options))
    streamed = {"dataset": "json", "files": [str(files / "a.json")], "streaming": True, "validation_share": 0.1}
    data = DataConfig(sources={"a": streamed}, tokenizer=270)
    first = corpora.prepare(data, cache)
    assert len(loads) == 1
    assert corpora.prepare(data, cache).description == first.description
    assert len(loads) == 1  # the files are the same by path, size and time
    (files / "a.json").write_text(json.dumps(ROWS[:150]))
    assert corpora.prepare(data, cache).description["content_hash"] != first.description["content_hash"]
    assert len(loads) == 2


def test_max_bytes_bounds_what_is_fetched(cache, monkeypatch):
    met = []

    def endless():
        for i in range(10**6):
            met.append(i)
            yield {"text": f"document {i} " * 10}

    stream = datasets.IterableDataset.from_generator(endless)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: stream)
    asked = SourceConfig(dataset="org/endless", revision=COMMIT, streaming=True, max_bytes=100_000)
    opened = open_source(asked, cache=cache)
    assert len(met) < 1200
    assert 90_000 < sum(opened.counts.bytes.values()) <= 100_000


def test_a_dataset_of_the_hub_is_asked_for_by_name_and_found_again_by_its_commit(cache, monkeypatch):
    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    asked = source(dataset="org/name", config="small", split="dev", revision=COMMIT, files="data/*.json")
    found, opened = texts(asked, cache)
    assert found == few()
    assert COMMIT in opened.name
    expected = {"name": "small", "data_files": ["data/*.json"], "split": "dev", "revision": COMMIT, "streaming": False}
    assert calls == [(("org/name",), expected)]
    assert texts(asked, cache)[0] == found
    assert len(calls) == 1
    texts(asked.model_copy(update={"revision": COMMIT[::-1]}), cache)
    assert len(calls) == 2  # control: another commit is fetched


def test_a_branch_is_looked_up_and_what_it_stands_for_is_recorded(cache, monkeypatch):
    from types import SimpleNamespace

    import huggingface_hub

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: datasets.Dataset.from_list(ROWS))
    seen = []

    def info(self, name, revision=None, timeout=None):
        seen.append((name, revision))
        return SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    _, opened = texts(source(dataset="org/name", revision="main"), cache)
    assert seen == [("org/name", "main")]
    assert opened.name.endswith(f"revision {COMMIT}")


@pytest.mark.slow
def test_without_the_network_it_is_said_what_to_do(cache):
    code = "from pathlib import Path; from raptr.config import SourceConfig; from raptr.data import open_source; "
    code += f"open_source(SourceConfig(dataset='org/name'), cache=Path({str(cache)!r}))"
    paths = ":".join(path for path in sys.path if path)
    env = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    last = done.stderr.strip().splitlines()[-1]
    assert "dataset 'org/name' cannot be read: Cannot reach" in last
    assert "with the full commit hash as revision, no network is needed" in last


def test_a_stream_that_breaks_off_leaves_nothing(cache, monkeypatch):
    def breaking():
        yield {"text": "some text"}
        raise ConnectionError("the line is dead")

    stream = datasets.IterableDataset.from_generator(breaking)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: stream)
    with pytest.raises(RaptrError, match="the line is dead"):
        open_source(source(dataset="org/name", revision=COMMIT, streaming=True), cache=cache)
    assert list(cache.iterdir()) == []


def test_a_spool_that_is_damaged_is_refused(files, cache):
    asked = source(dataset="json", files=str(files / "a.json"), streaming=True)
    texts(asked, cache)
    kept = next(cache.glob("text-*/text.jsonl.zst"))
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(RaptrError, match=r"is damaged .*delete that folder"):
        texts(asked, cache)


def test_what_was_left_out_is_still_known_when_kept_text_is_read(cache, monkeypatch):
    table = datasets.Dataset.from_list([{"text": f"row {i} of some text", "score": i} for i in range(200)])
    loads = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: loads.append(args) or table)
    asked = source(dataset="org/name", revision=COMMIT, filter="score < 100")
    for _ in range(2):
        omitted = texts(asked, cache)[1].counts.omitted
        assert (omitted.filtered, omitted.records) == (100, 200)
    assert len(loads) == 1
    with pytest.raises(RaptrError, match="200 of 200 records are bad"):
        texts(asked.model_copy(update={"filter": ["score < text"]}), cache)
    assert len(list(cache.iterdir())) == 1  # nothing of the one that was refused
