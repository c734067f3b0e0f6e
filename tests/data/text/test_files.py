"""Documents from .txt and .jsonl, plain and packed; and what is said about files that cannot be read."""

import gzip
import lzma
import os

import pytest

from raptr.data import Omitted
from raptr.data.text.files import read_files
from raptr.data.text.records import Choice
from raptr.errors import RaptrError


def read(path, text="text", strict=True):
    """All documents of a path; the first thing that is bad raises."""
    return list(read_files(str(path), Choice(text=text), Omitted(strict=strict)))


LINES = b'{"text": "one"}\n\n{"text": "zw\xc3\xb6lf\\n", "id": 2}\n'


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "inner.txt").write_bytes(b"inner\r\n")
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "d.jsonl.xz").write_bytes(lzma.compress(LINES))
    (tmp_path / "read.me").write_bytes(b"\xff")
    (tmp_path / ".hidden.txt").write_bytes(b"\xff")
    (tmp_path / ".git" / "x.txt").write_bytes(b"\xff")
    assert read(tmp_path) == [
        ("a.jsonl:1", b"one"),
        ("a.jsonl:3", "zwölf\n".encode()),
        ("b/inner.txt", b"inner\r\n"),
        ("c.txt.gz", b"packed"),
        ("d.jsonl.xz:1", b"one"),
        ("d.jsonl.xz:3", "zwölf\n".encode()),
    ]


@pytest.mark.parametrize("pack", [None, gzip, lzma])
@pytest.mark.parametrize(("kind", "content", "texts"), [("txt", b"a\nb", [b"a\nb"]), ("jsonl", LINES, None)])
def test_packed_files_say_the_same(tmp_path, pack, kind, content, texts):
    ending = {None: "", gzip: ".gz", lzma: ".xz"}[pack]
    path = tmp_path / f"some.{kind}{ending}"
    path.write_bytes(pack.compress(content) if pack else content)
    assert [text for _, text in read(path)] == (texts or [b"one", "zwölf\n".encode()])


def test_another_field_can_hold_the_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "here", "text": 3}\n')
    assert read(path, "body") == [("a.jsonl:1", b"here")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "one"}\n{"text": ', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"text": "one"}\n[1]\n', "line 2: a JSON list; expected one object"),
        ("a.jsonl", b'{"body": "one", "id": 1}\n', "line 1: there is no column 'text'; seen: 'body', 'id'"),
        ("a.jsonl", b'{"text": 5}\n', "line 1: the column 'text' holds a int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: the text holds half of a surrogate pair"),
        ("a.jsonl", b'{"text": "\xe9"}\n', "a.jsonl, line 1: not UTF-8 .byte 0xe9 at 10"),
        ("a.txt", b"caf\xe9", "a.txt: not UTF-8 .byte 0xe9 at 3"),
        ("a.txt.gz", gzip.compress(os.urandom(5000))[:-3000], "a.txt.gz: the packed file is broken or cut off"),
        ("a.txt.gz", b"not packed", "broken or cut off"),
        ("a.jsonl.xz", lzma.compress(LINES * 50)[:-20], "a.jsonl.xz: the packed file is broken or cut off"),
        ("a.txt.xz", b"not packed", "broken or cut off"),
        ("a.csv", b"a,b", "expected a file name that ends in .txt or .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RaptrError, match=message):
        read(path)


def test_missing_and_useless_folders_are_refused(tmp_path):
    with pytest.raises(RaptrError, match=r"no such file or folder; give 'builtin:python'"):
        read(tmp_path / "missing")
    with pytest.raises(RaptrError, match="seen: nothing at all"):
        read(tmp_path)
    for name in ("a.csv", "b.csv", "Makefile"):
        (tmp_path / name).write_text("x")
    with pytest.raises(RaptrError, match=r"names that end in .*seen: 2 of .csv, 1 of no ending"):
        read(tmp_path)


def test_a_pattern_meets_files_and_names_them_from_its_first_wildcard(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/wiki-0.txt", "a/wiki-1.txt", "a/b/wiki-2.txt", "a/books.txt", "a/wiki.csv"):
        (tmp_path / name).write_text(name)
    assert [name for name, _ in read(tmp_path / "a" / "wiki*")] == ["wiki-0.txt", "wiki-1.txt"]
    assert [name for name, _ in read(tmp_path / "*" / "wiki-[01].txt")] == ["a/wiki-0.txt", "a/wiki-1.txt"]
    assert [name for name, _ in read(tmp_path / "**" / "wiki*.txt")] == [
        "a/b/wiki-2.txt",
        "a/wiki-0.txt",
        "a/wiki-1.txt",
    ]
    (tmp_path / "[odd].txt").write_text("a file of that very name")
    assert read(tmp_path / "[odd].txt") == [("[odd].txt", b"a file of that very name")]
    with pytest.raises(RaptrError, match="no file meets this pattern"):
        read(tmp_path / "*.jsonl")


def test_zstandard_says_the_same(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    for name in ("a.jsonl.zst", "b.txt.zst"):
        with pyarrow.output_stream(str(tmp_path / name), compression="zstd") as file:
            file.write(LINES)
    assert [text for _, text in read(tmp_path)] == [b"one", "zwölf\n".encode(), LINES]
