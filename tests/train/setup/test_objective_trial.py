"""What an objective means is tried on the model: what it sees, what its loss compares, and what it adds."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from helpers.runs import metrics, run, tiny
from raptr.errors import RaptrError
from raptr.train.setup.objective_trial import LossRule, auxiliary_loss, token_loss, try_objective, unbalanced

V: dict[str, Any] = {"vocab_size": 97}
SIZES: dict[str, Any] = {
    **V,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
BART: dict[str, Any] = {**V, "d_model": 16} | {
    f"{side}_{name}": number
    for side in ("encoder", "decoder")
    for name, number in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 32))
}
MOE: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "num_local_experts": 4}
ROUTED = {**MOE, "output_router_logits": True}
RIGHT, ADDED = LossRule(shift=True, own_shift=True, adds=False), LossRule(shift=True, own_shift=True, adds=True)
SAME = LossRule(shift=False, own_shift=False, adds=False)
UNSHIFTED = LossRule(shift=True, own_shift=False, adds=False)


def model_of(name: str, config: str, **entries: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, name)(getattr(transformers, config)(**entries)).train()


KNOWN: dict[str, tuple[tuple[str, str, dict[str, Any]], str, LossRule]] = {
    "llama": (("LlamaForCausalLM", "LlamaConfig", SIZES), "causal", RIGHT),
    "gpt2": (("GPT2LMHeadModel", "GPT2Config", {**V, "n_embd": 16, "n_layer": 2, "n_head": 2}), "causal", RIGHT),
    "bert-decoder": (("BertLMHeadModel", "BertConfig", {**SIZES, "is_decoder": True}), "causal", RIGHT),
    "roberta-decoder": (("RobertaForCausalLM", "RobertaConfig", {**SIZES, "is_decoder": True}), "causal", RIGHT),
    "mamba": (("MambaForCausalLM", "MambaConfig", {**V, "hidden_size": 16, "num_hidden_layers": 2}), "causal", RIGHT),
    "bart-causal": (("BartForCausalLM", "BartConfig", BART), "causal", UNSHIFTED),
    "mbart-causal": (("MBartForCausalLM", "MBartConfig", BART), "causal", UNSHIFTED),
    "pegasus-causal": (("PegasusForCausalLM", "PegasusConfig", BART), "causal", UNSHIFTED),
    "marian-causal": (("MarianForCausalLM", "MarianConfig", {**BART, "pad_token_id": 1}), "causal", UNSHIFTED),
    "mixtral": (("MixtralForCausalLM", "MixtralConfig", MOE), "causal", RIGHT),
    "mixtral-routed": (("MixtralForCausalLM", "MixtralConfig", ROUTED), "causal", ADDED),
    "bert": (("BertForMaskedLM", "BertConfig", SIZES), "masked", SAME),
    "distilbert": (
        ("DistilBertForMaskedLM", "DistilBertConfig", {**V, "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}),
        "masked",
        SAME,
    ),
    "bart": (("BartForConditionalGeneration", "BartConfig", BART), "denoising", SAME),
    "t5": (
        ("T5ForConditionalGeneration", "T5Config", {**V, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2}),
        "denoising",
        SAME,
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_a_model_compares_and_adds_is_found(name: str) -> None:
    made, objective, rule = KNOWN[name]
    model = model_of(made[0], made[1], **made[2])
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert try_objective(model, objective, 32) == rule
    assert bool(rule.told) == (rule not in (RIGHT, SAME))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


REFUSED: dict[str, tuple[tuple[str, str, dict[str, Any]], str, str]] = {
    "bert": (("BertLMHeadModel", "BertConfig", SIZES), "causal", "sees the tokens .*is_decoder=true"),
    "bert-denoising": (("BertLMHeadModel", "BertConfig", SIZES), "denoising", "sees the tokens .*is_decoder=true"),
    "electra": (("ElectraForCausalLM", "ElectraConfig", SIZES), "causal", "sees the tokens .*is_decoder=true"),
    "camembert": (("CamembertForCausalLM", "CamembertConfig", SIZES), "causal", "sees the tokens .*is_decoder=true"),
    "data2vec": (
        ("Data2VecTextForCausalLM", "Data2VecTextConfig", SIZES),
        "causal",
        "sees the tokens .*is_decoder=true",
    ),
    "xlnet": (
        ("XLNetLMHeadModel", "XLNetConfig", {**V, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}),
        "causal",
        "sees the tokens that it should predict; causal training needs a causal model",
    ),
    "bert-that-masks": (
        ("BertForMaskedLM", "BertConfig", {**SIZES, "is_decoder": True}),
        "masked",
        "sees only what comes before .*is_decoder=true out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_sees_too_much_or_too_little_is_refused(name: str) -> None:
    made, objective, message = REFUSED[name]
    with pytest.raises(RaptrError, match=message):
        try_objective(model_of(made[0], made[1], **made[2]), objective, 32)


def test_a_decoder_that_sees_padding_or_its_own_future_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = KNOWN["bart"][0]
    model = model_of(made[0], made[1], **made[2])
    original = type(model).forward

    def without_padding(self: Any, *args: Any, attention_mask: Any = None, **given: Any) -> Any:
        return original(self, *args, **given)

    def averaged(self: Any, *args: Any, decoder_input_ids: Any = None, **given: Any) -> Any:
        output = original(self, *args, decoder_input_ids=decoder_input_ids, **given)
        output.logits = output.logits + output.logits.mean(1, keepdim=True)
        return output

    for wrong, message in ((without_padding, "sees what attention_mask leaves out"), (averaged, "sees the tokens")):
        monkeypatch.setattr(type(model), "forward", wrong)
        with pytest.raises(RaptrError, match=message):
            try_objective(model, "denoising", 32)


class Strange(torch.nn.Module):
    """A causal model whose loss is neither of the two."""

    def __init__(self) -> None:
        super().__init__()
        self.config = transformers.PretrainedConfig(vocab_size=20)
        self.table = torch.nn.Embedding(20, 20)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.table

    def forward(self, input_ids: Any, labels: Any = None, use_cache: bool = False) -> Any:
        logits = self.table(input_ids)
        loss = None if labels is None else cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())
        return transformers.modeling_outputs.CausalLMOutput(loss=loss, logits=logits)


def test_a_loss_of_another_kind_is_replaced_and_said() -> None:
    rule = try_objective(Strange(), "causal", 32)
    assert (rule.ours, rule.own_shift) == (True, None)
    assert "raptr computes that" in rule.told


def test_the_cross_entropy_and_what_is_added_by_hand() -> None:
    logits, labels = (
        torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[1, 2, 3], [4, 0, -100]]),
    )
    logs = logits.log_softmax(-1)
    picked = [logs[0, 0, 2], logs[0, 1, 3], logs[1, 0, 0]]
    assert token_loss(logits, labels, shift=True) == pytest.approx(-sum(picked).item() / 3)
    assert token_loss(logits, labels, shift=True, items=6) == pytest.approx(-sum(picked).item() / 6)
    assert token_loss(logits, labels, shift=False) != pytest.approx(-sum(picked).item() / 3)
    own = token_loss(logits, labels, shift=True) + 0.25
    assert auxiliary_loss(own, logits, labels, ADDED).item() == pytest.approx(0.25)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", pytest.param("flex_attention", marks=pytest.mark.slow)])
def test_every_implementation_of_attention_is_tried_as_it_is(implementation: str) -> None:
    made, objective, rule = KNOWN["llama"]
    model = model_of(made[0], made[1], **made[2], attn_implementation=implementation)
    assert try_objective(model, objective, 32) == rule


def test_a_mixture_without_balancing_is_told() -> None:
    config = transformers.MixtralConfig(**MOE)
    assert "model.config.output_router_logits=true adds" in unbalanced(config, RIGHT)
    assert unbalanced(transformers.MixtralConfig(**ROUTED), ADDED) == ""
    assert unbalanced(transformers.LlamaConfig(**SIZES), RIGHT) == ""


# Runs


def routed(batch: int, micro: int, **changes: Any) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    own = {"num_key_value_heads": 2, "num_local_experts": 4, "output_router_logits": True, "router_aux_loss_coef": 0.5}
    return tiny(
        model={"architecture": "mixtral", "config": {**sizes, **own}},
        method="full",
        methods={},
        training__max_steps=2,
        training__per_device_train_batch_size=batch,
        training__gradient_accumulation_steps=micro,
        **changes,
    )


@pytest.mark.slow
def test_auxiliary_losses_count_once_a_step_and_not_in_validation(tmp_path: Path, cache: Path) -> None:
    first, evals = {}, {}
    for batch, micro in ((8, 1), (2, 4), (1, 8)):
        run(routed(batch, micro), tmp_path / f"{batch}", cache)
        first[batch] = metrics(tmp_path / f"{batch}", "train")[0]
        evals[batch] = metrics(tmp_path / f"{batch}", "eval")[0]["eval_loss"]
    parts = {batch: line["loss"] - line["auxiliary_loss"] for batch, line in first.items()}
    assert parts[2] == pytest.approx(parts[8], rel=1e-5)
    assert parts[1] == pytest.approx(parts[8], rel=1e-5)
    for line in first.values():  # the router's loss is a mean over micro-batches, each with statistics of its own
        assert line["auxiliary_loss"] == pytest.approx(first[8]["auxiliary_loss"], rel=0.1)
        assert line["auxiliary_loss"] > 0.9
        assert line["grad_norm"] == pytest.approx(first[8]["grad_norm"], rel=0.1)
    assert evals[8] == pytest.approx(evals[1], rel=1e-6)
    assert abs(evals[8] - parts[8]) < 0.2 < first[8]["auxiliary_loss"], "the cross-entropy alone"


@pytest.mark.slow
def test_a_loss_that_is_not_shifted_is_not_a_copy_of_the_input(tmp_path: Path, cache: Path) -> None:
    sizes = {"d_model": 16, "decoder_layers": 4, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    bart = {"architecture": "bart", "config": {**sizes, "encoder_layers": 4, "dropout": 0.0}}
    config = tiny(model=bart, training__max_steps=12, training__gradient_accumulation_steps=2)
    task, result = run(config, tmp_path / "run", cache)
    model = transformers.BartForCausalLM.from_pretrained(tmp_path / "run" / "model").eval()
    data, collate = task.validation_data()["validation"], task.collator(validation=True)
    batch = collate([data[i] for i in range(len(data))])
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"]).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert result["eval_loss"] == pytest.approx(expected.item(), rel=1e-4)
    copied = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    assert result["eval_loss"] != pytest.approx(copied.item(), rel=1e-3), "control"


@pytest.mark.slow
def test_a_run_of_a_model_that_sees_its_targets_leaves_no_folder(tmp_path: Path, cache: Path) -> None:
    bert = {
        "architecture": "bert",
        "config": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2},
    }
    with pytest.raises(RaptrError, match="BertLMHeadModel sees the tokens that it should predict"):
        run(tiny(model=bert), tmp_path / "run", cache)
    assert not (tmp_path / "run").exists()
