"""Tokens in several processes: the same bytes for any number, wherever it is interrupted, and what a failure says."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from raptr.config import DataConfig
from raptr.data import prepare, train_tokenizer
from raptr.data.tokens import encode_pool, journal, split_text
from raptr.data.tokens.encode_pool import Recipe, Texts, encoded, processes
from raptr.data.tokens.tokenizer import encoder
from raptr.errors import RaptrError

WORDS = ["low", "lower", "lowest", "new", "newer", "wide", "é", "naïve", "日本", "😀", "don't", "x=1;", "<|endoftext|>"]


def text(size, seed=0, line=9):
    """Words in lines."""
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + ("\n" if draw.randrange(line) == 0 else " ") for _ in range(size))


@pytest.fixture(scope="module")
def bpe():
    return train_tokenizer([text(3000)], 300)


@pytest.fixture
def many(tmp_path, write_jsonl):
    """A folder of 1,500 documents."""
    (tmp_path / "many").mkdir()
    write_jsonl(tmp_path / "many" / "a.jsonl", [{"text": text(30, seed)} for seed in range(1500)])
    return tmp_path / "many"


@pytest.fixture
def small(monkeypatch):
    """Parts, and what is worth a process, of a few kilobytes."""
    monkeypatch.setattr(journal, "CHUNK", 3_000)
    monkeypatch.setattr(encode_pool, "EACH", 10_000)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bytes(many, tmp_path, small):
    made = [
        prepare(DataConfig(source=str(many), tokenizer=300), tmp_path / str(n), n).stores["data"] for n in (1, 2, 3)
    ]
    assert [store.made.processes for store in made] == [1, 2, 3]
    assert [store.made.tokens for store in made] == [sum(made[0].description["tokens"].values())] * 3
    assert contents(made[0].path) == contents(made[1].path) == contents(made[2].path)
    assert sorted(contents(made[0].path)) == sorted(
        ["description.json", "train.bin", "validation.bin", *(n for n in contents(made[0].path) if "tokenizer/" in n)]
    )


KILLED = """
import os, sys
from pathlib import Path
from raptr.config import DataConfig
from raptr.data import prepare
from raptr.data.tokens import encode_pool, journal
journal.CHUNK, encode_pool.EACH = 3_000, 10_000
prepare(DataConfig(source=sys.argv[1], tokenizer=300), Path(sys.argv[2]), 2)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(many, tmp_path, small):
    whole = prepare(DataConfig(source=str(many), tokenizer=300), tmp_path / "whole", 1).stores["data"]
    cache = tmp_path / "cache"
    journal = cache / f".partial-{whole.path.name}" / "parts.jsonl"
    seen = []
    for wanted in (1, 9, 20):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(many), str(cache)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < wanted):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(journal.read_bytes().count(b"\n") if journal.exists() else None)
    made = prepare(DataConfig(source=str(many), tokenizer=300), cache, 2).stores["data"]
    assert contents(made.path) == contents(whole.path)
    assert [path.name for path in cache.iterdir()] == [made.path.name]
    assert seen[0] is not None, "it was killed before it was finished"
    assert made.made is None or made.made.found > 0


def finished(folder):
    """A folder with three parts, as it is written."""
    folder.mkdir(exist_ok=True)
    with journal.opened(folder, 2) as writing:
        for number, split in enumerate(("train", "validation", "train")):
            chunk = journal.Chunk([f"text {number}"], [True], split)
            tokens = np.arange(5, dtype=np.uint16) + number
            part = journal.measured(chunk)
            writing.add(journal.Part(part.split, part.texts, 5, part.bytes), tokens)
    return (folder / "parts.jsonl").read_bytes()


@pytest.mark.parametrize(
    "behind", [b"", b'{"split": "train"', b'{"split": "train", "texts": "", "tokens": 5}\n', b"\0\0"]
)
def test_what_is_behind_the_last_whole_part_is_cut_off(tmp_path, behind):
    written = finished(tmp_path)
    (tmp_path / "parts.jsonl").write_bytes(written + behind)
    with (tmp_path / "train.bin").open("ab") as file:
        file.write(b"half a part")
    with journal.opened(tmp_path, 2) as writing:
        assert writing.tokens() == {"train": 10, "validation": 5}
    assert (tmp_path / "parts.jsonl").read_bytes() == written
    assert np.fromfile(tmp_path / "train.bin", np.uint16).tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]


def test_a_part_whose_tokens_are_missing_does_not_count(tmp_path):
    written = finished(tmp_path)
    (tmp_path / "train.bin").write_bytes((tmp_path / "train.bin").read_bytes()[:-1])
    with journal.opened(tmp_path, 2) as writing:
        assert writing.tokens() == {"train": 5, "validation": 5}
    assert (tmp_path / "parts.jsonl").read_bytes() == b"".join(written.splitlines(keepends=True)[:2])


