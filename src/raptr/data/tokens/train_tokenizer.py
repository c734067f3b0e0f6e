"""The kinds of tokenizers that are trained on the text itself, besides byte-level BPE: WordPiece and Unigram.

All three are trained by the tokenizers library. Of these two, its results depend on the order in which a hash
table gives the words, which differs from process to process; how each is made the same every time is said where
it is done.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from raptr.data.progress import progress
from raptr.data.tokens.tokenizer import SAMPLE_BYTES, parallel_tokenizers, sample, train_tokenizer
from raptr.errors import RaptrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Kind = Literal["bpe", "wordpiece", "unigram"]

NAMES: dict[Kind, str] = {"bpe": "byte-level BPE", "wordpiece": "WordPiece", "unigram": "Unigram"}

OF_WORDPIECE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OF_UNIGRAM = ("<pad>", "</s>", "<unk>", "<mask>")

_MOST_CHARACTERS = 1000  # as in BERT's own vocabulary
_DIGITS = 6  # of a piece's score, a natural logarithm
_STEP = 0.0001  # between the scores of characters that the library adds


def train_kind(
    kind: Kind, documents: Iterable[str], size: int, *, lowercase: bool = False, sample_bytes: int = SAMPLE_BYTES
) -> "PreTrainedTokenizerFast":
    """Train a tokenizer on the first ``sample_bytes`` of the documents; the same documents give the same one.

    Args:
        kind: "bpe" (`train_tokenizer`), "wordpiece" (`train_wordpiece`) or "unigram" (`train_unigram`).
        documents: the text; read from the start until there is enough.
        size: how many entries.
        lowercase: whether text is put into lower case without accents first; not for byte-level BPE.
        sample_bytes: how much of the text, in bytes of UTF-8.

    Raises:
        RaptrError: ``size`` is too small, or larger than the text has entries for.
    """
    if kind == "bpe":
        if lowercase:
            raise RaptrError("a byte-level BPE loses nothing of a text, its case neither; leave lowercase out.")
        return train_tokenizer(documents, size, sample_bytes=sample_bytes)
    train = train_wordpiece if kind == "wordpiece" else train_unigram
    return train(documents, size, lowercase=lowercase, sample_bytes=sample_bytes)


def train_wordpiece(
    documents: Iterable[str], size: int, *, lowercase: bool = False, sample_bytes: int = SAMPLE_BYTES
) -> "PreTrainedTokenizerFast":
    """Train a WordPiece vocabulary, as BERT has it.

    Text is cut at white space and punctuation; a token that continues a word begins with ``##``. The vocabulary is
    ``[PAD] [UNK] [CLS] [SEP] [MASK]``, the characters, each as it begins and as it continues a word, and merges of
    pairs that occur at least twice. Characters are the most frequent ones, at most 1000, and so few that they fill
    at most half of the vocabulary; a word with another character, or of more than 100, becomes ``[UNK]``, which is
    never masked nor predicted. White space is not kept.

    The library numbers ``##`` characters in the order in which it meets them; so they are counted
    here first, and given to it in a fixed order.

    Example:
        >>> tokenizer = train_wordpiece(["banana bandana ban an band abandon"] * 9, 27)
        >>> tokenizer.tokenize("bandanna, band")
        ['band', '##an', '##n', '##a', '[UNK]', 'band']

    Source:
        Schuster and Nakajima, "Japanese and Korean Voice Search" (2012); as trained by the tokenizers library, whose
        merges are those of BPE, with the most frequent pair first.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    texts, normalizer = list(sample(documents, sample_bytes)), normalizers.BertNormalizer(lowercase=lowercase)
    characters = _characters(map(normalizer.normalize_str, texts), (size - len(OF_WORDPIECE)) // 4)
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    first = [*OF_WORDPIECE, *characters, *(f"##{character}" for character in characters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=first,
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    _train(pieces, texts, trainer)
    found = pieces.get_vocab()
    _check_size("WordPiece", size, len(found), least=len(OF_WORDPIECE) + 4)

    made = Tokenizer(models.WordPiece(found, unk_token="[UNK]"))  # its characters are ordinary tokens here
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    pad, unknown, begin, separator, mask = OF_WORDPIECE
    return _wrapped(made, pad_token=pad, unk_token=unknown, cls_token=begin, sep_token=separator, mask_token=mask)


def train_unigram(
    documents: Iterable[str], size: int, *, lowercase: bool = False, sample_bytes: int = SAMPLE_BYTES
) -> "PreTrainedTokenizerFast":
    """Train a Unigram language model of pieces, as T5 and ALBERT have it.

    Text is put into the form NFKC and cut at white space, which a piece that begins a word keeps as ``▁``; runs of
    it are one. ``<`` always stands by itself, so that no text spells a special token. The vocabulary is
    ``<pad> </s> <unk> <mask>`` and the pieces, the most probable first. A character that is not among them becomes
    ``<unk>``, which is never masked nor predicted.

    The library adds up probabilities in an order that differs from process to process, so that the last digits of
    scores do; they are rounded to 6 digits, and pieces sorted by score, then by name. Characters that are no piece it
    adds at the end, in such an order too, each 0.0001 below the one before; they get these scores in their own order.

    Example:
        >>> tokenizer = train_unigram(["the low lower lowest of slow slower slowest"] * 9, 19)
        >>> tokenizer.tokenize("slow  lowest")
        ['▁slow', '▁lowe', 's', 't']

    Source:
        Kudo, "Subword Regularization", arXiv 1804.10959.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    folding = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()] if lowercase else []
    normalizer = normalizers.Sequence([*folding, normalizers.NFKC()])
    cut = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(), pre_tokenizers.Split("<", "isolated")]
    )
    pieces = Tokenizer(models.Unigram())
    pieces.normalizer, pieces.pre_tokenizer = normalizer, cut
    pad, end, unknown, mask = OF_UNIGRAM
    texts = list(sample(documents, sample_bytes))
    if not any(text.strip() for text in texts):
        raise RaptrError("there is no text to train a Unigram tokenizer on.")
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=list(OF_UNIGRAM), unk_token=unknown, show_progress=False
    )
    try:
        _train(pieces, texts, trainer)
    except Exception as error:  # the library's errors have no class of their own
        raise RaptrError(
            f"a Unigram vocabulary of {size} entries cannot be trained on this text: {error}; ask for more entries."
        ) from error
    vocabulary = json.loads(pieces.to_str())["model"]["vocab"]
    scores = [(piece, score) for piece, score in vocabulary if piece not in OF_UNIGRAM]
    _check_size("Unigram", size, len(scores) + len(OF_UNIGRAM), least=len(OF_UNIGRAM) + 1)
    ranked = _ranked(scores)
    special = [(token, 0.0) for token in OF_UNIGRAM]
    made = Tokenizer(models.Unigram([*special, *ranked], OF_UNIGRAM.index(unknown), byte_fallback=False))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, cut, decoders.Metaspace()
    return _wrapped(made, pad_token=pad, eos_token=end, unk_token=unknown, mask_token=mask)


def _ranked(scores: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces and their rounded scores, the highest first, whatever the order in which the library had them."""
    ranked = sorted(((piece, round(score, _DIGITS)) for piece, score in scores), key=lambda both: (-both[1], both[0]))
    start = len(ranked) - 1  # of the characters at the end that are a step apart, or none
    while start > 0 and len(ranked[start - 1][0]) == 1 and ranked[start - 1][1] - ranked[start][1] < 1.1 * _STEP:
        start -= 1
    names = sorted(piece for piece, _ in ranked[start:])
    return ranked[:start] + [(name, score) for name, (_, score) in zip(names, ranked[start:], strict=True)]


def _characters(texts: Iterable[str], most: int) -> list[str]:
    """The most frequent characters, in the order of their numbers."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    for character in [c for c in counts if c.isspace()]:
        del counts[character]
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted(ranked[: max(0, min(most, _MOST_CHARACTERS))])


def _train(tokenizer: Any, texts: list[str], trainer: Any) -> None:
    with progress("Training the tokenizer", len(texts)) as advance, parallel_tokenizers():

        def counted() -> Iterable[str]:
            for text in texts:
                yield text
                advance(1)

        tokenizer.train_from_iterator(counted(), trainer)


def _check_size(kind: str, asked: int, made: int, least: int) -> None:
    if asked < least:
        raise RaptrError(f"a vocabulary of {asked} entries was asked for; a {kind} vocabulary needs at least {least}.")
    if made < asked:
        raise RaptrError(
            f"a vocabulary of {asked} entries was asked for, but the text has only enough repetition for {made}; give "
            "more text or ask for at most that many."
        )
    if made > asked:
        raise RaptrError(
            f"a vocabulary of {asked} entries was asked for, but the text has so many different characters that a "
            f"{kind} vocabulary of it has {made}; ask for at least as many."
        )


def _wrapped(tokenizer: Any, **roles: str) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **roles)
