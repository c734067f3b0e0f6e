"""A little real text, where it is: RAPTR_TEST_DATA, or ../shared/data beside the repository."""

import os
from pathlib import Path

import pytest

from raptr.config import DataConfig, SourceConfig
from raptr.data import Sequences, open_source, prepare

DATA = Path(os.environ.get("RAPTR_TEST_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")
WIKI = DATA / "pretrain" / "wiki.valid.jsonl.xz"


@pytest.mark.skipif(not WIKI.exists(), reason="set RAPTR_TEST_DATA to the folder of the test data")
def test_wikipedia_becomes_sequences(tmp_path):
    made = prepare(DataConfig(source=str(WIKI), max_bytes=200_000, tokenizer=600), tmp_path)
    first = next(open_source(SourceConfig(path=str(WIKI), max_bytes=200_000), cache=tmp_path).documents("train"))
    sequences = Sequences(made.stores["data"].train, 128)
    assert len(sequences) > 300
    assert first.startswith(made.tokenizer.decode(sequences.rows([0])[0]))
    assert made.description["documents"]["validation"] > 0
