"""A little real text, where there is some."""

from helpers.real_text import WIKI, needs
from raptr.config import DataConfig, SourceConfig
from raptr.data import Sequences, open_source, prepare


@needs(WIKI)
def test_wikipedia_becomes_sequences(tmp_path):
    made = prepare(DataConfig(source=str(WIKI), max_bytes=200_000, tokenizer=600), tmp_path)
    first = next(open_source(SourceConfig(path=str(WIKI), max_bytes=200_000), cache=tmp_path).documents("train"))
    sequences = Sequences(made.stores["data"].train, 128)
    assert len(sequences) > 300
    assert first.startswith(made.tokenizer.decode(sequences.rows([0])[0]))
    assert made.description["documents"]["validation"] > 0
