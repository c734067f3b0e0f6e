"""One bad file or record is reported and skipped, and never loses the rest; `strict` stops instead."""

import gzip
import json
import lzma
import os
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from raptr.config import DataConfig, SourceConfig
from raptr.data import Omitted, open_source, prepare
from raptr.data.text.files import read_files
from raptr.data.text.records import Choice
from raptr.errors import RaptrError


def lines(count, start=0):
    return b"".join(
        json.dumps({"text": f"line {i} {os.urandom(30).hex()}"}).encode() + b"\n" for i in range(start, count)
    )


def zstd(content):
    return pyarrow.compress(content, codec="zstd", asbytes=True)


def table(path, texts, group=10, name="text"):
    parquet.write_table(pyarrow.table({name: texts}), path, row_group_size=group, compression="none")
    return path.read_bytes()


BAD = {
    "a.jsonl": (b'{"text": "one"}\n{"text": \n{"text": "two"}\n', "not JSON", "line 2", 2),
    "b.jsonl": (b'{"text": "one"}\n[1]\n', "not an object", "line 2", 1),
    "c.jsonl": (b'{"text": "one"}\n{"body": "x"}\n', "no such column", "line 2", 1),
    "d.jsonl": (b'{"text": 5}\n{"text": "one"}\n', "wrong type", "line 1", 1),
    "e.jsonl": (b'{"text": "one"}\n{"text": "\xe9"}\n', "not UTF-8", "line 2", 1),
    "f.jsonl": (b'{"text": "\\ud800"}\n{"text": "one"}\n', "half a character", "line 1", 1),
    "g.txt": (b"caf\xe9", "not UTF-8", "g.txt", 0),
    "h.txt": (b"", "empty file", "h.txt", 0),
    "i.txt.gz": (b"not packed", "broken file", "i.txt.gz", 0),
    "j.txt.xz": (b"not packed", "broken file", "j.txt.xz", 0),
    "k.txt.zst": (b"not packed", "broken file", "k.txt.zst", 0),
    "l.parquet": (b"not a table", "broken file", "l.parquet", 0),
    "m.arrow": (b"not a table", "broken file", "m.arrow", 0),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_counted_by_kind_and_the_rest_is_read(tmp_path, name):
    content, kind, place, good = BAD[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.txt").write_text("the rest")
    omitted = Omitted()
    found = list(read_files(str(tmp_path), Choice(), omitted))
    assert len(found) == good + 1
    assert found[-1] == ("z.txt", b"the rest")
    assert dict(omitted.bad) == {kind: 1}
    assert omitted.records == good + 2
    assert name in omitted.first[kind][0]
    assert place in omitted.first[kind][0]
    with pytest.raises(RaptrError, match=name):
        list(read_files(str(tmp_path), Choice(), Omitted(strict=True)))


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("zst", zstd)])
def test_what_comes_before_the_break_of_a_packed_file_is_kept(tmp_path, ending, pack):
    content = lines(5000)
    whole = pack(content)
    (tmp_path / f"a.jsonl.{ending}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.txt").write_text("after")
    omitted = Omitted()
    found = [text for _, text in read_files(str(tmp_path), Choice(), omitted)]
    assert found[-1] == b"after"
    assert 500 < len(found) < 4500
    assert found[:-1] == [json.loads(line)["text"].encode() for line in content.splitlines()[: len(found) - 1]]
    assert dict(omitted.bad) == {"broken file": 1}


def test_a_broken_row_group_does_not_lose_the_others(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"{'lorem ' * 20}{i:03d}" for i in range(40)]
    content = table(path, texts)
    offset = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    path.write_bytes(content[:offset] + b"\xff" * 20 + content[offset + 20 :])
    omitted = Omitted()
    found = [text.decode() for _, text in read_files(str(path), Choice(), omitted)]
    assert found == texts[:10] + texts[20:]
    assert dict(omitted.bad) == {"broken file": 1}
    assert "row group 1 is broken" in omitted.first["broken file"][0]
    path.write_bytes(content[:-30])
    omitted = Omitted()
    assert list(read_files(str(path), Choice(), omitted)) == []
    assert "not a whole .parquet file" in omitted.first["broken file"][0]


def test_an_arrow_file_that_is_cut_off_keeps_what_came_before(tmp_path):
    path = tmp_path / "a.arrow"
    batch = pyarrow.record_batch({"text": ["x" * 1000] * 50})
    with pyarrow.ipc.new_stream(str(path), batch.schema) as file:
        for _ in range(4):
            file.write(batch)
    path.write_bytes(path.read_bytes()[:-20_000])
    omitted = Omitted()
    assert len(list(read_files(str(path), Choice(), omitted))) == 150
    assert dict(omitted.bad) == {"broken file": 1}


