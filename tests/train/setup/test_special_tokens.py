"""The roles of special tokens: a fresh model has the tokenizer's, and none that its architecture came with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import normalizers
from transformers import AutoTokenizer, BartForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.runs import run, tiny
from raptr.config import dump
from raptr.data import load_tokenizer, train_tokenizer
from raptr.errors import RaptrError
from raptr.train.setup.model import build_model, build_model_config
from raptr.train.setup.special_tokens import limited_to
from raptr.train.task import prepare_task

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
IDS = {"pad": 1, "bos": 0, "eos": 0, "cls": None, "sep": None, "mask": 2, "unk": None}
SPECIAL = {f"{role}_token_id": place for role, place in IDS.items()}
OURS = {None, 0, 1, 2}
ARCHITECTURES = (
    *(
        "bart",
        "mbart",
        "pegasus",
        "marian",
        "blenderbot",
        "m2m_100",
        "t5",
        "mt5",
        "bert",
        "roberta",
        "electra",
        "albert",
    ),
    *(
        "llama",
        "gpt2",
        "gemma",
        "qwen3",
        "opt",
        "bloom",
        "mistral",
        "xlm-roberta",
        "modernbert",
        "deberta-v2",
        "whisper",
    ),
)
SHAPED = {"whisper", "bloom"}
"""Their configurations have other names for the number of positions, which is not asked for here."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fresh_configuration_has_the_tokenizers_ids_or_none(architecture: str) -> None:
    config = tiny(model={"architecture": architecture, "config": {}}, data__sequence_length=16)
    made = build_model_config(config, 320, SPECIAL).to_dict()
    found = {
        name: made[f"{name}_token_id"] for name in (*IDS, "forced_bos", "forced_eos") if f"{name}_token_id" in made
    }
    assert found.keys() & {"pad", "eos"}
    assert {name: value for name, value in found.items() if value != IDS.get(name)} == {}
    assert made.get("decoder_start_token_id") in OURS


def test_what_the_config_gives_stays() -> None:
    bart = {"architecture": "bart", "config": {"forced_eos_token_id": 7, "mask_token_id": 3}}
    with pytest.raises(RaptrError, match="mask_token_id is not a setting of bart"):
        build_model_config(tiny(model=bart), 320, SPECIAL)
    del bart["config"]["mask_token_id"]
    assert build_model_config(tiny(model=bart), 320, SPECIAL).forced_eos_token_id == 7


@pytest.fixture(scope="module")
def padless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose pad token is its eos token."""
    folder = tmp_path_factory.mktemp("padless") / "tokenizer"
    tokenizer = train_tokenizer(["low lower lowest def return self"] * 9, 270)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("role", ["eos", "unk"])
def test_a_pad_token_that_stands_in_text_is_trained(role: str, padless: Path, cache: Path) -> None:
    task = prepare_task(tiny(data__tokenizer=str(padless)), cache)
    separator = task.tokenizer.eos_token_id
    assert task.tokenizer.pad_token_id == separator
    config = build_model_config(tiny(), 320, {**SPECIAL, f"{role}_token_id": 1})
    assert config.pad_token_id is None
    assert build_model_config(tiny(), 320, SPECIAL).pad_token_id == 1, "control: one of its own stays"
    model = build_model(task.config, task.model_config)
    ids = torch.tensor([[separator, 5, separator, 6]])
    model(input_ids=ids, labels=ids).loss.backward()
    embedding = model.get_input_embeddings()
    assert embedding.padding_idx is None
    assert embedding.weight[separator].any()
    assert embedding.weight.grad[separator].any()


def test_pretrained_weights_whose_pad_is_their_eos_train_it_too(padless: Path, tmp_path: Path, cache: Path) -> None:
    tokenizer = load_tokenizer(str(padless))
    pad = tokenizer.eos_token_id
    sizes = {**SIZES, "vocab_size": 270, "max_position_embeddings": 64}
    LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=pad, eos_token_id=pad)).save_pretrained(tmp_path / "llama")
    model = {"from_pretrained": str(tmp_path / "llama")}
    task = prepare_task(tiny(model=model, data__tokenizer=str(padless)), cache)
    assert build_model(task.config, task.model_config).get_input_embeddings().padding_idx is None


def test_a_model_that_counts_positions_from_the_pad_token_is_refused(padless: Path, cache: Path) -> None:
    roberta = {"architecture": "roberta", "config": {**SIZES, "max_position_embeddings": 40, "is_decoder": True}}
    with pytest.raises(RaptrError, match="also stands in text, and a roberta counts positions"):
        prepare_task(tiny(model=roberta, data__tokenizer=str(padless)), cache)


def test_the_roles_are_those_of_the_tokenizer_that_was_given(padless: Path, tmp_path: Path, cache: Path) -> None:
    """The tokens of two tokenizers with the same rules are stored once; their roles are not."""
    other = load_tokenizer(str(padless))
    other.pad_token = "<|pad|>"
    other.save_pretrained(tmp_path / "other")
    found = [prepare_task(tiny(data__tokenizer=str(path)), cache) for path in (padless, tmp_path / "other")]
    assert found[0].store.description["key"] == found[1].store.description["key"]
    assert [task.tokenizer.pad_token for task in found] == ["<|endoftext|>", "<|pad|>"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with its tokenizer beside it."""
    folder = tmp_path_factory.mktemp("weights")
    train_tokenizer(["low lower lowest def return self"] * 9, 270).save_pretrained(folder)
    LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=280, max_position_embeddings=64)).save_pretrained(folder)
    return folder


