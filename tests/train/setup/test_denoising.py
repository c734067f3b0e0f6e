"""`raptr train` with the denoising objective: T5 and decoder-only models, their costs, losses, tokens and refusals."""

import copy
import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from helpers.real_text import WIKI, needs
from helpers.runs import TINY, metrics, run, timeless, tiny
from helpers.stopping import interrupted
from raptr.compare.step_timing import read_clock
from raptr.errors import RaptrError
from raptr.model import count_flops
from raptr.plan import plan_cost
from raptr.train.engine import train
from raptr.train.inspect_name import inspect_name
from raptr.train.setup.model import build_model
from raptr.train.task import plan_run, prepare_task

T5 = {
    "architecture": "t5",  # v1.1: gated, as UL2
    "config": {
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 4,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    },
}
MIX = {"R3": 0.25, "S": 0.25, "X3": 0.25, "X8": 0.25}
LAYOUTS: dict[str, dict[str, Any]] = {
    "t5": {"model": T5},
    "llama": {},
    "prefix llama": {"objective__attention": "prefix"},
}
METHODS: dict[str, dict[str, Any]] = {
    "raptr": {"schedule": "2-3-4"},
    "gradual_stacking": {"schedule": "2-4"},
    "layerdrop": {},
}
OF_FOUR_LAYERS: dict[str, dict[str, Any]] = {
    "depth_width_raptr": {"schedule": "2-3-4", "width": "50%-75%-100%"},
    "midas": {"schedule": "2-4"},
}
"""Settings of methods whose own are for more layers."""


def config(layout: str, method: str = "raptr", **changes: Any) -> Any:
    settings = {
        "objective": {"name": "denoising", "denoisers": MIX},
        "data__sequence_length": 48,
        "method": method,
        "methods": {method: METHODS.get(method, {})},
        **LAYOUTS[layout],
        **changes,
    }
    return tiny(**copy.deepcopy(settings))


@pytest.fixture(scope="module", params=["t5", "llama"])
def finished(request: Any, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Any, Any]:
    """A finished run of two micro-steps a step: its folder, task and result."""
    folder = tmp_path_factory.mktemp("denoising") / "run"
    task, result = run(config(request.param, training__gradient_accumulation_steps=2), folder, cache)
    return folder, task, result


# Training


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the fixed set was enlarged")  # T5's first layers, under layerdrop
@pytest.mark.parametrize(
    ("layout", "method"),
    [*((layout, "raptr") for layout in LAYOUTS), *(("t5", method) for method in METHODS if method != "raptr")],
)
def test_validation_loss_falls_in_both_layouts_under_every_kind_of_depth_method(
    layout: str, method: str, tmp_path: Path, cache: Path
) -> None:
    changed = config(layout, method, training__max_steps=30, evaluation__every=30)
    run(changed, tmp_path / "run", cache)
    before, after = (line["eval_loss"] for line in metrics(tmp_path / "run", "eval"))
    assert after < before - 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the fixed set was enlarged")
@pytest.mark.parametrize("method", ["depth_width_raptr", "midas", "pld", "sequence_layer_dropout"])
def test_an_encoder_decoder_is_trained_under_every_class_of_plan(method: str, tmp_path: Path, cache: Path) -> None:
    changes = {"training__max_steps": 16, "evaluation__every": 16, "checkpoints__every": 16}
    changed = config("t5", method, methods={method: OF_FOUR_LAYERS.get(method, {})}, **changes)
    task, _ = run(changed, tmp_path / "run", cache)
    before, after = (line["eval_loss"] for line in metrics(tmp_path / "run", "eval"))
    assert after < before - 0.2
    plan = task.plan(changed.build_method())
    paths = [line["layers"] for line in metrics(tmp_path / "run", "train")]
    assert paths == [[list(path) for path in plan.subnetwork(step).layers] for step in range(16)]
    assert all(path[0] == 0 for both in paths for path in both), "the first layer of each stack makes its biases"


@pytest.mark.slow
@needs(WIKI)
def test_validation_loss_falls_on_wikipedia(tmp_path: Path) -> None:
    data = {"source": str(WIKI), "max_bytes": 400_000, "tokenizer": 600, "sequence_length": 224}
    whole = {"name": "denoising"}  # all of UL2's seven
    changed = config("t5", objective=whole, data=data, training__max_steps=40, evaluation__every=40)
    task, _ = run(changed, tmp_path / "run", tmp_path / "cache")
    before, after = (line["eval_loss"] for line in metrics(tmp_path / "run", "eval"))
    assert after < before - 0.5
    assert {item["kind"] for item in map(task.validation_data()["validation"].__getitem__, range(8))} == set(range(7))


