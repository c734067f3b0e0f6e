"""Text -> tokens on disk -> sequences of one length.

In the order of the road: ``open_source`` reads and splits text, ``train_tokenizer`` or
``load_tokenizer`` gives a tokenizer, ``prepare`` does both and stores the tokens, ``Sequences`` cuts
them, ``TrainingData`` and ``ValidationData`` say which is seen when, ``Collator`` makes the batch.
"""

from raptr.data.collate import Collator
from raptr.data.sequences import Item, Sequences, TrainingData, ValidationData, locate, order
from raptr.data.sources import Counts, Source, open_source
from raptr.data.store import TokenStore, prepare
from raptr.data.tokenizer import load_tokenizer, parallel_tokenizers, train_tokenizer, vocabulary

__all__ = [
    "Collator",
    "Counts",
    "Item",
    "Sequences",
    "Source",
    "TokenStore",
    "TrainingData",
    "ValidationData",
    "load_tokenizer",
    "locate",
    "open_source",
    "order",
    "parallel_tokenizers",
    "prepare",
    "train_tokenizer",
    "vocabulary",
]
