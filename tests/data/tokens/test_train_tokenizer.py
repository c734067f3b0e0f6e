"""WordPiece and Unigram: trained the same every time, to the size asked for, with what their models need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.made_up_text import SIZES, TEXT, TRAINED, sentences
from raptr.config import DataConfig
from raptr.data import load_tokenizer, prepare, vocabulary
from raptr.data.tokens.tokenizer import encoder, separator
from raptr.data.tokens.train_tokenizer import OF_UNIGRAM, OF_WORDPIECE, train_kind, train_unigram, train_wordpiece
from raptr.errors import RaptrError


@pytest.mark.parametrize("kind", SIZES)
def test_the_vocabulary_is_as_asked_with_the_special_tokens_first(kind):
    tokenizer = TRAINED[kind]
    assert vocabulary(tokenizer) == len(tokenizer) == SIZES[kind]
    special = OF_WORDPIECE if kind == "wordpiece" else OF_UNIGRAM
    assert tokenizer.convert_ids_to_tokens(list(range(len(special)))) == list(special)
    assert set(tokenizer.all_special_tokens) == set(special), "and nothing else is special"
    assert {tokenizer.mask_token, tokenizer.pad_token, tokenizer.unk_token} < set(special)
    assert separator(tokenizer) == tokenizer.convert_tokens_to_ids("[SEP]" if kind == "wordpiece" else "</s>")
    rows = encoder(tokenizer)(TEXT[:50])
    assert sum(map(len, rows)) < 0.5 * sum(map(len, TEXT[:50])), "pieces were learned"
    assert not {i for row in rows for i in row} & set(range(len(special))), "of its own text it knows everything"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SIZES)
def test_training_is_the_same_in_every_process(kind):
    """The library's own is not: it numbers what it finds in the order of a hash table that each process seeds anew."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from helpers.made_up_text import TRAINED; "
    code += "print(TRAINED[sys.argv[2]].backend_tokenizer.to_str())"
    tests = str(Path(__file__).parents[2])
    for threads in ("true", "false"):
        env = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path)), "TOKENIZERS_PARALLELISM": threads}
        done = subprocess.run([sys.executable, "-c", code, tests, kind], capture_output=True, text=True, env=env)
        assert done.stdout.strip() == TRAINED[kind].backend_tokenizer.to_str(), done.stderr
    other = train_kind(kind, sentences(seed=1), SIZES[kind])  # control
    assert other.backend_tokenizer.to_str() != TRAINED[kind].backend_tokenizer.to_str()


def test_wordpiece_marks_what_continues_a_word():
    tokenizer = TRAINED["wordpiece"]
    tokens = tokenizer.tokenize("bakenlo, bakenlo")
    comma = tokens.index(",")
    for word in (tokens[:comma], tokens[comma + 1 :]):
        assert not word[0].startswith("##")
        assert all(token.startswith("##") for token in word[1:])
        assert word[0] + "".join(token[2:] for token in word[1:]) == "bakenlo"
    assert tokenizer.decode(encoder(tokenizer)(["so lo"])[0]) == "so lo"


def test_unigram_marks_what_begins_a_word_and_comes_back():
    tokenizer = TRAINED["unigram"]
    text = "bakenlo, and so on."
    [row] = encoder(tokenizer)([text])
    assert tokenizer.convert_ids_to_tokens(row[0]).startswith("▁")
    assert tokenizer.decode(row) == text
    assert encoder(tokenizer)(["bakenlo, \t and\nso  on."]) == [row], "runs of white space are one"
    scores = [score for _, score in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]]
    assert scores[len(OF_UNIGRAM) :] == sorted(scores[len(OF_UNIGRAM) :], reverse=True)


