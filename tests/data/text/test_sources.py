"""Sources: what is held out, dropped, cut and hashed; and that memory does not grow with the text."""

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from raptr.config import SourceConfig
from raptr.data import open_source
from raptr.data.text.builtin import read_builtin
from raptr.errors import RaptrError


def opened(path, **options):
    """A path as an open source; nothing is fetched, so no cache is written to."""
    return open_source(SourceConfig(path=str(path), **options), cache=Path("unused"))


def texts(source, split):
    return list(source.documents(split))


def test_every_document_is_in_one_split_and_order_is_kept(corpus):
    source = opened(corpus)
    train, held_out = texts(source, "train"), texts(source, "validation")
    assert len(train) + len(held_out) == 1200
    assert not set(train) & set(held_out)
    assert 5 <= len(held_out) <= 60  # 24 expected; outside with a probability below 1e-5
    assert train[0].startswith("Document 0-")
    assert train == texts(source, "train")  # it can be read again
    assert source.counts.documents == {"train": len(train), "validation": len(held_out)}
    assert source.counts.bytes["train"] == sum(len(text.encode()) for text in train)


def test_the_split_does_not_depend_on_place_or_limit(corpus, tmp_path):
    held_out = set(texts(opened(corpus), "validation"))
    (corpus / "part-0.jsonl").rename(corpus / "z.jsonl")
    assert set(texts(opened(corpus), "validation")) == held_out
    less = opened(corpus, max_bytes=20_000)
    assert set(texts(less, "validation")[:-1]) < held_out  # the last one may be cut
    other = opened(corpus, validation_share=0.2)
    assert held_out < set(texts(other, "validation"))


def test_the_limit_is_kept_and_a_smaller_source_is_a_prefix_of_each_file(corpus):
    small, large = opened(corpus, max_bytes=10_000), opened(corpus, max_bytes=20_000)
    assert small.counts.bytes == {"train": 9800, "validation": 200}
    for part in ("Document 0-", "Document 1-"):
        for split in ("train", "validation"):
            less, more = ("".join(text for text in texts(s, split) if text.startswith(part)) for s in (small, large))
            assert more.startswith(less)
            assert less or split == "validation"
    one = [opened(corpus / "part-0.jsonl", max_bytes=size) for size in (10_000, 20_000)]
    for split in ("train", "validation"):
        assert "".join(texts(one[1], split)).startswith("".join(texts(one[0], split)))
    assert opened(corpus, max_bytes=10**9).content_hash == opened(corpus).content_hash


def test_a_limit_inside_a_character_does_not_break_it(tmp_path):
    (tmp_path / "a.txt").write_text("é" * 1000)
    source = opened(tmp_path, max_bytes=101, validation_share=0.5)
    assert texts(source, "train") == ["é" * 25]  # room for 51 bytes
    assert texts(source, "validation") == ["é" * 25]


def test_duplicates_and_empty_documents_are_dropped(corpus, write_jsonl):
    before = opened(corpus)
    shutil.copy(corpus / "part-0.jsonl", corpus / "zz.jsonl")
    write_jsonl(corpus / "zzz.jsonl", [{"text": ""}, {"text": " \n"}])
    after = opened(corpus)
    assert (after.counts.duplicates, after.counts.empty) == (600, 2)
    assert after.content_hash == before.content_hash
    assert len(texts(after, "train")) == before.counts.documents["train"]


def test_the_hash_is_of_names_text_and_split_and_of_nothing_else(corpus, tmp_path):
    first = opened(corpus).content_hash
    moved = shutil.copytree(corpus, tmp_path / "elsewhere")
    assert opened(moved).content_hash == first
    changes = [opened(corpus, validation_share=0.1), opened(corpus, max_bytes=5_000)]
    content = (moved / "part-1.jsonl").read_text()
    (moved / "part-1.jsonl").write_text(content.replace("Document 1-599", "document 1-599"))
    changes.append(opened(moved))
    (moved / "part-1.jsonl").write_text(content)
    (moved / "part-1.jsonl").rename(moved / "part-2.jsonl")
    changes.append(opened(moved))
    hashes = {source.content_hash for source in changes}
    assert len(hashes) == len(changes)
    assert first not in hashes