@pytest.mark.slow
def test_later_mixtures_are_settings(tmp_path: Path, cache: Path) -> None:
    changed = config(
        "llama",
        objective={"name": "denoising", "denoisers": {"C": 0.6, "S": 0.2, "R3": 0.2}, "mode_tokens": False},
        training__max_steps=30,
        evaluation__every=30,
    )
    task, _ = run(changed, tmp_path / "run", cache)
    before, after = (line["eval_loss"] for line in metrics(tmp_path / "run", "eval"))
    assert after < before - 0.2
    data = task.training_data(500)
    kinds = [data[i]["kind"] for i in range(len(data))]
    assert [kinds.count(kind) / len(kinds) for kind in range(3)] == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    assert task.added == tuple(f"<extra_id_{i}>" for i in range(100))


@pytest.mark.slow
def test_encoder_and_decoder_have_paths_of_their_own_and_their_first_layers_are_fixed(
    tmp_path: Path, cache: Path
) -> None:
    changed = config("t5", methods__raptr={"schedule": "2-3-4", "fixed": [-1]}, training__max_steps=18)
    with pytest.warns(UserWarning, match=r"layer 0 .*encoder.*decoder|first") as caught:
        run(changed, tmp_path / "run", cache)
    assert any("encoder" in str(one.message) for one in caught)
    lines = metrics(tmp_path / "run", "train")
    assert all(path[0] == 0 for line in lines for path in line["layers"])
    assert any(line["layers"][0] != line["layers"][1] for line in lines)
    with warnings.catch_warnings():  # control: nothing is said of what is fixed anyway
        warnings.simplefilter("error", UserWarning)
        config("t5").build_method().plan(prepare_task(config("t5"), cache).shape, 9)


# What is counted


@pytest.mark.slow
def test_tokens_and_flops_are_those_of_the_denoisers_that_ran(finished: Any) -> None:
    folder, task, result = finished
    data, model = task.training_data(9), build_model(task.config, task.model_config, device="meta")
    layers = other = tokens = 0.0
    for line in metrics(folder, "train"):
        step = line["step"] - 1
        for micro in range(2):
            first = 8 * step + 4 * micro
            items = [data[i] for i in range(first, first + 4)]
            tokens += sum(len(item["tokens"]) for item in items)
            batch = task.collator()(items)
            targets = batch["labels"].shape[1] if "decoder_input_ids" in batch else None
            costs = count_flops(model, batch["input_ids"].shape[1], target_length=targets).scaled(4)
            layers += sum(costs.layers[stack][layer] for stack, path in enumerate(line["layers"]) for layer in path)
            other += costs.other
        assert line["tokens"] == tokens
        assert line["layer_flops"] == pytest.approx(layers, rel=1e-9)
        assert line["total_flops"] == pytest.approx(layers + other, rel=1e-9)
    assert result["tokens"] == tokens
    assert result["epochs"] == pytest.approx(tokens / (len(task.training) * 8 * 48), rel=0.2)


@pytest.mark.slow
def test_expected_costs_are_the_mean_by_weight(cache: Path) -> None:
    task = prepare_task(config("t5", objective__denoisers={"R3": 0.75, "X3": 0.25}), cache)
    rare, often = task.denoiser_costs[1], task.denoiser_costs[0]
    assert rare.total != often.total
    assert task.costs.total == pytest.approx(0.75 * often.total + 0.25 * rare.total)
    assert task.costs.layers[1][2] == pytest.approx(0.75 * often.layers[1][2] + 0.25 * rare.layers[1][2])
    forms = task.denoised.forms
    assert task.tokens_per_step == pytest.approx(4 * (0.75 * forms[0].tokens + 0.25 * forms[1].tokens))
    long = prepare_task(config("t5", training__max_steps=4000), cache)
    plan = long.plan(long.config.build_method())
    spent = sum(long.work(step, 0).costs.step(plan.subnetwork(step)) for step in range(4000))
    assert spent == pytest.approx(sum(stage.total for stage in plan_cost(plan, long.costs)), rel=0.01)
    same = prepare_task(config("llama"), cache)
    assert len({costs.total for costs in same.denoiser_costs}) == 1, "a decoder-only model has one shape"


