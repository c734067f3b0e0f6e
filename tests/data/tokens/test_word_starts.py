"""Where words begin, by each tokenizer's own marks."""

import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from helpers.made_up_text import TEXT, TRAINED
from helpers.real_text import PUBLISHED, needs
from raptr.data import closings, continuations, load_tokenizer, train_tokenizer, unspaced, vocabulary
from raptr.data.tokens.tokenizer import encoder
from raptr.errors import RaptrError

BPE = train_tokenizer(TEXT, 330)


def groups(tokenizer, text):
    """The tokens of each word of a text."""
    [row] = encoder(tokenizer)([text])
    continues, closes, found = continuations(tokenizer), closings(tokenizer), list[list[int]]()
    for token in row:
        if found and continues[token] and not closes[found[-1][-1]]:
            found[-1].append(token)
        else:
            found.append([token])
    return found


def words(tokenizer, text):
    """The text of each word of a text, by its tokens."""
    return [tokenizer.decode(word).strip() for word in groups(tokenizer, text)]


@pytest.mark.parametrize("tokenizer", [BPE, TRAINED["unigram"]], ids=["bpe", "unigram"])
def test_words_are_what_stands_between_white_space(tokenizer):
    text = "bakenlo verdax, solmi tru. Nor4 bakenlo"
    assert words(tokenizer, text) == text.split()
    assert len(encoder(tokenizer)([text])[0]) > len(text.split()), "words have several tokens"


def test_wordpiece_has_punctuation_by_itself():
    assert words(TRAINED["wordpiece"], "bakenlo verdax, solmi") == ["bakenlo", "verdax", ",", "solmi"]


def test_line_breaks_and_tabs_begin_words_too():
    continues = continuations(BPE)
    for character, expected in (("\n", False), ("\t", False), (" ", False), ("b", True), (",", True), ("\0", True)):
        [row] = encoder(BPE)([character])
        assert continues[row[0]] == expected, repr(character)


@pytest.mark.parametrize("tokenizer", [BPE, *TRAINED.values()], ids=["bpe", *TRAINED])
def test_special_tokens_continue_nothing(tokenizer):
    continues = continuations(tokenizer)
    assert continues.shape == (vocabulary(tokenizer),)
    assert continues.dtype == np.bool_
    assert not continues[tokenizer.all_special_ids].any()
    assert 0.1 < continues.mean() < 1


@needs(PUBLISHED)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert-base-uncased-vocab.txt", ["unaffable", ",", "said", "the", "hippopotamus"]),
        ("gpt2-vocab.json", ["unaffable,", "said", "the", "hippopotamus"]),
        ("t5-spiece.model", ["unaffable,", "said", "the", "hippopotamus"]),
    ],
)
def test_published_vocabularies(name, expected):
    assert words(load_tokenizer(str(PUBLISHED / name)), "unaffable, said the hippopotamus") == expected


