"""Vocabularies as their models were published with them, in files of their own: BERT's, GPT-2's and T5's.

Each is read by transformers' own class for it, so that text becomes the same tokens as there.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptr.errors import RaptrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXPECTED = (
    "a vocab.txt (WordPiece, as BERT's), a vocab.json beside its merges.txt (byte-level BPE, as GPT-2's), or a .model "
    "of SentencePiece (Unigram, as T5's)"
)


def load_vocabulary(path: Path) -> "PreTrainedTokenizerBase | None":
    """A tokenizer of a published vocabulary; None for a file that is none, such as a tokenizer.json.

    - ``*.txt``: WordPiece, one entry a line. Text is put into lower case without accents where no entry but the
      special ones has a capital letter.
    - ``*.json`` with a number for every entry: byte-level BPE; the merges are in the ``.txt`` beside it whose name has
      "merges" for "vocab".
    - ``*.model``: Unigram, as SentencePiece writes it, with T5's special tokens. T5's sentinels come after the pieces.

    Raises:
        RaptrError: a file that does not hold what its name says, or whose merges are missing.
    """
    if path.suffix == ".txt":
        return _wordpiece(path)
    if path.suffix == ".model":
        return _unigram(path)
    if path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf8"))
        if isinstance(found, dict) and found and all(isinstance(value, int) for value in found.values()):
            return _byte_level(path)
    return None


def _wordpiece(path: Path) -> "PreTrainedTokenizerBase":
    from transformers import BertTokenizer

    entries = path.read_text(encoding="utf8").splitlines()
    needed = ("[UNK]", "[SEP]")
    if not set(needed) <= set(entries):
        raise RaptrError(
            f"{str(path)!r} is not a WordPiece vocabulary: among its {len(entries)} lines there is not each of "
            f"{', '.join(needed)}. As a tokenizer, expected is {EXPECTED}."
        )
    plain = (entry for entry in entries if not entry.startswith("["))
    tokenizer: PreTrainedTokenizerBase = BertTokenizer(
        vocab=str(path), do_lower_case=not any(entry != entry.lower() for entry in plain)
    )
    return tokenizer


def _byte_level(path: Path) -> "PreTrainedTokenizerBase":
    from transformers import GPT2Tokenizer

    merges = path.with_name(path.name.replace("vocab", "merges")).with_suffix(".txt")
    if merges == path.with_suffix(".txt") or not merges.is_file():
        raise RaptrError(
            f"{str(path)!r} is the vocabulary of a byte-level BPE, whose merges are missing; expected beside it is a "
            "file of the same name with 'merges' for 'vocab', ending in .txt."
        )
    tokenizer: PreTrainedTokenizerBase = GPT2Tokenizer(vocab=str(path), merges=str(merges))
    return tokenizer


def _unigram(path: Path) -> "PreTrainedTokenizerBase":
    from transformers import T5Tokenizer
    from transformers.convert_slow_tokenizer import import_protobuf

    model: Any = import_protobuf().ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's, whose name depends on its version
        raise RaptrError(f"{str(path)!r} is not a model of SentencePiece: {error}") from error
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    if [name for name, _ in pieces[:3]] != ["<pad>", "</s>", "<unk>"] or model.trainer_spec.model_type != 1:
        raise RaptrError(
            f"{str(path)!r} is not a Unigram model that begins with <pad>, </s> and <unk>, as T5's does; give the "
            "folder or tokenizer.json of its tokenizer."
        )
    charsmap = model.normalizer_spec.precompiled_charsmap or None
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]  # T5 numbers them from the end
    tokenizer: PreTrainedTokenizerBase = T5Tokenizer(vocab=[*pieces, *sentinels], _spm_precompiled_charsmap=charsmap)
    return tokenizer
