"""Tokenizers: a byte-level BPE trained on the text itself, or one that exists.

The same text becomes the same tokens at every preparation, on every rank and after every resume. What draws at random
inside a tokenizer (BPE dropout, arXiv 1910.13267; sampling in SentencePiece, arXiv 1804.10959) is switched off, and a
tokenizer that is random in another way is refused.
"""

import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from raptr.data.atomic_folder import at_home
from raptr.data.progress import progress
from raptr.data.tokens.published import EXPECTED, load_vocabulary
from raptr.data.tokens.split_text import in_words, pieces
from raptr.errors import RaptrError
from raptr.messages import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END, PAD, MASK = SPECIALS = ("<|endoftext|>", "<|pad|>", "<|mask|>")
SMALLEST = 256 + len(SPECIALS)
SAMPLE_BYTES = 20_000_000


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer that is made when it is needed.

    Args:
        name: as it is described.
        identity: all that decides which tokens a text becomes, as one string.
        make: loads or trains it.
        begin: the token before each document, if there is one.
    """

    name: str
    identity: str
    make: "Callable[[], PreTrainedTokenizerBase]"
    begin: int | None = None


_ROLES = {
    "eos_token": ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>"),
    "sep_token": ("[SEP]",),
    "mask_token": ("<|mask|>", "[MASK]", "<mask>"),
    "pad_token": ("<|pad|>", "[PAD]", "<pad>"),
}
"""What the special tokens of a bare tokenizer.json, which does not say so, are taken for."""


def train_tokenizer(
    documents: Iterable[str], vocab_size: int, *, sample_bytes: int = SAMPLE_BYTES
) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE on the first ``sample_bytes`` of the documents.

    The vocabulary is ``<|endoftext|>`` (end and beginning), ``<|pad|>``, ``<|mask|>``, the 256 bytes, and
    merges of pairs that occur at least twice. Every text is encoded without loss. The same documents
    give the same tokenizer.

    Args:
        documents: the text; read from the start until there is enough.
        vocab_size: how many entries, at least 259.
        sample_bytes: how much of the text, in bytes of UTF-8.

    Returns:
        A Hugging Face tokenizer with ``vocab_size`` entries.

    Raises:
        RaptrError: ``vocab_size`` is too small, or larger than the text has entries for.

    Example:
        >>> tokenizer = train_tokenizer(["low lower lowest"] * 9, 262)
        >>> tokenizer.decode(tokenizer("lowest")["input_ids"])
        'lowest'

    Source:
        Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", arXiv 1508.07909;
        on bytes: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST:
        raise RaptrError(
            f"a vocabulary of {vocab_size} entries was asked for; a byte-level BPE needs at least {SMALLEST} (256 "
            f"bytes and {', '.join(SPECIALS)})."
        )
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with progress("Training the tokenizer", sample_bytes) as advance, parallel_tokenizers():
        bpe.train_from_iterator(sample(documents, sample_bytes, advance), trainer)
    if bpe.get_vocab_size() != vocab_size:
        raise RaptrError(
            f"a vocabulary of {vocab_size} entries was asked for, but the text has only enough repetition for "
            f"{bpe.get_vocab_size()}; give more text or ask for at most that many."
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        bos_token=END,
        pad_token=PAD,
        mask_token=MASK,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(spec: str) -> "PreTrainedTokenizerBase":
    """Load a tokenizer from a folder, a tokenizer.json, a published vocabulary, or by its name on the Hugging Face Hub.

    A bare tokenizer.json does not say what its special tokens are for: the usual names are looked for
    (``</s>``, ``<|endoftext|>``, ``[SEP]``, ``[MASK]``, ``[PAD]`` and the like). Of vocabularies, see
    `raptr.data.tokens.published.load_vocabulary`. Code from the Hub is never
    run. Dropout and sampling are switched off, with a line on stderr.

    Args:
        spec: the path of a folder, a tokenizer.json or a vocabulary, or a name like "bert-base-uncased".

    Returns:
        A Hugging Face tokenizer with an end-of-sequence token or a separator.

    Raises:
        RaptrError: there is no such tokenizer, it cannot be loaded, or it has neither token.
    """
    from transformers import AutoTokenizer

    path = at_home(spec)
    if not path.exists() and (path.is_absolute() or spec.startswith((".", "~"))):
        raise RaptrError(f"tokenizer {spec!r}: there is no such file or folder; {_EXPECTED}.")
    try:
        if path.is_file():
            tokenizer = _from_file(path)
        else:
            load = partial(AutoTokenizer.from_pretrained, str(path) if path.is_dir() else spec, trust_remote_code=False)
            tokenizer = load()
            options = getattr(tokenizer, "sp_model_kwargs", None) or {}
            if options.get("enable_sampling"):
                tokenizer = load(sp_model_kwargs={**options, "enable_sampling": False})
                _say_settled(spec, "sampling")
    except RaptrError:
        raise
    except Exception as error:  # whatever transformers, the Hub's client or a broken file raise
        raise RaptrError(f"tokenizer {spec!r} cannot be loaded: {first_line(error)} Here, {_EXPECTED}.") from error
    separator(tokenizer, spec)
    if tokenizer.is_fast and _without_dropout(tokenizer.backend_tokenizer):
        _say_settled(spec, "dropout")
    return tokenizer


def _without_dropout(tokenizer: Any) -> bool:
    """Switch BPE dropout off, and return whether it was on."""
    on = bool(getattr(tokenizer.model, "dropout", None))
    if on:
        tokenizer.model.dropout = None
    return on


def _say_settled(spec: str, what: str) -> None:
    text = f"tokenizer {spec!r}: its {what} is switched off, so that a text always becomes the same tokens."
    Console(stderr=True).print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


_EXPECTED = "give the path of a tokenizer's folder, tokenizer.json or vocabulary, or its name on the Hugging Face Hub"


def _from_file(path: Path) -> "PreTrainedTokenizerBase":
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    published = load_vocabulary(path)
    if published is not None:
        return published
    if path.suffix != ".json":
        raise RaptrError(
            f"tokenizer {str(path)!r} is a file that is not a tokenizer.json; {_EXPECTED}. A vocabulary is {EXPECTED}."
        )
    tokenizer = Tokenizer.from_file(str(path))
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    found = {role: [name for name in names if name in special] for role, names in _ROLES.items()}
    roles = {role: names[0] for role, names in found.items() if names}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **roles)


def separator(tokenizer: "PreTrainedTokenizerBase", name: str = "this tokenizer") -> int:
    """The id that ends a document: the end-of-sequence token's, else the separator's."""
    for token in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token is not None:
            return int(token)
    raise RaptrError(
        f"tokenizer {name!r} has neither an end-of-sequence token nor a separator, so documents cannot be told "
        f"apart; set its eos_token. Its special tokens: {', '.join(tokenizer.all_special_tokens) or 'none'}."
    )


def begin_of(tokenizer: "PreTrainedTokenizerBase", bos: bool | Literal["auto"], *, continued: bool) -> int | None:
    """Return the token that is put before each document; None for none.

    Args:
        tokenizer: the tokenizer of the text.
        bos: whether there is to be one; ``auto``: where weights are continued and the tokenizer's own encoding of a
            text begins with it, as Gemma's and Llama 3's, whose documents began with it in pretraining, too.
        continued: whether weights are continued.

    Raises:
        RaptrError: there is to be one, and the tokenizer has none beside the token that separates documents.
    """
    begin = tokenizer.bos_token_id
    if begin is None or begin == separator(tokenizer):  # the separator stands between documents already
        if bos is True:
            raise RaptrError(
                "data.bos is true, but the tokenizer has no bos token beside the one that separates documents; leave "
                "data.bos out, or give a tokenizer with one."
            )
        return None
    own = tokenizer("a text").input_ids[:1] == [begin]
    return int(begin) if bos is True or (bos == "auto" and continued and own) else None


def vocabulary(tokenizer: "PreTrainedTokenizerBase") -> int:
    """How many rows a model's embedding needs: one more than the largest id."""
    return int(max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1))


