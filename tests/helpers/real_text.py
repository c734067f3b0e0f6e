"""Real text and published tokenizers, in the folder RAPTR_TEST_DATA or in ../shared/data beside the repository."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("RAPTR_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
SHARDS = DATA / "pretrain"
"""The folder of English text."""

WIKI = SHARDS / "wiki.valid.jsonl.xz"
"""A part of it: some megabytes of Wikipedia."""

PUBLISHED = DATA / "tokenizers"
"""Tokenizers as they were published."""


def needs(path: Path) -> pytest.MarkDecorator:
    """Skip a test where a file or folder of the test data is not there."""
    return pytest.mark.skipif(not path.exists(), reason="set RAPTR_TEST_DATA to the folder of the test data")
