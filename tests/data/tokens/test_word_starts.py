"""Where words begin, by each tokenizer's own marks."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from helpers.made_up_text import TEXT, TRAINED
from helpers.real_text import PUBLISHED, needs
from raptr.data import continuations, load_tokenizer, train_tokenizer, vocabulary
from raptr.data.tokens.tokenizer import encoder
from raptr.errors import RaptrError

BPE = train_tokenizer(TEXT, 330)


def words(tokenizer, text):
    """The text of each word of a text, by its tokens."""
    [row] = encoder(tokenizer)([text])
    continues, found = continuations(tokenizer), list[list[int]]()
    for token in row:
        if found and continues[token]:
            found[-1].append(token)
        else:
            found.append([token])
    return [tokenizer.decode(word).strip() for word in found]


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
