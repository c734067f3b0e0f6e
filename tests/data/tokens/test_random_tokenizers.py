"""A text becomes the same tokens at every preparation, whatever draws at random or keeps state in a tokenizer."""

import json
import random

import pytest
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast, ProphetNetTokenizer

from raptr.config import DataConfig
from raptr.data import load_tokenizer, prepare, train_tokenizer
from raptr.data.tokens.tokenizer import PROBE, encoder, fingerprint, identity
from raptr.data.tokens.train_tokenizer import train_kind
from raptr.errors import RaptrError

TEXT = ["def low(lower):\n    return lowest + new\n", "the newest and the widest, the lowest of the low"] * 40
TRAINED = train_tokenizer(TEXT, 290)


def with_dropout(dropout):
    """The rules of the trained tokenizer with dropout in it."""
    rules = json.loads(TRAINED.backend_tokenizer.to_str())
    return json.dumps({**rules, "model": {**rules["model"], "dropout": dropout}})


def as_file(folder, dropout):
    (folder / "random.json").write_text(with_dropout(dropout))
    return folder / "random.json"


def as_folder(folder, dropout):
    TRAINED.save_pretrained(folder / "random")
    (folder / "random" / "tokenizer.json").write_text(with_dropout(dropout))
    return folder / "random"


@pytest.mark.parametrize("place", [as_file, as_folder])
@pytest.mark.parametrize("dropout", [1e-3, 0.1, 0.5, 0.9, 1.0])
def test_bpe_dropout_is_switched_off_with_a_line(tmp_path, capsys, place, dropout):
    path = place(tmp_path, dropout)
    tokenizer = load_tokenizer(str(path))
    assert f"{str(path)!r}: its dropout is switched off" in capsys.readouterr().err.replace("\n", "")
    assert tokenizer.backend_tokenizer.to_str() == TRAINED.backend_tokenizer.to_str()
    assert {tuple(tokenizer(TEXT[0])["input_ids"]) for _ in range(5)} == {tuple(TRAINED(TEXT[0])["input_ids"])}
    plain = load_tokenizer(str(place(tmp_path, None)))
    assert identity(tokenizer) == identity(plain)
    assert not capsys.readouterr().err


def test_dropout_is_random_before_it_is_switched_off():
    known = Tokenizer.from_str(with_dropout(0.5))
    assert len({tuple(known.encode(TEXT[0]).ids) for _ in range(20)}) > 1


def test_no_dropout_keeps_its_identity(tmp_path, capsys):
    tokenizer = load_tokenizer(str(as_file(tmp_path, 0.0)))
    assert json.loads(identity(tokenizer).split("\n", 2)[2])["model"]["dropout"] == 0.0
    assert not capsys.readouterr().err
    rules = Tokenizer.from_str(TRAINED.backend_tokenizer.to_str())
    rules.encode_special_tokens = True
    assert identity(TRAINED) == f"{type(TRAINED).__name__}\n0\n{rules.to_str()}"


def test_two_preparations_have_the_same_tokens(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(TEXT * 5))
    data = DataConfig(source=str(tmp_path / "text.txt"), tokenizer=str(as_folder(tmp_path, 0.2)), sequence_length=8)
    one, two = (prepare(data, tmp_path / name).stores["data"] for name in ("one", "two"))
    assert one.path.name == two.path.name
    assert (one.train == two.train).all()
    assert one.tokenizer.backend_tokenizer.model.dropout is None
    as_folder(tmp_path, None)
    plain = prepare(data, tmp_path / "one").stores["data"]
    assert plain.made is None  # it is the same store
    assert plain.path == one.path


def test_what_is_set_from_python_has_no_effect_on_an_encoder():
    bpe = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(with_dropout(0.5)))
    assert len({tuple(encoder(bpe)([TEXT[0]])[0]) for _ in range(10)}) == 1
    unigram = train_kind("unigram", TEXT, 32)
    before = encoder(unigram)([TEXT[1]])
    unigram.backend_tokenizer.model.alpha = 0.1
    assert len({tuple(unigram(TEXT[1])["input_ids"]) for _ in range(20)}) > 1  # the negative control
    assert all(encoder(unigram)([TEXT[1]]) == before for _ in range(10))
    assert fingerprint(unigram) == fingerprint(unigram)


class Sampling(ByT5Tokenizer):
    """A tokenizer in Python that samples as those of SentencePiece do."""

    def __init__(self, sp_model_kwargs=None, **options):
        super().__init__(**options)
        self.sp_model_kwargs = sp_model_kwargs

    def _tokenize(self, text):
        tokens = super()._tokenize(text)
        if (self.sp_model_kwargs or {}).get("enable_sampling"):
            random.shuffle(tokens)
        return tokens