def test_text_in_a_table_that_is_not_utf8_is_one_bad_record(tmp_path):
    path = tmp_path / "a.parquet"
    texts = pyarrow.array([b"good", b"\xff\xfe", None, b"better"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": texts}), path)
    omitted = Omitted()
    assert [text for _, text in read_files(str(path), Choice(), omitted)] == [b"good", b"", b"better"]
    assert dict(omitted.bad) == {"not UTF-8": 1}
    assert "row 2" in omitted.first["not UTF-8"][0]


def test_a_table_without_the_column_is_as_many_bad_records_as_it_has_rows(tmp_path):
    table(tmp_path / "a.parquet", ["x"] * 7, name="body")
    omitted = Omitted()
    assert list(read_files(str(tmp_path), Choice(), omitted)) == []
    assert dict(omitted.bad) == {"no such column": 7}
    assert "no column 'text'; seen: 'body'" in omitted.first["no such column"][0]


def opened(path, strict=False, **options):
    return open_source(SourceConfig(path=str(path), **options), cache=Path("unused"), strict=strict, name="wiki")


def test_it_is_said_on_stderr_with_the_first_places_once(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(lines(100) + b"[1]\n" * 5 + b"{\n")
    source = opened(tmp_path)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "wiki: skipped 5 bad records (not an object):" in said
    for number in (101, 102, 103):
        assert f"line {number}: a JSON list" in said
    assert "line 104" not in said
    assert "and 2 more" in said
    assert "wiki: skipped 1 bad record (not JSON):" in said
    assert source.counts.omitted.bad == {"not an object": 5, "not JSON": 1}
    assert sum(source.counts.documents.values()) == 200  # few documents: each is split
    list(source.read())
    assert capsys.readouterr().err == ""
    with pytest.raises(RaptrError, match="line 101: a JSON list"):
        opened(tmp_path, strict=True)


@pytest.mark.parametrize(("bad", "stops"), [(11, False), (12, True)])
def test_more_than_a_tenth_stops(tmp_path, bad, stops):
    (tmp_path / "a.jsonl").write_bytes(lines(99) + b"[1]\n" * bad)
    if stops:
        with pytest.raises(
            RaptrError, match=r"wiki: 12 of 111 records are bad.*\n.*12 x not an object, the first: .*100"
        ):
            opened(tmp_path)
    else:
        assert opened(tmp_path).counts.omitted.bad.total() == 11


def test_a_single_bad_file_of_few_is_not_too_much(tmp_path):
    (tmp_path / "a.txt").write_text("some text here " * 9)
    (tmp_path / "b.txt").write_bytes(b"\xff")
    assert opened(tmp_path).counts.omitted.bad == {"not UTF-8": 1}


def test_what_is_hopeless_is_not_read_to_the_end(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"[1]\n" * 10_001)
    (tmp_path / "b.jsonl").write_bytes(lines(10))
    with pytest.raises(RaptrError, match="all of the first 10000 records are bad"):
        list(read_files(str(tmp_path), Choice(), Omitted()))


def test_the_description_says_what_was_skipped(corpus, tmp_path):
    (corpus / "part-2.jsonl").write_bytes(b'{"text": 5}\n{"text": \n')
    made = prepare(DataConfig(source=str(corpus), tokenizer=400), tmp_path / "cache")
    assert made.description["skipped"] == {"wrong type": 1, "not JSON": 1}
    assert ["line 1" in made.description["skipped_first"][0], "line 2" in made.description["skipped_first"][1]] == [
        True
    ] * 2
    assert "part-2.jsonl, line 1" in made.facts(16)["skipped_first"]
    (corpus / "part-2.jsonl").unlink()
    clean = prepare(DataConfig(source=str(corpus), tokenizer=400), tmp_path / "cache")
    assert clean.description["content_hash"] == made.description["content_hash"]
    (tmp_path / "only.jsonl").write_text("[1]\n")
    with pytest.raises(RaptrError, match="no train text"):
        opened(tmp_path / "only.jsonl")


@pytest.mark.slow
def test_a_folder_of_everything_that_goes_wrong_keeps_the_rest(tmp_path, capsys):
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "a.jsonl").write_bytes(lines(400))
    (shards / "b.jsonl").write_bytes(b"")
    (shards / "c.jsonl").write_bytes(b'{"text": "caf\xe9"}\n' + lines(500, 400))
    packed = lzma.compress(lines(5500, 500))
    (shards / "d.jsonl.xz").write_bytes(packed[: len(packed) // 2])
    (shards / "e.txt").write_bytes(b"\xff\xfe\x00")
    (shards / "f.jsonl.xz").write_bytes(lzma.compress(b""))  # a whole file of no records
    (shards / "g.jsonl").write_bytes(b"\n \n\n")
    table(shards / "h.parquet", [])
    (shards / "z.jsonl").write_bytes(b'{"text": "the last line"}\n')
    made = prepare(DataConfig(source=str(shards), tokenizer=300, validation_share=0.1), tmp_path / "cache")
    store = made.stores["data"]
    assert store.description["skipped"] == {"empty file": 1, "not UTF-8": 2, "broken file": 1}
    said = " ".join(capsys.readouterr().err.split())
    for name in ("b.jsonl", "c.jsonl, line 1", "d.jsonl.xz", "e.txt"):
        assert name in said
    found = "".join(store.tokenizer.decode(tokens) for tokens in (store.train, store.validation))
    for text in ("line 0 ", "line 399 ", "line 400 ", "line 499 ", "line 1000 ", "the last line"):
        assert text in found
    with pytest.raises(RaptrError, match=r"b\.jsonl: the file is empty"):
        prepare(DataConfig(source=str(shards), tokenizer=300, strict=True), tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "one word", "spaces"])
def test_a_document_of_one_very_long_line_is_tokenized_whole(tmp_path, kind):
    """Longer than pieces of 1 MB: 2.2 MB of words, 1.2 MB without a place to cut, one word for a trainer."""
    word = {"words": "lower and lowest, ", "one word": "lowernewest", "spaces": "   \u3000"}[kind]
    size = 2_200_000 if kind == "words" else 1_200_000
    document = "It begins" + word * (size // len(word.encode())) + "and ends."
    with (tmp_path / "a.jsonl").open("w") as file:
        file.write(json.dumps({"text": document}) + "\n")
        file.writelines(json.dumps({"text": f"Short {i}."}) + "\n" for i in range(40))
    made = prepare(DataConfig(source=str(tmp_path / "a.jsonl"), tokenizer=265), tmp_path / "cache").stores["data"]
    text = made.tokenizer.decode(made.train)
    assert text.startswith(document[: -round(len(document) * 0.02)] + made.tokenizer.eos_token)
    assert text.count("Short") == 40