@pytest.mark.slow
def test_validation_loss_is_the_mean_over_target_tokens(finished: Any) -> None:
    folder, task, result = finished
    auto = AutoModelForSeq2SeqLM if task.denoised.alike else AutoModelForCausalLM
    model = auto.from_pretrained(folder / "model").eval()
    data, collate = task.validation_data()["validation"], task.collator(validation=True)
    assert {data[i]["kind"] for i in range(len(data))} == set(range(4)), "every denoiser is represented"
    total, count, means = 0.0, 0, []
    for i in range(len(data)):
        batch = collate([data[i]])
        with torch.no_grad():
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        labels = batch["labels"]
        if not task.denoised.alike:
            logits, labels = logits[:, :-1], labels[:, 1:]
        losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100)
        total, count = total + losses.sum().item(), count + int((labels != -100).sum())
        means.append(losses.sum().item() / int((labels != -100).sum()))
    assert result["eval_loss"] == pytest.approx(total / count, rel=1e-4)
    assert result["eval_loss"] != pytest.approx(sum(means) / len(means), rel=1e-4), "not the mean over sequences"


@pytest.mark.slow
def test_the_loss_of_a_step_is_the_mean_over_the_targets_of_all_its_micro_batches(finished: Any) -> None:
    folder, task, _ = finished
    model = build_model(task.config, task.model_config).train()
    import raptr

    net = raptr.attach(model)
    net.activate(task.plan(task.config.build_method()), 0)
    data, collate, total, count = task.training_data(9), task.collator(), 0.0, 0
    for micro in range(2):
        batch = collate([data[i] for i in range(4 * micro, 4 * micro + 4)])
        labels = batch.pop("labels")
        with torch.no_grad():
            logits = model(**batch, use_cache=False).logits
        if not task.denoised.alike:
            logits, labels = logits[:, :-1], labels[:, 1:]
        total += cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=-100).item()
        count += int((labels != -100).sum())
    assert metrics(folder, "train")[0]["loss"] == pytest.approx(total / count, rel=1e-4)


@pytest.mark.slow
def test_validation_is_the_same_for_every_seed(cache: Path) -> None:
    one, other = (prepare_task(config("t5", seed=seed), cache) for seed in (0, 1))
    batches = []
    for task in (one, other):
        data = task.validation_data()["validation"]
        batches.append(task.collator(validation=True)([data[i] for i in range(len(data))]))
    assert all(torch.equal(value, batches[1][name]) for name, value in batches[0].items())
    trained = [task.training_data(9)[0]["tokens"].tolist() for task in (one, other)]
    assert trained[0] != trained[1]


# Going on


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["t5", "prefix llama"])
def test_stopped_run_ends_bit_for_bit_as_if_it_had_not_been(layout: str, tmp_path: Path, cache: Path) -> None:
    changes = {"checkpoints__every": 2, "training__gradient_accumulation_steps": 2}
    if layout == "t5":
        changes["model__config__dropout_rate"] = 0.2
        changes["model"] = copy.deepcopy(T5)
        changes = {key: changes[key] for key in sorted(changes)}  # the model before what is changed in it
    run(config(layout, **changes), tmp_path / "whole", cache)
    interrupted(config(layout, **changes), tmp_path / "run", cache, 8)
    run(config(layout, **changes), tmp_path / "run", cache)
    for kind in ("train", "eval"):
        assert timeless(metrics(tmp_path / "run", kind)) == timeless(metrics(tmp_path / "whole", kind))
    ends = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_number_of_data_workers_changes_nothing(tmp_path: Path, cache: Path) -> None:
    losses = []
    for workers in (0, 2):
        run(config("t5", training__dataloader_num_workers=workers), tmp_path / str(workers), cache)
        losses.append([line["loss"] for line in metrics(tmp_path / str(workers), "train")])
    assert losses[0] == losses[1]


# Tokens


@pytest.mark.slow
def test_what_the_tokenizer_lacks_is_added_with_a_message_and_saved(tmp_path: Path, cache: Path) -> None:
    task = prepare_task(config("t5", training__max_steps=3), cache)
    console = Console(width=300, record=True, file=io.StringIO())
    train(task, tmp_path / "run", console=console)
    said = console.export_text()
    assert "103 tokens (<extra_id_0>, <extra_id_1>, ..., [NLG], [S2S]) added to the tokenizer" in said
    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert saved.convert_tokens_to_ids("<extra_id_0>") == 320
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model")
    assert model.config.vocab_size == len(saved) == 320 + 103
    assert model.config.decoder_start_token_id == saved.pad_token_id
    ids = saved("[S2S]def f(x):<extra_id_0>", return_tensors="pt").input_ids
    assert ids[0, 0] == saved.convert_tokens_to_ids("[S2S]")
    assert model.generate(ids, max_new_tokens=3, min_new_tokens=3).shape == (1, 4)

    again = config(
        "t5",
        model={"from_pretrained": str(tmp_path / "run" / "model")},
        data__tokenizer=str(tmp_path / "run" / "model"),
        training__max_steps=3,
    )
    more, _ = run(again, tmp_path / "more", cache)
    assert more.added == ()
    assert "tokens added" not in json.dumps(more.store.description)


