"""`raptr inspect MODEL`: where the model comes from, what is printed, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AlbertConfig, LlamaConfig, LlamaForCausalLM, T5Config

from raptr.cli import app as cli
from raptr.errors import RaptrError
from raptr.train.inspect_name import find_model, inspect_name

SIZES = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A folder with a config.json and nothing else."""
    config = LlamaConfig(**SIZES, num_hidden_layers=4, max_position_embeddings=64, architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    """The configuration of a T5."""
    sizes = {"vocab_size": 61, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2}
    config = T5Config(**sizes, num_layers=3, num_decoder_layers=4, architectures=["T5ForConditionalGeneration"])
    config.save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def raptr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a `raptr` command."""
    monkeypatch.setattr(sys, "argv", ["raptr", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_a_folder_needs_no_weights_and_gives_its_own_class(llama: Path) -> None:
    model, length, run = find_model(str(llama))
    assert type(model) is LlamaForCausalLM
    assert length is run is None
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert inspect_name(str(llama), 8).stacks[0].layers == 4


def test_a_configuration_without_a_class_gives_the_bare_model(llama: Path) -> None:
    values = json.loads((llama / "config.json").read_text())
    del values["architectures"]
    (llama / "config.json").write_text(json.dumps(values))
    assert inspect_name(str(llama)).model == "LlamaModel"


def test_weights_are_not_read(llama: Path) -> None:
    (llama / "model.safetensors").write_bytes(b"these are no weights")
    assert inspect_name(str(llama)).model == "LlamaForCausalLM"


@pytest.mark.slow
def test_a_run_gives_its_model_and_length(tmp_path: Path) -> None:
    found = inspect_name("demo")
    assert (found.model, found.stacks[0].layers, found.length) == ("LlamaForCausalLM", 12, 128)
    config = {"model": {"config": {**SIZES, "num_hidden_layers": 3}}, "data": {"sequence_length": 32, "tokenizer": 61}}
    config["model"]["config"].pop("vocab_size")
    methods = {"raptr": {"schedule": "2-3"}}
    file = tmp_path / "run" / "config.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"name": "tiny", "methods": methods, **config}))
    for name in (file, file.parent):
        found = inspect_name(str(name))
        assert (found.stacks[0].layers, found.length) == (3, 32)
    assert inspect_name(str(file), length=8).length == 8


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "nothing-known"}'], ids=["empty", "broken", "unknown"])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RaptrError, match=r"Expected is a preset \(.*demo"):
        inspect_name(str(tmp_path))


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(RaptrError, match=r"missing\.yaml"):
        inspect_name("missing.yaml")


def test_a_name_on_the_hub_that_cannot_be_reached_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RaptrError, match="some/model"):
        inspect_name("some/model")


def test_what_is_printed(t5: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = raptr(capsys, monkeypatch, "inspect", str(t5), "--length", "16")
    assert code == 0
    for words in (
        "T5ForConditionalGeneration",
        "encoder.block",
        "4 of T5Block",
        "always kept: layer 0 of decoder.block, since it makes position_bias",
        "training FLOPs of 16 tokens",
        "head and the rest",
        "RaPTr from half the layers",
    ):
        assert words in out


@pytest.mark.slow
def test_json_holds_the_same(t5: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = raptr(capsys, monkeypatch, "inspect", str(t5), "--length", "16", "--json")
    found, expected = json.loads(out), inspect_name(str(t5), 16)
    assert code == 0
    assert [stack["layers"] for stack in found["stacks"]] == [3, 4]
    assert found["parameters"] == expected.parameters
    assert expected.costs is not None
    assert found["costs"]["layers"] == [list(costs) for costs in expected.costs.layers]
    assert found["stacks"][1]["required"] == [list(pair) for pair in expected.stacks[1].required]


def test_a_model_that_cannot_be_handled_ends_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AlbertConfig(**SIZES, embedding_size=8, num_hidden_layers=6, architectures=["AlbertForMaskedLM"])
    config.save_pretrained(tmp_path)
    code, out, err = raptr(capsys, monkeypatch, "inspect", str(tmp_path))
    assert code == 2
    assert out == ""
    assert "called 6 times" in err
    assert "Traceback" not in err


def test_inspecting_draws_nothing(llama: Path) -> None:
    before = torch.get_rng_state()
    inspect_name(str(llama))
    assert torch.equal(torch.get_rng_state(), before)
