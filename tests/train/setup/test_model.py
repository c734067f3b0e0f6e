"""Where a run's model comes from: an architecture, an existing configuration, or existing weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, Gemma3ForCausalLM, Gemma3TextConfig

from helpers.runs import metrics, run, tiny
from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.train.setup.model import build_model, build_model_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The model folder of a finished run: Llama, 4 layers, 16 wide, with its tokenizer."""
    folder = tmp_path_factory.mktemp("trained")
    run(tiny(), folder / "run", cache)
    return folder / "run" / "model"


def made(config: RunConfig, vocabulary: int = 320) -> tuple[Any, Any]:
    """The configuration and the model of a run."""
    model_config = build_model_config(config, vocabulary, {"pad_token_id": 1})
    return model_config, build_model(config, model_config)


@pytest.mark.slow
def test_training_continues_from_weights(trained: Path, tmp_path: Path, cache: Path) -> None:
    config = tiny(model={"from_pretrained": str(trained)}, data__tokenizer=str(trained), seed=3)
    _, model = made(config)
    saved = AutoModelForCausalLM.from_pretrained(trained)
    for (name, a), (_, b) in zip(model.named_parameters(), saved.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    run(config, tmp_path / "run", cache)
    first = metrics(tmp_path / "run", "eval")[0]["eval_loss"]
    last = metrics(trained.parent, "eval")[-1]["eval_loss"]
    assert first == pytest.approx(last, rel=1e-6), "the same weights on the same validation text"


@pytest.mark.slow
def test_a_configuration_gives_its_shape_and_fresh_weights(trained: Path) -> None:
    config, model = made(tiny(model={"from_config": str(trained)}))
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (4, 16, 320)
    saved = AutoModelForCausalLM.from_pretrained(trained)
    assert not torch.equal(model.lm_head.weight, saved.lm_head.weight)


@pytest.mark.slow
def test_depth_and_width_are_changed_with_what_follows_from_them(trained: Path) -> None:
    wider = {"num_hidden_layers": 3, "hidden_size": 32}
    config, model = made(tiny(model={"from_config": str(trained), "config": wider}))
    assert config.head_dim == 16, "32 / 2 heads; the old 8 was 16 / 2"
    assert len(model.model.layers) == 3


def test_a_list_with_one_entry_a_layer_follows_the_depth(tmp_path: Path) -> None:
    sizes = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 8}
    kept = Gemma3TextConfig(num_hidden_layers=8, num_key_value_heads=1, **sizes)
    Gemma3ForCausalLM(kept).save_pretrained(tmp_path / "gemma")
    given = {"from_config": str(tmp_path / "gemma"), "config": {"num_hidden_layers": 7}}
    config, _ = made(tiny(model=given))
    assert config.layer_types == kept.layer_types[:7]
    given["config"] = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}
    config, _ = made(tiny(model=given))
    assert config.layer_types == ["full_attention", "sliding_attention"]


def test_a_preset_is_a_configuration_too() -> None:
    config, _ = made(tiny(model={"from_config": "demo", "config": {"num_hidden_layers": 2}}))
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("llama", 32, 2)
    assert config.vocab_size == 320


def test_another_head_begins_fresh_on_the_old_layers(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
    BertModel(BertConfig(vocab_size=320, **sizes)).save_pretrained(tmp_path / "bert")
    given = tiny(model={"from_pretrained": str(tmp_path / "bert")}, objective__name="masked", data__tokenizer="any")
    _, model = made(given)
    assert isinstance(model, AutoModelForMaskedLM._model_mapping[type(model.config)])
    saved = BertModel.from_pretrained(tmp_path / "bert")
    assert torch.equal(model.bert.encoder.layer[1].output.dense.weight, saved.encoder.layer[1].output.dense.weight)


@pytest.mark.slow
def test_weights_are_trained_in_float32(trained: Path, tmp_path: Path) -> None:
    half = AutoModelForCausalLM.from_pretrained(trained).bfloat16()
    half.save_pretrained(tmp_path / "half")
    for given in ({"from_pretrained": str(tmp_path / "half")}, {"from_config": str(tmp_path / "half")}):
        _, model = made(tiny(model=given, data__tokenizer="any"))
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tokenizer", "message"),
    [
        ({"from_pretrained": "T"}, 320, r"knows the tokens of its own tokenizer.*data.tokenizer is 320"),
        ({"from_pretrained": "T", "config": {"num_hidden_layers": 3}}, "any", r"have, but the model has not.*layers.3"),
        ({"from_pretrained": "T", "config": {"num_hidden_layers": 5}}, "any", r"lack model.layers.4.*use from_config"),
        ({"from_pretrained": "T", "config": {"hidden_size": 32}}, "any", r"in another size.*use from_config"),
        ({"from_pretrained": "T/nothing"}, "any", r"nothing' cannot be read: .*folder with a config.json"),
        ({"from_config": "demos"}, 320, r"'demos' cannot be read: .*or a preset \(.*demo"),
        ({"from_config": "T", "config": {"hiden_size": 3}}, 320, r"hiden_size is not a setting of llama.*hidden_size"),
        ({"from_config": "T", "config": {"num_attention_heads": 3}}, 320, r"model"),
        ({"from_config": "T", "config": {"vocab_size": 7}}, 320, r"vocab_size is 7, but the tokenizer has 320"),
    ],
)
def test_what_does_not_fit_is_refused(model: dict[str, Any], tokenizer: Any, message: str, trained: Path) -> None:
    given = {key: value.replace("T", str(trained)) if isinstance(value, str) else value for key, value in model.items()}
    with pytest.raises(RaptrError, match=message):
        made(tiny(model=given, data__tokenizer=tokenizer))


@pytest.mark.slow
def test_a_larger_tokenizer_than_the_weights_know_is_refused(trained: Path) -> None:
    config = tiny(model={"from_pretrained": str(trained)}, data__tokenizer="any")
    with pytest.raises(RaptrError, match=r"vocab_size is 320, but the tokenizer has 400.*tokenizer of these weights"):
        build_model_config(config, 400)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"from_config": "a", "from_pretrained": "b"}, "not both"),
        ({"from_config": "a", "architecture": "llama"}, "architecture follows"),
    ],
)
def test_two_origins_are_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(RaptrError, match=message):
        tiny(model=model)
