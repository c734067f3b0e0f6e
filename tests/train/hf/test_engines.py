"""`raptr train` on two ranks, with DDP and FSDP2: what one process trains at the same global batch; one rank writes."""

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
from helpers.engine_runs import RUNS, changes_of, train_on_two_ranks
from helpers.runs import contents, metrics, run, run_of, timeless, tiny
from raptr.compare import compare
from raptr.errors import RaptrError
from raptr.train.engine import callbacks_of, make_trainer
from raptr.train.ranks import engine_of
from raptr.train.task import prepare_task

pytestmark = pytest.mark.slow

ENGINES = {
    "ddp": ["causal", "causal with growth", "masked", "denoising"],
    "fsdp2": ["causal", "causal with growth", "masked modernbert", "packed denoising"],
}
"""What each engine trains. Each objective is trained by both; FSDP2 refuses the models that DDP trains."""
REFUSED = ("masked", "denoising")


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
    names = [*ENGINES[request.param], *(REFUSED if request.param == "fsdp2" else ())]
    jobs: dict[str, Any] = {name: {"changes": changes_of(name, request.param)} for name in names}
    drawn = changes_of("causal", request.param) | {"methods__raptr": {"schedule": "2-3-4", "fixed": []}}
    jobs["another draw"] = {"changes": drawn, "drift": True}
    jobs["another seed"] = {"changes": drawn, "other": {"seed": 1}}
    return request.param, folder, train_on_two_ranks(folder, request.param, cache, jobs)


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
    seen = train_on_two_ranks(tmp_path, engine, cache, jobs)
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
