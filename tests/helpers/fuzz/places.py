"""Folders in which commands are run: what there is before the first one."""

import random
from pathlib import Path
from typing import Any

import yaml

from helpers.fuzz import damage
from helpers.runs import TINY
from raptr.data.tokens.train_tokenizer import train_kind

SMALL: dict[str, Any] = {
    **TINY,
    "data": {"source": "base.txt", "tokenizer": "tokenizer", "sequence_length": 16},
    "training": {"max_steps": 1, "per_device_train_batch_size": 2},
    "methods": {"raptr": {"schedule": "4"}},
    "evaluation": {"every": 1, "sequences": 4},
}
"""A run of one step, on a text and with a tokenizer of its own folder."""


def lay_out(folder: Path) -> None:
    """A config, a text, and the small run with its text and tokenizer."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    (folder / "text.txt").write_text("Some text.")
    documents = damage.texts(random.Random(0))
    (folder / "base.txt").write_text("\n\n".join(documents), encoding="utf-8")
    train_kind("bpe", documents, 280).save_pretrained(folder / "tokenizer")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