def other_tokenizer(folder: Path, kind: str) -> Path:
    """Another tokenizer than that of `weights`, or the same in other clothes."""
    tokenizer = train_tokenizer(["low lower lowest def return self"] * 9, 270)
    if kind == "other tokens":
        tokenizer = train_tokenizer(["import yield lambda while"] * 9, 270)
    if kind == "other rules":
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    if kind == "more tokens":
        tokenizer.add_tokens(["<extra>"], special_tokens=True)
    if kind == "other roles":
        tokenizer.pad_token = tokenizer.mask_token
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("other tokens", r"token 259 is .* there and .* here \(\d+ of 270 tokens differ\).*model.new_tokenizer=true"),
        ("other rules", "not the rules by which a text becomes them"),
        ("more tokens", ""),
        ("other roles", ""),
        ("the same", ""),
    ],
)
def test_weights_are_not_continued_with_another_tokenizer(
    kind: str, message: str, weights: Path, tmp_path: Path, cache: Path
) -> None:
    changes: dict[str, Any] = {"data__tokenizer": str(other_tokenizer(tmp_path, kind))}
    model: dict[str, Any] = {"from_pretrained": str(weights)}
    if message:
        with pytest.raises(RaptrError, match=message):
            prepare_task(tiny(model=model, **changes), cache)
    meant = tiny(model={**model, "new_tokenizer": bool(message)}, **changes)
    assert prepare_task(meant, cache).model_config.vocab_size == 280
    assert ("new_tokenizer" in dump(meant)) == bool(message)


def test_a_new_tokenizer_needs_weights() -> None:
    with pytest.raises(RaptrError, match="new_tokenizer is for weights that exist"):
        tiny(model={"architecture": "llama", "new_tokenizer": True})


def test_a_tokenizer_has_the_models_limit() -> None:
    tokenizer = train_tokenizer(["low lower lowest"] * 9, 262)
    assert tokenizer.model_max_length > 1e20
    assert limited_to(tokenizer, 16).model_max_length == 16
    assert limited_to(limited_to(tokenizer, 8), 16).model_max_length == 8
    assert limited_to(tokenizer, None) is tokenizer
    assert tokenizer.model_max_length > 1e20, "the given one is as before"


@pytest.mark.slow
def test_what_is_saved_generates_and_cuts_as_the_model_can(tmp_path: Path, cache: Path) -> None:
    sizes = {
        "d_model": 16,
        "decoder_layers": 4,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32,
        "encoder_layers": 4,
    }
    bart = {"architecture": "bart", "config": {**sizes, "max_position_embeddings": 32}}
    run(tiny(model=bart, training__max_steps=3), tmp_path / "run", cache)
    folder = tmp_path / "run" / "model"
    model, tokenizer = BartForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert model.generation_config.forced_eos_token_id is None
    ids = tokenizer("def f(x): " * 99, truncation=True, return_tensors="pt").input_ids
    assert ids.shape == (1, 32)
    model(input_ids=ids)
    made: Any = model.generate(ids[:, :4], max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert made[0, -1] != tokenizer.mask_token_id