Encode = Callable[[list[str]], list[list[int]]]


def encoder(tokenizer: "PreTrainedTokenizerBase") -> Encode:
    """A function from texts to their tokens: nothing is added, cut, padded, or read as a special token.

    A text that says "<|endoftext|>" is encoded as these characters: a document cannot end, or mask,
    anything by what stands in it. The function can be pickled.
    """
    return _Fast(_copy(tokenizer)) if tokenizer.is_fast else partial(_slow, tokenizer)


def _slow(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    return [tokenizer(text, **options)["input_ids"] for text in texts]


class _Fast:
    """An encoder that another process can make from its rules alone, without transformers."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _fast, (self._plain.to_str(),)


def _fast(rules: str) -> _Fast:
    return _Fast(_plain(rules))


PROBE = (
    "The quick brown fox jumps over the lazy dog, naïvely; don't stop at 12,345.67 %! (İstanbul, \ufb01ne ½ Straße)\n"
    "\tdef f(x):\n        return x_1  # тест Ελληνικά 今日は良い天気 我们在学习 สวัสดีครับ नमस्ते שלום العربية 한국어 "
    "😀\u200d🚀 e\u0301 "
) * 20
"""Text whose tokens tell whether a tokenizer still does what it did: letters, marks and spaces of many kinds."""


def fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a hash of the tokens of `PROBE`.

    Raises:
        RaptrError: the same text becomes other tokens each time.
    """
    encode = encoder(tokenizer)
    found = [encode([PROBE])[0] for _ in range(2)]
    if found[0] != found[1]:
        raise RaptrError(
            "this tokenizer is random: it makes other tokens of the same text each time. Switch its sampling off, or "
            "use another one."
        )
    return hashlib.blake2b(repr(found[0]).encode("utf8"), digest_size=12).hexdigest()


def identity(tokenizer: "PreTrainedTokenizerBase") -> str:
    """All that decides which tokens a text becomes, as one string."""
    if tokenizer.is_fast:
        rules = _copy(tokenizer).to_str()
    else:
        options = _options(tokenizer)
        rules = repr(sorted(tokenizer.get_vocab().items())) + (f"\n{options}" if options else "")
    return f"{type(tokenizer).__name__}\n{separator(tokenizer)}\n{rules}"


def _options(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """Settings of a tokenizer written in Python that are not its class's defaults, such as lower case."""
    defaults = inspect.signature(type(tokenizer).__init__).parameters
    given = {key: value for key, value in sorted(tokenizer.init_kwargs.items()) if key in defaults}
    changed = {key: value for key, value in given.items() if isinstance(value, bool) and value != defaults[key].default}
    sampling = getattr(tokenizer, "sp_model_kwargs", None)
    return changed | ({"sp_model_kwargs": sampling} if sampling else {})


def _copy(tokenizer: "PreTrainedTokenizerBase") -> Any:
    return _plain(tokenizer.backend_tokenizer.to_str())


def _plain(rules: str) -> Any:
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(rules)
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    _without_dropout(plain)
    return plain


@contextmanager
def parallel_tokenizers() -> Iterator[None]:
    """Let the tokenizers library use its threads here, and not in processes forked later.

    Older versions of it print a warning at every fork (a DataLoader's workers) after threads were used,
    unless TOKENIZERS_PARALLELISM is set, and threads do not survive a fork in any version. A value the
    user has set is left alone.
    """
    if os.environ.get("TOKENIZERS_PARALLELISM", _OURS.get("set")) != _OURS.get("set"):
        yield
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = _OURS["set"] = "false"


_OURS: dict[str, str] = {}


def sample(documents: Iterable[str], limit: int, advance: Callable[[int], None] = lambda size: None) -> Iterator[str]:
    """The first ``limit`` bytes of the documents, as texts that a trainer has memory and time for."""
    for document in documents:
        content = document.encode("utf8")[:limit]
        for piece, _ in pieces(content.decode("utf8", errors="ignore")):
            yield from in_words(piece)
        advance(len(content))
        limit -= len(content)
        if not limit:
            return
