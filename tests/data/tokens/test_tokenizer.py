"""Tokenizers: nothing is lost, text cannot forge special tokens, training is deterministic, errors are useful."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from raptr.data import load_tokenizer, parallel_tokenizers, train_tokenizer, vocabulary
from raptr.data.tokens.tokenizer import encoder, sample, separator
from raptr.errors import RaptrError

TEXT = ["def low(lower):\n    return lowest + new\n", "the newest and the widest, the lowest of the low"] * 40
TRAINED = train_tokenizer(TEXT, 290)


def word_level(*special):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "low": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def test_the_vocabulary_is_as_asked():
    assert vocabulary(TRAINED) == len(TRAINED) == 290
    assert TRAINED.eos_token == TRAINED.bos_token == "<|endoftext|>"
    assert [TRAINED.eos_token_id, TRAINED.pad_token_id, TRAINED.mask_token_id] == [0, 1, 2]
    assert len(TRAINED("lowest")["input_ids"]) < len("lowest")  # merges were learned


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text):
    [ids] = encoder(TRAINED)([text])
    assert TRAINED.decode(ids) == text


@pytest.mark.parametrize("text", ["", " ", "\r\n\t\0", "don 't .", "<|endoftext|> <|mask|>", "𝔘 é ё \u200d", " a  b "])
def test_difficult_texts_come_back(text):
    [ids] = encoder(TRAINED)([text])
    assert TRAINED.decode(ids) == text


def test_text_cannot_forge_a_special_token():
    text = "a<|endoftext|>b<|mask|><|pad|>"
    [ids] = encoder(TRAINED)([text])
    assert not set(ids) & {0, 1, 2}
    assert set(TRAINED(text)["input_ids"]) >= {0, 1, 2}  # control: the tokenizer itself reads them, and goes on to


def test_nothing_is_added_cut_or_padded():
    tokenizer = train_tokenizer(TEXT, 290)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    assert encoder(tokenizer)(TEXT[:2]) == encoder(TRAINED)(TEXT[:2])


@pytest.mark.slow
def test_training_is_deterministic():
    code = "import sys; from raptr.data import train_tokenizer; "
    code += f"print(train_tokenizer({TEXT!r}, 290).backend_tokenizer.to_str())"
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == TRAINED.backend_tokenizer.to_str(), done.stderr


def test_only_the_sample_is_read():
    def documents():
        for text in TEXT:
            read.append(text)
            yield text

    read: list[str] = []
    size = sum(len(text) for text in TEXT[:30])
    train_tokenizer(documents(), 270, sample_bytes=size)
    assert len(read) == 30


def test_vocabularies_that_cannot_be_are_refused():
    with pytest.raises(RaptrError, match="needs at least 259"):
        train_tokenizer(TEXT, 258)
    assert vocabulary(train_tokenizer(TEXT, 259)) == 259
    with pytest.raises(RaptrError, match=r"only enough repetition for \d+; give more text or ask for at most"):
        train_tokenizer(TEXT, 5000)


def test_a_folder_and_a_file_give_the_same_tokenizer(tmp_path):
    TRAINED.save_pretrained(tmp_path)
    for spec in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(str(spec))
        assert loaded.backend_tokenizer.get_vocab() == TRAINED.backend_tokenizer.get_vocab()
        assert separator(loaded) == 0
        assert loaded.mask_token_id == 2
        assert encoder(loaded)(TEXT[:2]) == encoder(TRAINED)(TEXT[:2])


def test_the_separator_stands_in_for_a_missing_end(tmp_path):
    word_level("[SEP]", "[MASK]").save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert tokenizer.eos_token is None
    assert separator(tokenizer) == tokenizer.convert_tokens_to_ids("[SEP]") == 2
    assert tokenizer.mask_token == "[MASK]"


def test_tokenizers_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    word_level("[MASK]").save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RaptrError, match="neither an end-of-sequence token nor a separator"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "vocab.bin").write_text("a")
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("missing", "no such file or folder"),
        ("broken.json", "cannot be loaded"),
        ("vocab.bin", "not a tokenizer.json"),
        ("empty", "cannot be loaded"),
    ]:
        with pytest.raises(RaptrError, match=message):
            load_tokenizer(str(tmp_path / name))

    def unreachable(name, trust_remote_code):
        assert trust_remote_code is False
        raise OSError(f"{name} is not a repository\nlong advice")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", unreachable)
    with pytest.raises(RaptrError, match=r"'some/name' cannot be loaded: some/name is not a repository Here, give"):
        load_tokenizer("some/name")


@pytest.mark.slow
def test_forked_workers_are_quiet():
    code = f"import os; from raptr.data import train_tokenizer; train_tokenizer({TEXT!r}, 290)\n"
    code += "child = os.fork()\nif child: os.waitpid(child, 0)"
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "forked" not in done.stderr


def test_the_users_choice_of_threads_is_kept(monkeypatch):
    monkeypatch.setattr("raptr.data.tokens.tokenizer._OURS", {})
    for value in ("true", "0"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", value)
        with parallel_tokenizers():
            assert os.environ["TOKENIZERS_PARALLELISM"] == value
        assert os.environ["TOKENIZERS_PARALLELISM"] == value
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    for _ in range(2):  # the second time, the value found is our own
        with parallel_tokenizers():
            assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_a_word_without_an_end_comes_in_parts_and_other_text_as_it_is():
    ordinary = "words " * 500 + "w" * 1000 + " " * 999 + "\n"
    assert list(sample([ordinary], 10_000)) == [ordinary]
    for endless in ("x" * 2500, " " * 2500, "a " + "x" * 2498):
        parts = list(sample([endless], 10_000))
        assert "".join(parts) == endless
        assert max(map(len, parts)) <= 1002
        assert len(parts) == 3
    assert list(sample(["x" * 1500, "y"], 1200)) == ["x" * 1000, "x" * 200]