def test_a_vocabulary_without_marks_is_refused():
    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "low": 1}, unk_token="[UNK]"))
    with pytest.raises(RaptrError, match="does not mark where words begin"):
        continuations(PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]"))
    suffixed = Tokenizer(models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>"))
    with pytest.raises(RaptrError, match="does not mark where words begin"):
        continuations(PreTrainedTokenizerFast(tokenizer_object=suffixed))


MANY = [
    "我们在学习自然语言处理，今天天气很好。",
    "今日は良い天気ですね。カタカナも読めます。",
    "สวัสดีครับ ผมชื่อสมชาย",
    "ສະບາຍດີ ຂ້ອຍ",
    "សួស្តី ពិភពលោក",
    "မင်္ဂလာပါ ကမ္ဘာလောက",
    "བཀྲ་ཤིས་བདེ་ལེགས།",
    "한국어 문장은 띄어 씁니다",
    "नमस्ते दुनिया कैसे हो",
    "Привет мир, как дела",
    "שלום עולם",
    "مرحبا بالعالم",
    "the low lower lowest of the slow love ok",
] * 9
OF_BYTES = train_tokenizer(["x"], 259)
OF_MANY = train_tokenizer(MANY, 500)


@pytest.mark.parametrize("text", MANY[:7])
def test_scripts_without_spaces_have_words_of_one_token(text):
    found = groups(OF_MANY, text)
    [row] = encoder(OF_MANY)([text])
    assert max(map(len, found)) <= 3, "with the bytes of one character, or white space before it"
    assert len(found) > 0.6 * len(row)
    assert unspaced(OF_MANY)[row].mean() > 0.6


@pytest.mark.parametrize(
    "text", [*MANY[7:13], "don't stop!", "\tdef f(x):", "naïve café ½ Straße", "a😀b c", "e\u0301a b"]
)
@pytest.mark.parametrize("tokenizer", [OF_MANY, OF_BYTES], ids=["bpe", "bytes"])
def test_scripts_with_spaces_keep_their_words(tokenizer, text):
    assert words(tokenizer, text) == text.split()
    assert not unspaced(tokenizer)[encoder(tokenizer)([text])[0]].any()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我们 hello", ["我", "们", "hello"]),
        ("日本のカナ", ["日", "本", "の", "カ", "ナ"]),
        ("好，ok。", ["好，ok", "。"]),  # the first byte of the comma does not tell its script
        ("สวัสดี", ["สวัสดี"]),  # nor that of Thai: the word is too long then, and taken apart
        ("한국 어", ["한국", "어"]),
    ],
)
def test_the_bytes_of_a_character_stay_together(text, expected):
    assert words(OF_BYTES, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我love你，ok。好", ["我", "love", "你", "，", "ok", "。", "好"]),
        ("日本のlow", ["日", "本", "の", "low"]),
        ("low日low", ["low", "日", "low"]),
        ("ａＢ１", ["ａ", "Ｂ", "１"]),
    ],
)
@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "fallback"])
def test_words_of_two_scripts_are_told_apart(kind, text, expected):
    characters = sorted({*"".join(expected)} | {*"love"})
    if kind == "wordpiece":
        vocabulary_ = {
            token: i for i, token in enumerate(["[UNK]", "[SEP]", *characters, *(f"##{c}" for c in characters)])
        }
        made = Tokenizer(models.WordPiece(vocabulary_, unk_token="[UNK]"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", sep_token="[SEP]")
    elif kind == "unigram":
        pieces = [("<unk>", 0.0), *((c, -2.0) for c in (*characters, "▁"))]
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.Unigram(pieces, 0, False)), unk_token="<unk>"
        )
    else:
        names = ["<unk>", "▁", *(f"<0x{byte:02X}>" for byte in range(256))]
        made = Tokenizer(
            models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True)
        )
        made.decoder = decoders.ByteFallback()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
        expected = {"我love你，ok。好": ["我love", "你，ok", "。", "好"], "日本のlow": ["日", "本", "のlow"]}.get(
            text, expected
        )
        expected = {"low日low": ["low", "日low"], "ａＢ１": ["ａＢ１"]}.get(text, expected)
    found = groups(tokenizer, text)
    if kind == "fallback":
        assert [tokenizer.decode(word) for word in found] == expected
    else:
        names = [
            [token.removeprefix("##").strip("▁") for token in tokenizer.convert_ids_to_tokens(word)] for word in found
        ]
        assert ["".join(name) for name in names] == expected


def test_every_token_of_the_vocabulary_is_looked_at():
    """Against the characters themselves, for tokens that are whole characters."""
    for tokenizer in (OF_MANY, TRAINED["wordpiece"], TRAINED["unigram"]):
        closes = closings(tokenizer)
        for token, i in tokenizer.get_vocab().items():
            text = tokenizer.decode([i]).strip("#")
            if token not in tokenizer.all_special_tokens and text and "\ufffd" not in text:
                name = unicodedata.name(text[-1], "")
                unspaced = name.startswith(
                    ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
                )
                known = unspaced or name.startswith(("IDEOGRAPHIC", "FULLWIDTH"))
                assert closes[i] == known, (token, name)


@needs(PUBLISHED)
@pytest.mark.parametrize("name", ["bert-base-uncased-vocab.txt", "gpt2-vocab.json", "t5-spiece.model"])
def test_english_of_published_vocabularies_closes_nothing(name):
    tokenizer = load_tokenizer(str(PUBLISHED / name))
    [row] = encoder(tokenizer)(["unaffable, said the hippopotamus; don't (ever) 3.14 — naïve!"])
    assert not closings(tokenizer)[row].any()