def test_sampling_of_sentencepiece_is_switched_off(monkeypatch, capsys):
    given = {"enable_sampling": True, "alpha": 0.1}

    def loaded(name, trust_remote_code, sp_model_kwargs=given):
        return Sampling(sp_model_kwargs=sp_model_kwargs)

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", loaded)
    tokenizer = load_tokenizer("some/name")
    assert tokenizer.sp_model_kwargs == {"enable_sampling": False, "alpha": 0.1}
    assert "'some/name': its sampling is switched off" in capsys.readouterr().err
    assert fingerprint(tokenizer) == fingerprint(ByT5Tokenizer())
    assert identity(tokenizer) != identity(Sampling())  # stores from before are random
    with pytest.raises(RaptrError, match="this tokenizer is random"):
        fingerprint(Sampling(sp_model_kwargs=given))


def test_a_random_tokenizer_makes_no_store(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(TEXT * 5))
    monkeypatch.setattr(ByT5Tokenizer, "_tokenize", lambda self, text: random.choices("abcdef", k=len(text)))
    ByT5Tokenizer().save_pretrained(tmp_path / "random")
    data = DataConfig(source=str(tmp_path / "text.txt"), tokenizer=str(tmp_path / "random"), sequence_length=8)
    with pytest.raises(RaptrError, match="this tokenizer is random"):
        prepare(data, tmp_path / "cache")
    assert not any(path.name[0] != "." for path in (tmp_path / "cache").iterdir())


def test_settings_of_a_tokenizer_in_python_are_part_of_its_identity(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "low", "Low"]))
    upper, lower = (ProphetNetTokenizer(str(path), do_lower_case=value) for value in (False, True))
    assert encoder(upper)(["Low"]) != encoder(lower)(["Low"])
    assert identity(upper) != identity(lower)
    words = repr(sorted(lower.get_vocab().items()))
    assert identity(lower) == f"ProphetNetTokenizer\n{lower.sep_token_id}\n{words}"  # the default keeps its key
    assert identity(ByT5Tokenizer()).count("\n") == 2


@pytest.fixture
def prepared(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(TEXT * 5))
    data = DataConfig(source=str(tmp_path / "text.txt"), tokenizer=270, sequence_length=8)
    return data, prepare(data, tmp_path / "cache").stores["data"].path


def test_a_store_whose_tokenizer_makes_other_tokens_now_is_refused(prepared, tmp_path):
    data, path = prepared
    made = json.loads((path / "description.json").read_text())
    assert made["probe"] == fingerprint(train_tokenizer(TEXT * 5, 270))
    assert made["versions"].keys() == {"tokenizers", "transformers"}
    rules = json.loads((path / "tokenizer" / "tokenizer.json").read_text())
    rules["normalizer"] = {
        "type": "Lowercase"
    }  # as if another version of the library read the same rules in another way
    (path / "tokenizer" / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(RaptrError, match=r"its tokenizer now makes other tokens than with {'tokenizers': .*delete"):
        prepare(data, tmp_path / "cache")
    del made["probe"], made["versions"]  # as stores from before have it
    (path / "description.json").write_text(json.dumps(made))
    assert prepare(data, tmp_path / "cache").stores["data"].made is None


def test_a_tokenizer_that_is_another_one_once_it_is_saved_is_refused(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(TEXT * 5))
    save = PreTrainedTokenizerFast.save_pretrained

    def lossy(self, folder, **options):
        save(self, folder, **options)
        rules = json.loads((folder / "tokenizer.json").read_text())
        rules["model"]["merges"] = rules["model"]["merges"][:-3]
        (folder / "tokenizer.json").write_text(json.dumps(rules))

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", lossy)
    with pytest.raises(RaptrError, match="makes other tokens after it was saved and loaded"):
        prepare(DataConfig(source=str(tmp_path / "text.txt"), tokenizer=270, sequence_length=8), tmp_path / "cache")


KINDS = [{"type": kind} for kind in ("Lowercase", "NFC", "NFD", "NFKC", "StripAccents", "Nmt")]
KINDS += [
    {"type": "Replace", "pattern": {"String": text}, "content": ""} for text in ("\t", "  ", "今", "т", "😀", "1", "'")
]


@pytest.mark.parametrize("normalizer", KINDS, ids=str)
def test_the_probe_sees_what_is_done_to_texts_of_many_kinds(normalizer):
    rules = {**json.loads(TRAINED.backend_tokenizer.to_str()), "normalizer": normalizer}
    changed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(rules)))
    assert fingerprint(changed) != fingerprint(TRAINED)
    assert len(PROBE.encode("utf8")) < 10_000
