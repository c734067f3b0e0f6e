"""A bos token before each document: where the weights that are continued know it, and nowhere twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.runs import tiny
from raptr.config import DataConfig, dump
from raptr.data import load_tokenizer, prepare, train_tokenizer
from raptr.data.tokens import split_text
from raptr.data.tokens.encode_pool import Recipe, Texts
from raptr.data.tokens.tokenizer import begin_of, encoder
from raptr.errors import RaptrError
from raptr.train.task import prepare_data

BOS, EOS = "<|pad|>", "<|endoftext|>"


def tokenizer_of(kind: str) -> Any:
    """A tokenizer whose encoding of a text begins with its bos token, or does not, or that has none of its own."""
    tokenizer = train_tokenizer(["low lower lowest newer wide " * 9], 262)
    if kind == "shared":
        return tokenizer  # bos is eos
    tokenizer.bos_token = BOS
    if kind == "adds":
        post = processors.TemplateProcessing(f"{BOS} $A", special_tokens=[(BOS, tokenizer.convert_tokens_to_ids(BOS))])
        tokenizer.backend_tokenizer.post_processor = post
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "bos", "continued", "added"),
    [
        ("adds", "auto", True, True),
        ("adds", "auto", False, False),
        ("adds", True, False, True),
        ("adds", False, True, False),
        ("plain", "auto", True, False),
        ("plain", True, False, True),
        ("plain", False, False, False),
        ("shared", "auto", True, False),
        ("shared", False, True, False),
    ],
)
def test_when_there_is_one(kind: str, bos: Any, continued: bool, added: bool) -> None:
    tokenizer = tokenizer_of(kind)
    expected = tokenizer.convert_tokens_to_ids(BOS) if added else None
    assert begin_of(tokenizer, bos, continued=continued) == expected


def test_one_that_is_the_separator_or_of_a_tokenizer_to_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RaptrError, match="no bos token beside the one that separates documents"):
        begin_of(tokenizer_of("shared"), True, continued=True)
    with pytest.raises(RaptrError, match=r"data.bos is true, but a tokenizer that is trained here \(300 entries\)"):
        prepare(DataConfig(source="builtin:python", max_bytes=50_000, tokenizer=300, bos=True), tmp_path)


@pytest.mark.parametrize(
    ("texts", "ends", "inside", "expected"),
    [
        (["a", "b"], [True, True], False, [7, 97, 9, 7, 98, 9]),
        (["a", "b"], [False, True], False, [7, 97, 98, 9]),
        (["a", "b"], [True, False], False, [7, 97, 9, 7, 98]),
        (["a", "b"], [True, True], True, [97, 9, 7, 98, 9]),
        (["a"], [True], True, [97, 9]),
        (["", "b"], [True, True], False, [7, 9, 7, 98, 9]),
        ([], [], True, []),
    ],
)
def test_tokens_by_hand(texts: list[str], ends: list[bool], inside: bool, expected: list[int]) -> None:
    def bytes_of(given: list[str]) -> list[list[int]]:
        return [list(text.encode()) for text in given]

    given = Texts(texts, ends, inside=inside)
    assert Recipe(bytes_of, 9, "<u2", 7)(given).tolist() == expected
    assert Recipe(bytes_of, 9, "<u2")(given).tolist() == [token for token in expected if token != 7]


def test_each_document_begins_with_one_however_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_text, "PIECE", 40)
    texts = [f"low {i} " + "lower newer " * (i % 20) for i in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    tokenizer_of("adds").save_pretrained(tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    data = {"source": str(tmp_path / "text.jsonl"), "tokenizer": str(tmp_path / "tokenizer")}
    plain = prepare(DataConfig(**data), tmp_path / "cache")
    begun = prepare(DataConfig(**data, bos=True), tmp_path / "cache")
    bos, eos = tokenizer.convert_tokens_to_ids([BOS, EOS])
    assert plain.description["key"] != begun.description["key"]
    assert ("bos" in plain.description, begun.description["bos"]) == (False, bos)
    assert begun.facts(16)["bos"] == bos
    store, before = next(iter(begun.stores.values())), next(iter(plain.stores.values()))
    for split in ("train", "validation"):
        tokens = np.asarray(getattr(store, split))
        starts = np.flatnonzero(np.concatenate([[True], tokens[:-1] == eos]))
        assert (tokens[starts] == bos).all()
        assert (tokens == bos).sum() == len(starts) == store.description["documents"][split]
        assert np.array_equal(tokens[tokens != bos], np.asarray(getattr(before, split)))
    first = encoder(tokenizer)([texts[0]])[0]
    assert first[0] != bos, "control: the text's own encoding has none"


def test_weights_that_are_continued_have_it_by_themselves(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    tokenizer_of("adds").save_pretrained(tmp_path / "llama")
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=262)).save_pretrained(tmp_path / "llama")
    folder = str(tmp_path / "llama")
    data = {"source": "builtin:python", "max_bytes": 30_000, "tokenizer": folder, "sequence_length": 16}
    continued, fresh = tiny(model={"from_pretrained": folder}, data=data), tiny(data=data)
    assert "bos" not in dump(continued)
    assert "bos: false" in dump(tiny(data=data, data__bos=False))
    found = [prepare_data(config, tmp_path / "cache").description.get("bos") for config in (continued, fresh)]
    assert found == [load_tokenizer(folder).convert_tokens_to_ids(BOS), None]