def test_few_documents_are_split_inside(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 90 + "b" * 10)
    (tmp_path / "b.txt").write_text("c" * 180 + "d" * 20)
    source = opened(tmp_path, validation_share=0.1)
    assert texts(source, "train") == ["a" * 90, "c" * 180]
    assert texts(source, "validation") == ["b" * 10, "d" * 20]
    assert "end of every document" in source.split


def test_validation_text_of_its_own_is_not_trained_on(corpus, tmp_path, write_jsonl):
    shared = next(opened(corpus).documents("train"))
    held_out = write_jsonl(tmp_path / "valid.jsonl", [{"text": "only here"}, {"text": shared}])
    source = opened(corpus, validation=str(held_out), max_bytes=30_000)
    assert texts(source, "validation") == ["only here", shared]
    assert shared not in texts(source, "train")
    assert source.counts.duplicates == 1
    assert source.counts.bytes["train"] == 30_000


def test_text_that_changes_while_it_is_used_is_noticed(corpus, write_jsonl):
    source = opened(corpus)
    assert sum(1 for _ in source.read()) == 1200
    write_jsonl(corpus / "part-1.jsonl", [{"text": "something else"}])
    with pytest.raises(RaptrError, match="changed"):
        list(source.read())


def test_memory_does_not_grow_with_the_text(tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "big.jsonl", ({"text": f"{i} " + "word " * 4000} for i in range(600)))

    def peak(use):
        tracemalloc.start()
        use()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    source = opened(path)
    assert peak(lambda: opened(path)) < 2e6 < path.stat().st_size / 5
    assert peak(lambda: sum(len(text) for text in source.documents("train"))) < 2e6
    assert peak(lambda: list(source.documents("train"))) > 8e6  # control


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": "missing-file.txt"}, "missing-file.txt: there is no such file"),
        ({"path": "builtin:java"}, "'builtin:java' does not exist; the only one of this kind is 'builtin:python'"),
    ],
)
def test_wrong_options_are_refused(corpus, options, message):
    with pytest.raises(RaptrError, match=message):
        opened(**{"path": corpus, **options})


def test_an_empty_source_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(" \n ")
    with pytest.raises(RaptrError, match=r"no train text \(dropped: 1 empty"):
        opened(tmp_path)


def test_builtin_python_is_real_text_in_a_fixed_order():
    source = opened("builtin:python", max_bytes=300_000)
    assert source.counts.bytes == {"train": 294_000, "validation": 6_000}
    assert source.content_hash == opened("builtin:python", max_bytes=300_000).content_hash
    assert "\ndef " in "".join(source.documents("train"))
    longer = opened("builtin:python", max_bytes=600_000)
    assert "".join(longer.documents("train")).startswith("".join(source.documents("train")))


def test_a_prefix_of_builtin_python_is_a_mixture_and_no_file_comes_twice():
    names = [name for name, _ in read_builtin()]
    assert len(set(names)) == len(names) > 1500
    assert not [name for name in names if "site-packages" in name]
    shares = {}
    for some in (names, names[: len(names) // 8]):
        counts = [sum(name.startswith(f"{package}/") for name in some) for package in ("python", "torch")]
        shares[len(some)] = [count / len(some) for count in counts]
    whole, prefix = shares.values()
    assert prefix == pytest.approx(whole, abs=0.08)  # about 6 standard deviations
    assert names != sorted(names)


@pytest.mark.slow
def test_builtin_python_does_not_import_what_it_reads():
    code = "import sys; from pathlib import Path; from raptr.config import SourceConfig; "
    code += "from raptr.data import open_source; "
    code += "open_source(SourceConfig(path='builtin:python', max_bytes=9000), cache=Path('unused')); "
    code += "print([name for name in ('torch', 'transformers', 'sympy', 'datasets', 'pyarrow') if name in sys.modules])"
    paths = ":".join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": paths})
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_builtin_python_drops_and_counts_what_is_not_text(monkeypatch):
    files = [("a.py", b"\xff\xfe"), ("b.py", b""), ("c.py", b"x = 1\n" * 9), ("d.py", b"x = 1\n" * 9)]
    monkeypatch.setattr("raptr.data.text.sources.read_builtin", lambda: iter(files))
    counts = opened("builtin:python", validation_share=0.5).counts
    assert (counts.undecodable, counts.empty, counts.duplicates) == (1, 1, 1)
    assert counts.documents["train"] == 1
