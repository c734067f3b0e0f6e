"""Documents from .txt and .jsonl, plain and packed; and what is said about files that cannot be read."""

import gzip
import lzma
import os

import pytest

from raptr.config import DataConfig, SourceConfig
from raptr.data import Omitted, prepare
from raptr.data.text.files import find_files, read_files
from raptr.data.text.records import Choice
from raptr.data.text.sources import open_source
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


def tree(root, files=(), links=()):
    """A folder with files, each of which holds its name, and with links."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name, target in links:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    return root


A, B, ELSE = "top/a/a.txt", "top/b/b.txt", "else/in/e.txt"
LINKED = {
    "a folder elsewhere": ([A, ELSE], [("top/l", "../else")], ["a/a.txt", "l/in/e.txt"]),
    "by an absolute path": ([A, ELSE], [("top/l", "{root}/else")], ["a/a.txt", "l/in/e.txt"]),
    "a folder with all of it": ([ELSE], [("top/l", "../else")], ["l/in/e.txt"]),
    "a link in a linked folder": ([A, ELSE, "more/m.txt"], [("top/l", "../else"), ("else/k", "../more")], None),
    "a folder below, sorted first": ([A, B], [("top/0", "b")], ["a/a.txt", "b/b.txt"]),
    "itself": ([A], [("top/a/l", "../a")], ["a/a.txt"]),
    "the folder that is read": ([A], [("top/a/l", "..")], ["a/a.txt"]),
    "a folder above all": ([A, ELSE], [("top/l", "..")], ["a/a.txt"]),
    "two that lead to each other": ([A, B], [("top/a/l", "../b"), ("top/b/l", "../a")], ["a/a.txt", "b/b.txt"]),
    "elsewhere, and back": ([A, ELSE], [("top/l", "../else"), ("else/in/k", "../../top")], ["a/a.txt", "l/in/e.txt"]),
    "one folder by two links": ([ELSE], [("top/k", "../else"), ("top/l", "../else")], ["k/in/e.txt"]),
    "a folder and one below it": ([ELSE], [("top/k", "../else/in"), ("top/l", "../else")], ["k/e.txt"]),
    "a file": ([A, ELSE], [("top/l.txt", "../else/in/e.txt")], ["a/a.txt", "l.txt"]),
    "a hidden link": ([A, ELSE], [("top/.l", "../else")], ["a/a.txt"]),
    "a file that is its own target": ([A], [("top/l", "l")], ["a/a.txt"]),
}


@pytest.mark.parametrize("case", LINKED)
def test_a_folder_and_a_pattern_read_the_same_files_through_links(tmp_path, case):
    files, links, expected = LINKED[case]
    root = tree(tmp_path, files, [(name, target.format(root=tmp_path)) for name, target in links])
    expected = expected or ["a/a.txt", "l/in/e.txt", "l/k/m.txt"]
    assert [name for name, _ in read(root / "top")] == expected
    assert read(root / "top" / "**" / "*.txt") == read(root / "top")
    assert [name for name, _ in read(root / "to*" / "**" / "*.txt")] == [f"top/{name}" for name in expected]
    assert [name for name, _ in read(root / "top" / "**" / "**" / "*.txt")] == expected


def test_many_links_between_folders_are_no_maze(tmp_path):
    names = [f"f{i}" for i in range(12)]
    links = [(f"{one}/{other}", f"../{other}") for one in names for other in names if one != other]
    tree(tmp_path, [f"{name}/{name}.txt" for name in names], links)  # 12! ways through them
    assert [name for name, _ in read(tmp_path)] == sorted(f"{name}/{name}.txt" for name in names)
    assert read(tmp_path / "**" / "*") == read(tmp_path)


def test_a_pattern_that_names_a_link_reads_it(tmp_path):
    tree(tmp_path, [A, B], [("top/l", "a"), ("top/up", "..")])
    assert [name for name, _ in read(tmp_path / "top" / "l" / "*.txt")] == ["a.txt"]
    assert [name for name, _ in read(tmp_path / "top" / "[l]" / "*.txt")] == ["l/a.txt"]
    assert [name for name, _ in read(tmp_path / "top" / "up" / "top" / "a")] == ["a.txt"]


def test_files_that_are_not_read_are_counted(tmp_path, capsys):
    tree(tmp_path, ["a.txt", "b.md", "c.MD", "D.TXT", ".h.txt", ".git/x.txt", "sub/Makefile", "sub/e.json"])
    tree(tmp_path, links=[("gone", "nowhere"), ("up", "."), ("k.md", "b.md")])
    omitted = Omitted()
    assert [name for name, _ in read_files(str(tmp_path), Choice(), omitted)] == ["a.txt"]
    expected = {".md": 2, ".MD": 1, ".TXT": 1, "hidden": 2, "no ending": 1, ".json": 1, "broken link": 1}
    assert omitted.unread == {**expected, "link to a folder above it": 1}
    assert not omitted.bad
    (tmp_path / "a.txt").write_text("words " * 100)
    source = open_source(SourceConfig(path=str(tmp_path)), name="notes", cache=tmp_path)
    assert "notes: not read (10 files, folders or links): 2 hidden, 2 .md, 1 " in capsys.readouterr().err
    assert source.counts.omitted.unread.total() == 10
    whole = Omitted()
    list(read_files(str(tmp_path / "a.txt"), Choice(), whole))
    assert not whole.unread
    with pytest.raises(RaptrError, match=r"seen: 1 of no ending, 1 of \.json"):
        read(tmp_path / "sub")


def test_a_builder_of_the_datasets_library_counts_them_too(tmp_path):
    tree(tmp_path, ["csv/a.csv", "csv/.b.csv", "else/c.csv"], [("csv/l", "../else"), ("csv/up", "..")])
    for name in ("csv/a.csv", "else/c.csv"):
        rows = "".join(f"{name} {i}\n" for i in range(300))
        (tmp_path / name).write_text("text\n" + rows)
    for streaming in (False, True, True):  # at the third time from what was kept
        table = SourceConfig(dataset="csv", files=[str(tmp_path / "csv")], streaming=streaming)
        source = open_source(table, cache=tmp_path)
        assert sum(source.counts.documents.values()) == 600
        assert source.counts.omitted.unread == {"hidden": 1, "link to a folder above it": 1}


def test_what_is_not_read_is_part_of_the_description(tmp_path):
    tree(tmp_path, links=[("texts/up", "..")])
    (tmp_path / "texts" / "a.txt").write_text("some words " * 500)
    (tmp_path / "texts" / "read.me").write_text("not a text")
    data = DataConfig(source=str(tmp_path / "texts"), tokenizer=259, sequence_length=8)
    made = prepare(data, tmp_path / "cache")
    assert made.description["not_read"] == {".me": 1, "link to a folder above it": 1}
    assert made.facts(8)["not_read"] == {".me": 1, "link to a folder above it": 1}


def test_a_folder_that_cannot_be_opened_is_bad(tmp_path, monkeypatch):
    tree(tmp_path, ["a.txt", "closed/b.txt"])
    scan = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for spec in (tmp_path, tmp_path / "**" / "*.txt"):
        omitted = Omitted()
        assert [name for name, _ in read_files(str(spec), Choice(), omitted)] == ["a.txt"]
        assert omitted.bad == {"unreadable folder": 1}
        with pytest.raises(RaptrError, match=r"closed: the folder cannot be read .Permission denied"):
            read(spec)
    with pytest.raises(RaptrError, match=r"nothing at all.*closed cannot be read .Permission denied"):
        find_files(str(tmp_path / "closed"))