@pytest.mark.parametrize("kind", SIZES)
def test_what_is_not_known_is_one_unknown_token(kind):
    tokenizer = TRAINED[kind]
    [row] = encoder(tokenizer)(["so 漢 on"])
    assert row.count(tokenizer.unk_token_id) == 1
    assert tokenizer.unk_token_id in tokenizer.all_special_ids, "never masked, never predicted"
    [row] = encoder(tokenizer)([" ".join(tokenizer.all_special_tokens)])
    assert not set(row) & {tokenizer.mask_token_id, tokenizer.pad_token_id, separator(tokenizer)}, "text forges nothing"
    assert encoder(tokenizer)([""]) == [[]]


@pytest.mark.parametrize("kind", SIZES)
def test_lower_case_is_an_option(kind):
    lower = train_kind(kind, TEXT, 120, lowercase=True)
    assert encoder(lower)(["NORÉ so"]) == encoder(lower)(["nore so"])
    assert encoder(TRAINED[kind])(["NOR so"]) != encoder(TRAINED[kind])(["nor so"])  # control
    assert not any(token != token.lower() for token in lower.get_vocab() if token not in lower.all_special_tokens)
    with pytest.raises(RaptrError, match="loses nothing of a text"):
        train_kind("bpe", TEXT, 300, lowercase=True)


@pytest.mark.parametrize("kind", SIZES)
def test_it_is_loaded_as_it_was_saved(kind, tmp_path):
    TRAINED[kind].save_pretrained(tmp_path)
    for spec in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(str(spec))
        assert encoder(loaded)(TEXT[:20]) == encoder(TRAINED[kind])(TEXT[:20])
        assert (loaded.mask_token_id, separator(loaded)) == (TRAINED[kind].mask_token_id, separator(TRAINED[kind]))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(RaptrError, match="WordPiece vocabulary needs at least 9"):
        train_wordpiece(TEXT, 8)
    with pytest.raises(RaptrError, match=r"only enough repetition for \d+; give more text"):
        train_wordpiece(TEXT, 5000)
    with pytest.raises(RaptrError, match=r"only enough repetition for \d+; give more text"):
        train_unigram(TEXT[:20], 5000)
    with pytest.raises(RaptrError, match=r"ask for more entries|ask for at least as many"):
        train_unigram(TEXT, 8)
    for train in (train_wordpiece, train_unigram):
        with pytest.raises(RaptrError, match=r"no text|repetition"):
            train(["", " \n"], 100)


def test_only_the_sample_is_read():
    def documents():
        for text in TEXT:
            read.append(text)
            yield text

    read: list[str] = []
    train_wordpiece(documents(), 100, sample_bytes=sum(len(text.encode()) for text in TEXT[:100]))
    assert len(read) == 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_config_names_the_kind(kind, tmp_path, write_jsonl):
    source = write_jsonl(tmp_path / "text.jsonl", [{"text": text} for text in sentences(600)])
    made = {}
    for lowercase in (False, kind != "bpe"):
        data = DataConfig(
            source=str(source),
            tokenizer=300 if kind == "bpe" else 110,
            tokenizer_kind=kind,
            tokenizer_lowercase=lowercase,
        )
        made[lowercase] = prepare(data, tmp_path / "cache")
    name = {"bpe": "byte-level BPE of 300", "wordpiece": "WordPiece of 110", "unigram": "Unigram of 110"}[kind]
    assert made[False].description["tokenizer"] == f"{name} entries, trained on this text"
    assert made[False].tokenizer.mask_token is not None
    again = prepare(DataConfig(source=str(source), tokenizer=300), tmp_path / "cache")
    assert (again.description["key"] == made[False].description["key"]) == (kind == "bpe"), "each has its own store"
    if kind != "bpe":
        assert made[True].description["key"] != made[False].description["key"]
        assert made[True].description["tokenizer"].startswith(name.replace(" of", " in lower case of"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokenizer": "some/name", "tokenizer_kind": "wordpiece"}, "'some/name', one that exists"),
        ({"tokenizer": "some/name", "tokenizer_lowercase": True}, "'some/name', one that exists"),
        ({"tokenizer_lowercase": True}, "keeps a text as it is"),
        ({"tokenizer_kind": "word"}, "'bpe', 'wordpiece' or 'unigram'"),
    ],
)
def test_settings_without_effect_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**given)