@pytest.mark.slow
def test_parts_of_another_text_are_not_taken(many, tmp_path, small):
    whole = prepare(DataConfig(source=str(many), tokenizer=300), tmp_path / "whole", 1).stores["data"]
    partial = tmp_path / "cache" / f".partial-{whole.path.name}"
    partial.parent.mkdir()
    finished(partial)
    made = prepare(DataConfig(source=str(many), tokenizer=300), tmp_path / "cache", 1).stores["data"]
    assert made.made.found == 0 or contents(made.path) == contents(whole.path)
    assert contents(made.path) == contents(whole.path)


class Ends:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (9,)


@pytest.mark.slow
def test_a_process_that_ends_is_said_and_the_rest_ends_with_it(bpe):
    failing = Recipe(os.getcwd, 0, "uint16")  # takes no texts
    jobs = [Texts(["low"], [True])] * 4
    with pytest.raises(RaptrError, match=r"the tokenizer failed in a process of its own: TypeError"):
        list(encoded(jobs, failing, 2))
    with pytest.raises(RaptrError, match=r"ended by itself \(exit code 9\).*fewer --workers"):
        list(encoded(jobs, Recipe(Ends(), 0, "uint16"), 2))
    recipe = Recipe(encoder(bpe), 0, "uint16")
    stopped = encoded(jobs, recipe, 2)
    next(stopped)
    stopped.close()
    assert [job.tolist() for job in encoded(jobs, recipe, 2)] == [recipe(jobs[0]).tolist()] * 4


def test_as_many_processes_as_are_worth_it():
    assert processes(100, 16) == 1
    assert processes(100 * encode_pool.EACH, 16) == 16
    assert processes(3 * encode_pool.EACH, 16) == 3
    assert processes(10**12, None) >= 1


# Long documents


def word_piece():
    """A WordPiece with BERT's normalizer and pre-tokenizer."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        [text(3000)], trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, sep_token="[SEP]", unk_token="[UNK]")


@pytest.mark.parametrize("line", [9, 10**9], ids=["lines", "one line"])
@pytest.mark.parametrize("kind", ["bpe", "words"])
def test_a_long_document_has_the_tokens_that_it_has_in_one_piece(kind, line, bpe, monkeypatch):
    encode = encoder(bpe if kind == "bpe" else word_piece())
    document = text(5000, seed=3, line=line)
    whole = encode([document])[0]
    for size in (200, 333, 1000):
        monkeypatch.setattr(split_text, "PIECE", size)
        cut = list(split_text.pieces(document))
        assert "".join(part for part, _ in cut) == document
        assert max(len(part) for part, _ in cut) <= size
        assert len(cut) > len(document) // size
        assert [ends for _, ends in cut] == [False] * (len(cut) - 1) + [True]
        assert [token for row in encode([part for part, _ in cut]) for token in row] == whole


def test_a_cut_in_a_word_would_be_seen(bpe):
    encode = encoder(bpe)
    first, second = encode(["l", "ower"])
    assert first + second != encode(["lower"])[0]


def test_what_has_no_place_to_cut_is_cut_anywhere(monkeypatch):
    monkeypatch.setattr(split_text, "PIECE", 100)
    assert [len(part) for part, _ in split_text.pieces("x" * 250)] == [100, 100, 50]
    assert list(split_text.pieces("x" * 100)) == [("x" * 100, True)]


def test_a_long_document_has_one_end(tmp_path, monkeypatch):
    monkeypatch.setattr(split_text, "PIECE", 500)
    (tmp_path / "a.txt").write_text(text(4000))
    made = prepare(DataConfig(source=str(tmp_path / "a.txt"), tokenizer=300), tmp_path / "cache").stores["data"]
    end = made.tokenizer.eos_token_id
    assert np.flatnonzero(made.train == end).tolist() == [len(made.train) - 1]
    assert made.tokenizer.decode(made.train[:-1]) == text(4000)[: -round(len(text(4000)) * 0.02)]


# What is said


@pytest.mark.slow
def test_the_throughput_is_said_once(many, tmp_path, small):
    first = prepare(DataConfig(source=str(many), tokenizer=300), tmp_path, 2)
    said = first.facts(16)["tokenized now"]
    assert "MB/s" in said
    assert "tokens/s, 2 processes" in said
    again = prepare(DataConfig(source=str(many), tokenizer=300), tmp_path, 2)
    assert "tokenized now" not in again.facts(16)
    assert again.stores["data"].description == first.stores["data"].description
    assert json.loads(json.dumps(first.description)) == first.description


@pytest.mark.slow
def test_another_process_at_the_same_store_is_not_waited_for(many, tmp_path):
    import fcntl

    whole = prepare(DataConfig(source=str(many), tokenizer=300), tmp_path / "whole").stores["data"]
    partial = tmp_path / "cache" / f".partial-{whole.path.name}"
    partial.mkdir(parents=True)
    with (partial / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = prepare(DataConfig(source=str(many), tokenizer=300), tmp_path / "cache").stores["data"]
    assert contents(made.path) == contents(whole.path)
    assert Path(partial / ".lock").exists(), "what the other writes is left to it"
