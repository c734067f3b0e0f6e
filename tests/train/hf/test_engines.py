"""`raptr train` on two ranks, with DDP and FSDP2: what one process trains at the same global batch; one rank writes."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import raptr
from helpers.runs import contents, metrics, run, run_of, timeless, tiny
from model.test_distributed import launch
from raptr.compare import compare
from raptr.errors import RaptrError
from raptr.train.engine import callbacks_of, make_trainer
from raptr.train.ranks import engine_of
from raptr.train.task import prepare_task

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("engine_worker.py")
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
BERT = {
    "architecture": "bert",
    "config": {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 16},
}
T5 = {
    "architecture": "t5",
    "config": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2, "dropout_rate": 0.0},
}
DENOISING = {"name": "denoising", "denoisers": {"R3": 0.25, "S": 0.25, "X3": 0.25, "X8": 0.25}}
RUNS: dict[str, dict[str, Any]] = {
    "causal": {"training__gradient_accumulation_steps": 2, "evaluation__sequences": 7},
    "causal with growth": {"method": "gradual_stacking", "methods": {"gradual_stacking": {"schedule": "2-4"}}},
    "masked": {"model": BERT, "objective": {"name": "masked"}, "training__per_device_eval_batch_size": 1},
    "masked modernbert": {
        "model": {"architecture": "modernbert", "config": SIZES},
        "objective": {"name": "masked"},
        "training__per_device_eval_batch_size": 1,
    },
    "denoising": {"model": T5, "objective": DENOISING, "data__sequence_length": 48, "evaluation__sequences": 6},
    "packed denoising": {
        "objective": DENOISING,
        "data__sequence_length": 48,
        "training__gradient_accumulation_steps": 2,
    },
}
ENGINES = {"ddp": list(RUNS), "fsdp2": [name for name in RUNS if name not in ("masked", "denoising")]}


def changes_of(name: str, engine: str) -> dict[str, Any]:
    """The same global batch: two sequences on each of two ranks, or four in one process."""
    changes = copy.deepcopy(RUNS[name]) | {"training__max_steps": 6}
    changes["training__per_device_train_batch_size"] = 4 if engine == "single" else 2
    if engine == "fsdp2":
        changes["training__fsdp"] = True
    return changes


def started(folder: Path, engine: str, cache: Path, jobs: dict[str, Any]) -> dict[str, Any]:
    """What each of two ranks has seen of each run."""
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "jobs.json"
    told.write_text(json.dumps({"cache": str(cache), "runs": jobs}))
    return launch(engine, folder / "out.json", WORKER, str(told))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The runs in one process."""
    folder = tmp_path_factory.mktemp("single")
    for name in RUNS:
        run(tiny(**changes_of(name, "single")), folder / name, cache)
    return folder