@pytest.mark.slow
def test_pretrained_embeddings_that_cannot_hold_them_are_refused(tmp_path: Path, cache: Path) -> None:
    run(tiny(training__max_steps=3), tmp_path / "run", cache)
    weights = {
        "model": {"from_pretrained": str(tmp_path / "run" / "model")},
        "data__tokenizer": str(tmp_path / "run" / "model"),
    }
    with pytest.raises(RaptrError, match=r"103 of the tokens .*<extra_id_0>.*has 320 rows, .* hold .*423 tokens"):
        prepare_task(config("llama", **weights), cache)
    assert prepare_task(tiny(**weights), cache).added == ()  # control: the causal objective needs none


# What does not fit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("t5", {"data__sequence_length": 16, "objective__denoisers": {"X64": 1.0}}, r"denoisers.X64: sequences of 16"),
        ("llama", {"data__sequence_length": 8, "objective__denoisers": {"R8": 1.0}}, r"denoisers.R8: sequences of 8"),
        ("t5", {"objective__attention": "prefix"}, r"encoder sees its inputs in both directions anyway"),
        (
            "t5",
            {"data__sequence_length": 16_000},
            r"(train|validation) text: the text has \d+ tokens and one sequence needs"
            r".*data.sequence_length=16000, denoising trains on stretches of 128000 tokens",
        ),
        ("llama", {"evaluation__sequences": 3}, r"validation of data: 3 validation sequences.* 4 denoisers"),
        ("llama", {"model__config__vocab_size": 330}, r"vocab_size is 330, but the tokenizer has 423 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(layout: str, changes: dict[str, Any], message: str, cache: Path) -> None:
    with pytest.raises(RaptrError, match=message):
        prepare_task(config(layout, **changes), cache)


@pytest.mark.slow
def test_a_shard_that_is_empty_does_not_lose_the_rest_and_an_empty_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jsonl").write_text("")
    data = {"source": str(tmp_path / "text"), "tokenizer": 280, "sequence_length": 32}
    with pytest.raises(RaptrError, match=r"empty|no text|no document|holds"):
        prepare_task(config("t5", data=data), tmp_path / "cache")
    rows = [json.dumps({"text": f"line {i} of a text, {'many words ' * (i % 9)}"}) for i in range(900)]
    (tmp_path / "text" / "b.jsonl").write_text("\n".join(rows))
    assert prepare_task(config("t5", data=data), tmp_path / "cache").store.description["skipped"] == {"empty file": 1}


BERT = {
    "architecture": "bert",
    "config": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2},
}


@pytest.mark.slow
def test_a_model_that_sees_its_targets_or_takes_no_mask_is_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RaptrError, match="BertLMHeadModel sees the tokens that it should predict"):
        run(config("llama", model=BERT), tmp_path / "run", cache)
    bloom = {"architecture": "bloom", "config": {"hidden_size": 16, "n_layer": 4, "n_head": 2}}
    with pytest.raises(RaptrError, match=r"'prefix', but BloomForCausalLM takes no 4-D mask"):
        run(config("prefix llama", model=bloom), tmp_path / "run", cache)
    assert not (tmp_path / "run").exists()


def test_a_budget_in_seconds_is_refused_where_steps_differ(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RaptrError, match="use --budget flops"):
        read_clock(prepare_task(config("t5"), cache), tmp_path, Console(quiet=True))


@pytest.mark.slow
def test_plans_and_inspection_need_no_text(tmp_path: Path, cache: Path) -> None:
    planned = plan_run(config("t5"))
    task = prepare_task(config("t5"), cache)
    assert planned.costs == task.costs
    assert planned.plan.shape == task.shape
    assert "RaPTr" in planned.name
    from raptr.config import dump

    (tmp_path / "run.yaml").write_text(dump(config("t5")))
    assert [stack.name for stack in inspect_name(str(tmp_path / "run.yaml")).stacks]
    assert TINY["data"]["tokenizer"] + 103 == task.model_config.vocab_size
