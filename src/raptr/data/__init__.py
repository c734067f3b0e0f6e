"""Text -> tokens on disk -> sequences of one length.

In the order of the road: ``open_source`` reads and splits text, ``train_tokenizer`` or ``load_tokenizer``
gives a tokenizer, ``prepare`` does both for every source and stores the tokens, ``Sequences`` cuts them,
``Mixture`` says which is seen when, ``TrainingData`` and ``ValidationData`` are the samples, ``Collator``
makes the batch.
"""

from raptr.data.corpus import Corpus, prepare
from raptr.data.samples.collate import Collator, WindowCollator
from raptr.data.samples.datasets import Item, TrainingData, ValidationData
from raptr.data.samples.mixture import Mixture, mix, order
from raptr.data.samples.sequences import Sequences
from raptr.data.samples.windows import STRETCH, Turns, WindowData, WindowValidation, turns_of
from raptr.data.text.skipped import Omitted
from raptr.data.text.sources import Counts, Source, open_source
from raptr.data.tokens.store import TokenStore
from raptr.data.tokens.tokenizer import load_tokenizer, parallel_tokenizers, train_tokenizer, vocabulary
from raptr.data.tokens.word_starts import closings, continuations, unspaced

__all__ = [
    "STRETCH",
    "Collator",
    "Corpus",
    "Counts",
    "Item",
    "Mixture",
    "Omitted",
    "Sequences",
    "Source",
    "TokenStore",
    "TrainingData",
    "Turns",
    "ValidationData",
    "WindowCollator",
    "WindowData",
    "WindowValidation",
    "closings",
    "continuations",
    "load_tokenizer",
    "mix",
    "open_source",
    "order",
    "parallel_tokenizers",
    "prepare",
    "train_tokenizer",
    "turns_of",
    "unspaced",
    "vocabulary",
]
