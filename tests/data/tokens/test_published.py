"""Published vocabularies: text becomes the same tokens as where they come from; broken ones are refused."""

import json

import pytest

from helpers.real_text import PUBLISHED, needs
from raptr.data import load_tokenizer, vocabulary
from raptr.data.tokens.special import with_mask
from raptr.data.tokens.tokenizer import encoder, separator
from raptr.errors import RaptrError

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "so", "low", "##er", "##est", ",", "e"]
published = needs(PUBLISHED)


@pytest.mark.slow
@published
@pytest.mark.parametrize(
    ("name", "size", "text", "ids"),
    [  # the ids that the published tokenizers give
        ("bert-base-uncased-vocab.txt", 30522, "Hello World, don't", [7592, 2088, 1010, 2123, 1005, 1056]),
        ("gpt2-vocab.json", 50257, "Hello world, don't", [15496, 995, 11, 836, 470]),
        ("t5-spiece.model", 32100, "Hello world, don't", [8774, 296, 6, 278, 31, 17]),
    ],
)
def test_text_becomes_the_published_tokens(name, size, text, ids, tmp_path):
    tokenizer = load_tokenizer(str(PUBLISHED / name))
    assert vocabulary(tokenizer) == size
    assert encoder(tokenizer)([text]) == [ids]
    tokenizer.save_pretrained(tmp_path)
    assert encoder(load_tokenizer(str(tmp_path)))([text]) == [ids], "and it is loaded as it is saved"


@published
def test_sentinels_are_numbered_from_the_end():
    tokenizer = load_tokenizer(str(PUBLISHED / "t5-spiece.model"))
    assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [32099, 32000]


@pytest.mark.parametrize("cased", [False, True])
def test_a_wordpiece_file_is_in_lower_case_unless_an_entry_is_not(cased, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*TOKENS, *(["So"] if cased else [])]) + "\n")
    tokenizer = load_tokenizer(str(tmp_path / "vocab.txt"))
    assert tokenizer.convert_ids_to_tokens(encoder(tokenizer)(["lowest, lower"])[0]) == [
        "low",
        "##est",
        ",",
        "low",
        "##er",
    ]
    assert tokenizer.convert_ids_to_tokens(encoder(tokenizer)(["So é"])[0]) == (
        ["So", "[UNK]"] if cased else ["so", "e"]
    )
    assert separator(tokenizer) == 3
    assert tokenizer.mask_token_id == 4


def test_a_vocabulary_finds_its_merges(tmp_path):
    (tmp_path / "my-vocab.json").write_text(json.dumps({"l": 0, "o": 1, "lo": 2, "<|endoftext|>": 3}))
    with pytest.raises(RaptrError, match="whose merges are missing"):
        load_tokenizer(str(tmp_path / "my-vocab.json"))
    (tmp_path / "my-merges.txt").write_text("#version: 0.2\nl o\n")
    tokenizer = load_tokenizer(str(tmp_path / "my-vocab.json"))
    assert encoder(tokenizer)(["lol"]) == [[2, 0]]
    assert separator(tokenizer) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", b"so\nlow\n", "is not a WordPiece vocabulary: among its 2 lines"),
        ("vocab.txt", b"\xff\xfe", "cannot be loaded"),
        ("spiece.model", b"not a model", "is not a model of SentencePiece|does not begin|begins with"),
        ("vocab.bin", b"", "A vocabulary is a vocab.txt"),
        ("vocab.json", b'{"a": 0}', "whose merges are missing"),
    ],
)
def test_what_is_no_vocabulary_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RaptrError, match=message):
        load_tokenizer(str(tmp_path / name))


def test_a_mask_token_is_added_where_there_is_none(tmp_path):
    (tmp_path / "my-vocab.json").write_text(json.dumps({"l": 0, "o": 1, "lo": 2, "<|endoftext|>": 3}))
    (tmp_path / "my-merges.txt").write_text("#version: 0.2\nl o\n")
    plain = load_tokenizer(str(tmp_path / "my-vocab.json"))
    masked, added = with_mask(plain)
    assert added == ("<|mask|>",)
    assert (masked.mask_token_id, vocabulary(masked)) == (4, 5)
    assert plain.mask_token is None
    assert vocabulary(plain) == 4
    text = ["lol<|mask|>o"]
    assert encoder(masked)(text) == encoder(plain)(text), "no text becomes other tokens by it"
    assert 4 in masked.all_special_ids
    assert with_mask(masked) == (masked, ())
    masked.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(str(tmp_path / "saved")).mask_token_id == 4
