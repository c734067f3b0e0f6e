"""A limit on the text of several files takes of each of them, and reads no more than it needs."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from helpers.languages import LANGUAGES, lines, records, shares_of, texts
from raptr.config import DataConfig, SourceConfig
from raptr.data import Omitted, open_source, prepare
from raptr.data.text.files import read_files
from raptr.data.text.records import Choice
from raptr.data.text.turns import TURNS, in_turns


def opened(path, cache=Path("unused"), **options):
    given = {"path": str(path)} if "dataset" not in options else {}
    return open_source(SourceConfig(**given, **options), cache=cache)


def shares(source, split="train"):
    """How much of the letters of a split are of each language."""
    return shares_of("".join(source.documents(split)))


def packed_texts(folder, write_jsonl):
    for letters in LANGUAGES:
        with pyarrow.output_stream(str(folder / f"{letters[0]}.txt.zst"), compression="zstd") as file:
            file.write("\n".join(lines(letters, 2000)).encode())


def packed_records(folder, write_jsonl):
    for letters in LANGUAGES:
        with pyarrow.output_stream(str(folder / f"{letters[0]}.jsonl.gz"), compression="gzip") as file:
            file.write("\n".join(json.dumps({"text": line}) for line in lines(letters, 2000)).encode())


def tables(folder, write_jsonl):
    for letters in LANGUAGES:
        table = pyarrow.table({"text": lines(letters, 2000)})
        parquet.write_table(table, folder / f"{letters[0]}.parquet", row_group_size=100)


def many_files(folder, write_jsonl):
    for letters in LANGUAGES:
        for i, line in enumerate(lines(letters, 400)):
            (folder / f"{letters[0]}-{i:03d}.txt").write_text(line * 6)


def shards(folder, write_jsonl):
    for letters in LANGUAGES:
        (folder / letters[0]).mkdir()
        for i in range(12):
            rows = [{"text": line} for line in lines(letters, 160, seed=i)]
            write_jsonl(folder / letters[0] / f"{i}.jsonl", rows)


def long_records(folder, write_jsonl):
    for letters in LANGUAGES:
        rows = [{"text": "\n".join(lines(letters, 20, seed=i))} for i in range(100)]
        write_jsonl(folder / f"{letters[0]}.jsonl", rows)


LAYOUTS = [texts, records, packed_texts, packed_records, tables, many_files, shards, long_records]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_language_is_under_the_limit(tmp_path, write_jsonl, layout):
    layout(tmp_path, write_jsonl)
    source = opened(tmp_path, max_bytes=100_000)
    assert source.counts.bytes == {"train": 98_000, "validation": 2_000}
    assert shares(source) == pytest.approx([1 / 3] * 3, abs=0.1)
    if layout is not long_records:  # the first of 20 lines fills it
        assert min(shares(source, "validation")) > 0
    assert opened(tmp_path, max_bytes=100_000).content_hash == source.content_hash
    in_order = b"".join(text for _, text in read_files(str(tmp_path), Choice(), Omitted()))  # the negative control
    assert b"q" not in in_order[:100_000]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("limit", [3_000_000, 10**9])
def test_what_fits_is_in_the_order_of_no_limit(tmp_path, write_jsonl, layout, limit):
    layout(tmp_path, write_jsonl)
    assert opened(tmp_path, max_bytes=limit).content_hash == opened(tmp_path).content_hash


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_one_file_is_read_from_its_beginning(tmp_path, kind):
    rows = lines("abcdefgh", 3000)
    if kind == "txt":
        (tmp_path / "a.txt").write_text("\n".join(rows))
    else:
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    for spec in (tmp_path, tmp_path / f"a.{kind}", tmp_path / "*"):
        source = opened(spec, max_bytes=50_000)
        (first, *_) = source.documents("train")
        assert first.startswith(rows[0]) or first == rows[1]
        hashed = hashlib.blake2b(digest_size=16)  # as it was before there were turns
        for split, name, text in source.named():
            hashed.update(f"{split}\0{name}\0{len(text)}\0{text}".encode())
        assert source.content_hash == hashed.hexdigest()


def test_shares_follow_sizes(tmp_path, write_jsonl):
    for letters, count in zip(LANGUAGES, (3000, 1500, 500), strict=True):
        write_jsonl(tmp_path / f"{letters[0]}.jsonl", [{"text": line} for line in lines(letters, count)])
    assert shares(opened(tmp_path, max_bytes=150_000)) == pytest.approx([0.6, 0.3, 0.1], abs=0.05)
    (tmp_path / "a.jsonl").unlink()
    for i, line in enumerate(lines(LANGUAGES[0], 3000)):  # the same in many files
        (tmp_path / f"a-{i:04d}.txt").write_text(line)
    assert shares(opened(tmp_path, max_bytes=150_000)) == pytest.approx([0.6, 0.3, 0.1], abs=0.08)


def test_the_same_files_give_the_same_text_wherever_they_lie(tmp_path, write_jsonl):
    (tmp_path / "here").mkdir()
    shards(tmp_path / "here", write_jsonl)
    first = opened(tmp_path / "here", max_bytes=60_000).content_hash
    shutil.copytree(tmp_path / "here", tmp_path / "else" / "where")
    for spec in ("else/where", "else/where/**/*.jsonl"):
        assert opened(tmp_path / spec, max_bytes=60_000).content_hash == first


def test_no_more_is_read_than_is_needed(tmp_path):
    sizes = {f"{i:03d}.jsonl": 1_000_000 for i in range(300)}
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as file:
            os.truncate(file.fileno(), size)
    begun, read = set(), 0

    def rows(name, path):
        begun.add(name)
        for i in range(1000):
            yield f"{name}:{i}", name.encode() + b"x" * 993

    for _, content in in_turns([(name, tmp_path / name) for name in sizes], rows, 640_000):
        read += len(content)
        if read >= 640_000:
            break
    assert TURNS * 0.7 < len(begun) <= TURNS + 1  # of 300 files; a turn is 10,000 bytes
    alike = list(in_turns([(name, tmp_path / name) for name in reversed(sizes)], rows, 640_000))
    assert len(alike) == 300_000, "to the end, each document comes once"
    assert len({name for name, _ in alike}) == 300_000
    assert len(list(in_turns([(name, tmp_path / name) for name in sizes], rows, None))) == 300_000


@pytest.mark.parametrize("streaming", [False, True])
def test_files_of_a_builder_come_in_turns_too(tmp_path, write_jsonl, streaming):
    for letters in LANGUAGES:
        (tmp_path / f"{letters[0]}.csv").write_text("text\n" + "\n".join(lines(letters, 1500)))
    options = {"dataset": "csv", "files": [str(tmp_path / "*.csv")], "streaming": streaming}
    for _ in range(2):  # of a stream, the second time from what was kept
        source = opened("", tmp_path / "cache", **options, max_bytes=60_000)
        assert min(shares(source)) > 0.2
        whole = opened("", tmp_path / "cache", **options, max_bytes=10**6)
        assert whole.content_hash == opened("", tmp_path / "cache", **options).content_hash


def test_a_missing_size_and_empty_files_do_no_harm(tmp_path, write_jsonl):
    records(tmp_path, write_jsonl)
    (tmp_path / "0.jsonl").symlink_to("nowhere")
    (tmp_path / "e.txt").write_text("")
    source = opened(tmp_path, max_bytes=60_000)
    assert min(shares(source)) > 0.2
    assert source.counts.omitted.bad in ({}, {"unreadable file": 1, "empty file": 1})


def test_validation_text_of_its_own_is_used_whole(tmp_path, write_jsonl):
    (tmp_path / "train").mkdir()
    (tmp_path / "valid").mkdir()
    records(tmp_path / "train", write_jsonl)
    shards(tmp_path / "valid", write_jsonl)
    source = opened(tmp_path / "train", max_bytes=60_000, validation=str(tmp_path / "valid"))
    assert source.counts.bytes["train"] == 60_000
    assert source.counts.documents["validation"] == 36 * 160
    assert min(shares(source)) > 0.2


def test_a_prepared_corpus_has_all_languages(tmp_path, write_jsonl):
    (tmp_path / "texts").mkdir()
    texts(tmp_path / "texts", write_jsonl)
    data = DataConfig(source=str(tmp_path / "texts"), max_bytes=60_000, tokenizer=300, sequence_length=8)
    made = prepare(data, tmp_path / "cache")
    for split in ("train", "validation"):
        text = made.tokenizer.decode(getattr(made.stores["data"], split))
        assert all(any(letter in text for letter in letters) for letters in LANGUAGES)
