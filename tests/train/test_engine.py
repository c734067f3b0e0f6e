"""`raptr train`: from a configuration to a run folder."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from helpers.runs import contents, metrics, run, tiny
from raptr.config import load
from raptr.errors import RaptrError
from raptr.plan import RaPTr, plan_cost
from raptr.report import write_report
from raptr.rundir.paths import claim_folder
from raptr.train.setup.model import build_model
from raptr.train.task import prepare_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Any, Any]:
    """A finished run: its folder, task and result."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    task, result = run(tiny(), folder, cache)
    return folder, task, result


def test_run_folder_holds_the_promised_files(finished: Any) -> None:
    folder, _, _ = finished
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "run.json",
        "metrics.jsonl",
        "result.json",
        "model",
    }
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {p.name for p in (folder / "model").iterdir()}
    assert not list(folder.rglob("*.bin")), "nothing pickled is kept"


def test_resolved_config_gives_the_same_run_again(finished: Any) -> None:
    folder, task, _ = finished
    assert load(folder / "config.yaml") == task.config


def test_every_step_has_a_line_with_its_own_subnetwork(finished: Any) -> None:
    folder, task, _ = finished
    plan = RaPTr("2-3-4", seed=task.config.seed).plan(task.shape, 9)
    lines = metrics(folder, "train")
    assert [line["step"] for line in lines] == list(range(1, 10))
    for line in lines:
        subnetwork = plan.subnetwork(line["step"] - 1)
        assert line["layers"] == [list(path) for path in subnetwork.layers]
        assert plan.stages[line["stage"]] == plan.stage(line["step"] - 1)
        assert line["grad_norm"] > 0
    assert {len(line["layers"][0]) for line in lines} == {2, 3, 4}, "the run must have had different sizes"


def test_flops_and_tokens_are_those_of_the_layers_that_ran(finished: Any) -> None:
    folder, task, result = finished
    layers = total = 0.0
    for line in metrics(folder, "train"):
        layers += sum(task.costs.layers[0][layer] for layer in line["layers"][0])
        total = layers + line["step"] * task.costs.other
        assert line["layer_flops"] == pytest.approx(layers, rel=1e-12)
        assert line["total_flops"] == pytest.approx(total, rel=1e-12)
        assert line["tokens"] == line["step"] * 4 * 16
    plan = RaPTr("2-3-4").plan(task.shape, 9)
    assert result["total_flops"] == pytest.approx(sum(stage.total for stage in plan_cost(plan, task.costs)))
    assert result["total_flops"] < 9 * task.costs.total, "a run that skips layers costs less than one that does not"
    assert result["epochs"] == 9 * 4 / len(task.training)


def test_losses_are_of_the_very_step_and_equal_a_plain_loop(finished: Any) -> None:
    folder, task, _ = finished
    import raptr

    model = build_model(task.config, task.model_config).train()
    net = raptr.attach(model)
    plan = RaPTr("2-3-4", seed=0).plan(net.shape, 9)
    decay, no_decay = [], []
    for name, parameter in model.named_parameters():
        (no_decay if "norm" in name else decay).append(parameter)
    optimizer = torch.optim.AdamW([{"params": decay}, {"params": no_decay}], lr=1e-2, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: step / 2 if step < 2 else max(0.0, (9 - step) / 7)
    )
    net.prepare(optimizer)
    data, collate = task.training_data(9), task.collator()
    losses = []
    for step in range(9):
        net.activate(plan, step)
        batch = collate([data[i] for i in range(4 * step, 4 * step + 4)])
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [line["loss"] for line in metrics(folder, "train")] == pytest.approx(losses, rel=1e-5)


def test_full_model_is_validated_throughout_and_the_saved_model_is_that_model(finished: Any) -> None:
    folder, task, result = finished
    lines = metrics(folder, "eval")
    assert [line["step"] for line in lines] == [0, 3, 6, 9]
    assert lines[-1]["eval_loss"] == result["eval_loss"] < lines[0]["eval_loss"]
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    data, collate = task.validation_data()["validation"], task.collator(validation=True)
    with torch.no_grad():
        loss = model(**collate([data[i] for i in range(len(data))])).loss.item()
    assert loss == pytest.approx(result["eval_loss"], rel=1e-4)