@pytest.fixture(scope="module", params=ENGINES)
def ranks(
    request: pytest.FixtureRequest, single: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> tuple[str, Path, dict[str, Any]]:
    """The same on two ranks: the engine, the folder of the runs, what the ranks have seen."""
    folder = tmp_path_factory.mktemp(request.param)
    jobs = {name: {"changes": changes_of(name, request.param)} for name in RUNS}
    drawn = changes_of("causal", request.param) | {"methods__raptr": {"schedule": "2-3-4", "fixed": []}}
    jobs["another draw"] = {"changes": drawn, "drift": True}
    jobs["another seed"] = {"changes": drawn, "other": {"seed": 1}}
    return request.param, folder, started(folder, request.param, cache, jobs)


def test_two_ranks_train_what_one_process_trains(ranks: tuple[str, Path, Any], single: Path) -> None:
    engine, folder, seen = ranks
    for name in ENGINES[engine]:
        assert "refused" not in seen[name][0], seen[name][0]
        for kind, keys in (("train", ("loss", "grad_norm")), ("eval", ("eval_loss",))):
            ours, theirs = metrics(folder / name, kind), metrics(single / name, kind)
            assert len(ours) == len(theirs) > 1
            for key in keys:
                expected = pytest.approx([line[key] for line in theirs], rel=1e-4)
                assert [line[key] for line in ours] == expected, (name, key)
            for key in ("step", "stage", "tokens", "layer_flops", "total_flops", "layers", "learning_rate"):
                assert [line.get(key) for line in ours] == [line.get(key) for line in theirs], (name, key)
        weights = [load_file(each / name / "model" / "model.safetensors") for each in (folder, single)]
        assert weights[0].keys() == weights[1].keys()
        for key, value in weights[1].items():
            assert weights[0][key].flatten().tolist() == pytest.approx(value.flatten().tolist(), rel=1e-3, abs=2e-5), (
                name,
                key,
            )


def test_the_blocks_are_what_the_engine_makes_of_them(ranks: tuple[str, Path, Any]) -> None:
    engine, _, seen = ranks
    for name in ENGINES[engine]:
        for rank in seen[name]:
            assert set(rank["sharded"]) == {engine == "fsdp2"}, name


def test_one_rank_writes_and_says_how_many_there_were(ranks: tuple[str, Path, Any], single: Path) -> None:
    engine, folder, seen = ranks
    for name in ENGINES[engine]:
        assert set(contents(folder / name)) == set(contents(single / name))
        environment = json.loads((folder / name / "run.json").read_text())["environment"]
        assert (environment["processes"], environment["engine"]) == (2, engine)
        one, other = (rank["result"] for rank in seen[name])
        assert one == other == json.loads((folder / name / "result.json").read_text())
    environment = json.loads((single / name / "run.json").read_text())["environment"]
    assert (environment["processes"], environment["engine"]) == (1, "single")


def test_the_model_is_an_ordinary_one(ranks: tuple[str, Path, Any]) -> None:
    _, folder, _ = ranks
    model = AutoModelForCausalLM.from_pretrained(folder / "causal" / "model")
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.use_cache


def test_a_rank_that_would_train_something_else_stops_all_before_the_first_step(ranks: tuple[str, Path, Any]) -> None:
    _, folder, seen = ranks
    said = {name: [rank["refused"] for rank in seen[name]] for name in ("another draw", "another seed")}
    for one, other in said.values():
        assert one == other
    assert "step 0, layers of 'model.layers' differs" in said["another draw"][0]
    assert not metrics(folder / "another draw", "train")
    assert "rank 1 has 'seed: 1' where rank 0 has 'seed: 0'" in said["another seed"][0]
    assert not (folder / "another seed").exists()


def test_models_that_accelerate_cannot_shard_are_refused(ranks: tuple[str, Path, Any]) -> None:
    engine, _, seen = ranks
    if engine == "ddp":
        return
    for name, parameter in (("masked", "cls.predictions.bias"), ("denoising", "encoder.embed_tokens.weight")):
        for rank in seen[name]:
            assert parameter in rank["refused"]
            assert "Train it with DDP" in rank["refused"]


@pytest.mark.parametrize("engine", ENGINES)
def test_stopped_runs_go_on_exactly_and_others_are_refused(engine: str, tmp_path: Path, cache: Path) -> None:
    changes = changes_of("causal", engine) | {"checkpoints__every": 2}
    growth = changes_of("causal with growth", engine) | {"checkpoints__every": 2}
    jobs: dict[str, Any] = {
        "whole": {"changes": changes},
        "stopped": {"changes": changes, "stop_after": 4},
    }
    if engine == "fsdp2":  # under DDP parameters and optimizer state are those of one process: see test_methods.py
        jobs |= {"growth": {"changes": growth}, "stopped growth": {"changes": growth, "stop_after": 2}}
        sharded = changes | {"training__fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}
        jobs["stopped shards"] = {"changes": sharded, "stop_after": 2}
    seen = started(tmp_path, engine, cache, jobs)
    for name in jobs:
        assert "refused" not in seen[name][0], seen[name][0]
        whole = tmp_path / ("growth" if "growth" in name else "whole")
        for kind in ("train", "eval"):
            assert timeless(metrics(tmp_path / name, kind)) == timeless(metrics(whole, kind)), name
        ours, theirs = (load_file(each / "model" / "model.safetensors") for each in (tmp_path / name, whole))
        assert all((ours[key] == theirs[key]).all() for key in theirs), name
    with pytest.raises(RaptrError, match=r"processes: 2 -> 1"):
        run(tiny(**changes), tmp_path / "whole", cache)


def test_torchrun_starts_the_command_and_one_process_speaks(tmp_path: Path, cache: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(tiny(**changes_of("causal", "ddp")).model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "raptr", "train", str(config), "--output", str(tmp_path / "run"), "--cache", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"report: {tmp_path / 'run' / 'report.html'}") == 1
    assert done.stdout.count("model: ") == 1
    assert done.stderr.count("6 steps in") == 1
    environment_of_run = json.loads((tmp_path / "run" / "run.json").read_text())["environment"]
    assert (environment_of_run["processes"], environment_of_run["engine"]) == (2, "ddp")


def small_llama() -> LlamaForCausalLM:
    """Four layers, of no particular kind."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 32}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=4, use_cache=False))


def test_processes_that_would_train_alone_are_refused(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RaptrError, match="2 processes were started, but Accelerate sees 1"):
        prepare_task(tiny(training__use_cpu=False), cache)
    callback, model = raptr.ProgressiveCallback(raptr.RaPTr("2-4")), small_llama()
    with pytest.raises(RaptrError, match="2 processes were started, but the Trainer sees one"):
        callback.on_train_begin(
            TrainingArguments(report_to="none"), TrainerState(max_steps=4), TrainerControl(), model=model
        )


def test_a_comparison_is_not_started_by_torchrun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RaptrError, match="2 were started"):
        compare(
            tiny(),
            methods=["full", "raptr"],
            seeds=1,
            budget="flops",
            folder=tmp_path / "run",
            cache=cache,
            console=Console(quiet=True),
        )
    assert not (tmp_path / "run").exists()


def test_fsdp_without_an_accelerator_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    task = prepare_task(tiny(), cache)
    run = run_of(task, tmp_path / "run")
    trainer = make_trainer(run, callbacks_of(run), resumes=False)
    assert engine_of(trainer) == "single"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RaptrError, match="without saying so"):
        engine_of(trainer)