def test_saved_model_loads_where_raptr_is_not_imported(finished: Any) -> None:
    folder, _, _ = finished
    code = (
        "import sys, transformers\n"
        "sys.modules['raptr'] = None\n"
        f"model = transformers.AutoModelForCausalLM.from_pretrained({str(folder / 'model')!r})\n"
        f"tokenizer = transformers.AutoTokenizer.from_pretrained({str(folder / 'model')!r})\n"
        "ids = tokenizer('def f(x):', return_tensors='pt')\n"
        "print(type(model).__module__, model.config.use_cache, model(**ids).logits.shape[-1] == len(tokenizer))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["transformers.models.llama.modeling_llama", "True", "True"]


def test_run_json_holds_plan_data_and_environment(finished: Any) -> None:
    folder, task, _ = finished
    facts = json.loads((folder / "run.json").read_text())
    assert facts["plan"]["stacks"] == [{"name": "model.layers", "layers": 4}]
    assert [(stage["start"], stage["stop"], stage["sizes"]) for stage in facts["plan"]["stages"]] == [
        (0, 3, [2]),
        (3, 6, [3]),
        (6, 9, [4]),
    ]
    assert facts["data"]["content_hash"] == task.store.description["content_hash"]
    assert facts["environment"]["torch"] == torch.__version__


def test_finished_run_is_not_trained_again(finished: Any, cache: Path) -> None:
    folder, _, result = finished
    before = contents(folder)
    assert run(tiny(), folder, cache)[1] == result
    assert contents(folder) == before


def test_folder_of_another_run_is_refused_and_left_alone(finished: Any, cache: Path) -> None:
    folder, _, _ = finished
    before = contents(folder)
    with pytest.raises(RaptrError, match=r"holds another run \(seed: 0 -> 1\)"):
        run(tiny(seed=1), folder, cache)
    assert contents(folder) == before


def test_folder_that_is_no_run_is_refused_and_left_alone(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RaptrError, match="not a run of raptr"):
        run(tiny(), tmp_path, cache)
    assert contents(tmp_path) == {"thesis.txt": b"precious"}


def test_unfinished_run_starts_again(finished: Any, tmp_path: Path, cache: Path) -> None:
    folder, _, _ = finished
    (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "tr')
    run(tiny(), tmp_path, cache)
    assert [line["loss"] for line in metrics(tmp_path, "train")] == [line["loss"] for line in metrics(folder, "train")]


def test_what_the_trainer_refuses_leaves_no_folder(tmp_path: Path, cache: Path) -> None:
    for changes in ({"training__report_to": "wandb"}, {"training__lr_scheduler_type": "cosine_with_min_lr"}):
        with pytest.raises(RaptrError, match="training is not valid"):
            run(tiny(**changes), tmp_path / "run", cache)
        assert not (tmp_path / "run").exists()


def test_wrong_method_is_refused_before_anything_is_written(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RaptrError, match="asks for 5 layers"):
        run(tiny(methods__raptr__schedule="2-5"), tmp_path / "run", cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["full", "raptr"])
def test_same_seed_gives_every_method_the_same_start_and_data(method: str, finished: Any, cache: Path) -> None:
    _, task, _ = finished
    other = prepare_task(tiny(method=method, training__max_steps=20), cache)
    ours, theirs = build_model(task.config, task.model_config), build_model(other.config, other.model_config)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    short, long = task.training_data(9), other.training_data(20)
    assert all((short[i]["tokens"] == long[i]["tokens"]).all() for i in range(len(short)))


def test_another_seed_gives_another_start_and_order(finished: Any, cache: Path) -> None:
    _, task, _ = finished
    other = prepare_task(tiny(seed=1), cache)
    ours, theirs = build_model(task.config, task.model_config), build_model(other.config, other.model_config)
    assert not all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert task.training_data(9)[0]["index"] != other.training_data(9)[0]["index"]
    assert task.validation_data()["validation"][0]["index"] == other.validation_data()["validation"][0]["index"]


def test_number_of_data_workers_changes_nothing(finished: Any, tmp_path: Path, cache: Path) -> None:
    folder, _, _ = finished
    run(tiny(training__dataloader_num_workers=2), tmp_path / "run", cache)
    assert [r["loss"] for r in metrics(tmp_path / "run", "train")] == [r["loss"] for r in metrics(folder, "train")]


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("gpt2", {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 16}),
        (
            "bert",
            {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "max_position_embeddings": 16,
            },
        ),
    ],
)
def test_gpt2_and_masked_bert_learn(architecture: str, config: dict[str, int], tmp_path: Path, cache: Path) -> None:
    objective = "masked" if architecture == "bert" else "causal"
    changed = tiny(
        model={"architecture": architecture, "config": config}, objective__name=objective, training__max_steps=30
    )
    _, result = run(changed, tmp_path / "run", cache)
    assert result["eval_loss"] < metrics(tmp_path / "run", "eval")[0]["eval_loss"] - 0.2


def test_masked_validation_is_the_same_for_every_seed(cache: Path) -> None:
    bert = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    batches = []
    for seed in (0, 1):
        config = tiny(seed=seed, model={"architecture": "bert", "config": bert}, objective__name="masked")
        task = prepare_task(config, cache)
        items = [task.validation_data()["validation"][i] for i in range(4)]
        batches.append((task.collator(validation=True)(items), task.collator()(items)))
    assert torch.equal(batches[0][0]["input_ids"], batches[1][0]["input_ids"])
    assert not torch.equal(batches[0][1]["input_ids"], batches[1][1]["input_ids"]), "training masks follow the seed"


BERT = {
    "architecture": "bert",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
GPT2 = {
    "architecture": "gpt2",
    "config": {
        "n_embd": 16,
        "n_layer": 4,
        "n_head": 2,
        "n_positions": 16,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}


@pytest.mark.parametrize("model", [None, GPT2, BERT], ids=["llama", "gpt2", "masked bert"])
def test_accumulated_micro_batches_are_one_batch(model: Any, tmp_path: Path, cache: Path) -> None:
    changes: dict[str, Any] = {} if model is None else {"model": model}
    changes["objective__name"] = "masked" if model is BERT else "causal"
    lines, weights = [], []
    for name, batch, micro in (("whole", 4, 1), ("parts", 1, 4)):
        config = tiny(
            training__per_device_train_batch_size=batch,
            training__gradient_accumulation_steps=micro,
            training__optim="sgd",  # Adam would hide a wrong scale of the gradients
            **changes,
        )
        task, _ = run(config, tmp_path / name, cache)
        assert task.batch == 4
        lines.append(metrics(tmp_path / name, "train"))
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    for key in ("loss", "grad_norm", "tokens", "total_flops"):
        whole, parts = ([line[key] for line in each] for each in lines)
        assert parts == pytest.approx(whole, rel=1e-4), key
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_diverged_run_says_so_and_its_files_stay_readable(tmp_path: Path, cache: Path) -> None:
    config = tiny(training__learning_rate=1e30, training__max_grad_norm=0.0, training__warmup_steps=0)
    _, result = run(config, tmp_path / "run", cache)
    assert math.isnan(result["eval_loss"])
    losses = [line["loss"] for line in metrics(tmp_path / "run", "train")]
    assert losses[0] > 0
    assert losses[-1] is None, "not 0, and not the mean of the losses that were finite"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["eval_loss"] is None
    assert write_report(tmp_path / "run").exists()


def test_bernoulli_paths_are_trained_and_counted(tmp_path: Path, cache: Path) -> None:
    config = tiny(methods__raptr={"schedule": "2-3-4", "sampler": "bernoulli", "fixed": [0]}, training__max_steps=30)
    task, result = run(config, tmp_path / "run", cache)
    lines = metrics(tmp_path / "run", "train")
    assert len({len(line["layers"][0]) for line in lines if line["stage"] == 0}) > 1, "sizes vary within a stage"
    counted = sum(task.costs.layers[0][layer] for line in lines for layer in line["layers"][0])
    assert result["layer_flops"] == pytest.approx(counted)


def test_finished_run_on_other_data_is_not_taken_for_this_one(tmp_path: Path, cache: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of the first text\n" for i in range(3000)))
    config = tiny(data__source=str(text), data__tokenizer=280)
    run(config, tmp_path / "run", cache)
    before = contents(tmp_path / "run")
    run(config, tmp_path / "run", cache)
    text.write_text(text.read_text() + "and one line more\n")
    with pytest.raises(RaptrError, match=r"holds another run \(data: "):
        run(config, tmp_path / "run", cache)
    assert contents(tmp_path / "run") == before


def test_epochs_make_steps(cache: Path) -> None:
    config = tiny(training={"num_train_epochs": 0.5, "per_device_train_batch_size": 4})
    task = prepare_task(config, cache)
    assert abs(task.steps - 0.5 * len(task.training) / 4) <= 1


def test_tensorboard_gets_the_totals(tmp_path: Path, cache: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tiny(training__report_to="tensorboard"), tmp_path / "run", cache)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    flops = [event.value for event in events.Scalars("train/total_flops")]
    lines = metrics(tmp_path / "run", "train")
    assert flops == pytest.approx([line["total_flops"] for line in lines], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__learning_rat": 1}, r"learning_rat .*did you mean learning_rate"),
        ({"training__learning_rate": "fast"}, r"training.learning_rate is 'fast'; expected"),
        ({"training__learning_rate": -1.0}, r"training.learning_rate is -1.0; expected at least 0"),
        ({"training__learning_rate": float("nan")}, r"training.learning_rate is nan"),
        ({"training__num_train_epochs": float("nan")}, r"training.num_train_epochs is nan"),
        ({"training__seed": 3}, r"training.seed is set by raptr"),
        ({"training__torch_compile_backend": "eager"}, r"compiles each layer by itself"),
        ({"training__label_smoothing_factor": 0.1}, r"label_smoothing_factor is set by raptr"),
        ({"training__eval_delay": 4}, r"validated throughout"),
        ({"training__ignore_data_skip": True}, r"ignore_data_skip is set by raptr.*same data again"),
        ({"training__dataloader_drop_last": True}, r"dataloader_drop_last is set by raptr.*of fewer sequences"),
        ({"training__dataloader_in_order": False}, r"dataloader_in_order is set by raptr.*order of the data"),
        ({"training__enable_jit_checkpoint": True}, r"enable_jit_checkpoint is set by raptr.*SIGTERM"),
        ({"training__restore_callback_states_from_checkpoint": True}, r"is set by raptr.*its own state"),
        ({"training__label_names": ["x"]}, r"label_names is set by raptr"),
        ({"training__fp16_full_eval": True}, r"fp16_full_eval is set by raptr.*precision it is trained in"),
        ({"training__optim": "galore_adamw_layerwise"}, r"galore_adamw_layerwise.*during the backward pass"),
        ({"training__optim": "adalomo"}, r"adalomo.*during the backward pass"),
        ({"training__lr_scheduler_type": "zigzag"}, r"zigzag"),
        ({"training": {"per_device_train_batch_size": 4}}, r"training.max_steps or training.num_train_epochs"),
        ({"model__architecture": "lama"}, r"'lama' is not a model type .*did you mean .*llama"),
        ({"model__config__hidden_sise": 1}, r"hidden_sise is not a setting of llama; did you mean .*hidden_size"),
        ({"model__config__num_attention_heads": 3}, r"model.config"),
        ({"model__config__vocab_size": 100}, r"vocab_size is 100, but the tokenizer has 320 tokens"),
        ({"model__config__max_position_embeddings": 8}, r"sequence_length is 16, but .* positions for 8"),
        ({"objective__name": "masked"}, r"llama has no masked-language model"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str, cache: Path) -> None:
    with pytest.raises(RaptrError, match=message):
        prepare_task(tiny(**changes), cache)


def test_several_gpus_in_one_process_are_refused_with_how_to_start(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(RaptrError, match=r"2 GPUs are there.*torchrun --nproc_per_node 2"):
        prepare_task(tiny(), cache)


def test_tokenizer_of_the_run_is_kept_with_the_model(finished: Any) -> None:
    folder, task, _ = finished
    text = "def f(x):\n    return x  # ä\n"
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer(text)["input_ids"] == task.store.tokenizer(text)["input_ids"]


def test_a_comparison_of_the_same_name_is_told_apart_from_a_run(tmp_path: Path, cache: Path) -> None:
    """`raptr train my.yaml` and `raptr compare my.yaml` would both write to runs/my."""
    claim_folder(tmp_path / "my", "budget: flops\n", "comparison.yaml")
    with pytest.raises(RaptrError, match=r"my holds a comparison and is not a run .* or another name="):
        run(tiny(), tmp_path / "my", cache)
    with pytest.raises(RaptrError, match="holds another comparison: it has nothing where this one has 'sweep:'"):
        claim_folder(tmp_path / "my", "budget: flops\nsweep:\n", "comparison.yaml")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.yaml").write_text("name: one\n")
    with pytest.raises(RaptrError, match="one holds a run and is not a comparison"):
        claim_folder(tmp_path / "one", "budget: flops\n", "comparison.yaml")
