"""The full model is tried before the first step: what does not fit shows at once, and nothing else changes."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import raptr
from helpers.runs import contents, metrics, run, timeless, tiny
from raptr.errors import RaptrError
from raptr.train import engine
from raptr.train.hf.trainer import RunTrainer
from raptr.train.setup.model import build_model
from raptr.train.task import prepare_task

GPT2 = {
    "architecture": "gpt2",
    "config": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 16, "resid_pdrop": 0.2, "attn_pdrop": 0.2},
}


@pytest.mark.slow
def test_a_run_that_tried_the_full_model_is_the_same_run(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    made = RunTrainer.try_full

    def watched(self: RunTrainer, samples: Any) -> None:
        made(self, samples)
        tried.append((self.state.global_step, list(samples)))

    monkeypatch.setattr(RunTrainer, "try_full", watched)
    for name, changes in (("plain", {}), ("probed", {"training__probe_memory": True})):
        run(tiny(model=GPT2, **changes), tmp_path / name, cache)
    assert tried == [(0, [0, 1, 2, 3])], "on the CPU it is not tried unless it is asked for"
    for kind in ("train", "eval"):
        ours, theirs = (timeless(metrics(tmp_path / name, kind)) for name in ("probed", "plain"))
        assert ours == theirs
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("probed", "plain")]
    assert weights[0] == weights[1], "the model has dropout: the random state matters"


@pytest.mark.slow
def test_what_does_not_fit_is_told_before_the_first_step(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(block: Any, hidden: Any) -> None:
        if block.training and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    def build(*args: Any) -> Any:
        model = build_model(*args)
        model.model.layers[1].register_forward_pre_hook(too_large)
        return model

    monkeypatch.setattr(engine, "build_model", build)
    changes: dict[str, Any] = {"methods__raptr": {"schedule": "2-4"}}  # layers 0 and 3 first
    with pytest.raises(RaptrError, match=r"Tried to allocate 2.00 GiB\. The last stage .*per_device_train_batch_size"):
        run(tiny(**changes, training__probe_memory=True), tmp_path / "probed", cache)
    assert not (tmp_path / "probed").exists(), "with another batch it is another run"
    with pytest.raises(torch.OutOfMemoryError):
        run(tiny(**changes), tmp_path / "plain", cache)
    assert len(metrics(tmp_path / "plain", "train")) == 5, "the control: it showed when half of the run was done"


class Chain(nn.Module):
    """Layers, one after the other."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


def test_a_trial_leaves_nothing_behind() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return nn.functional.dropout(self.linear(hidden), 0.5) + random.random() + np.random.rand()

    blocks = nn.ModuleList([Block(), Block(), Block()])
    model = Chain(blocks)
    net = raptr.attach(model, blocks=blocks)
    plan = raptr.RaPTr("2-3", seed=1).plan(net.shape, 4)
    active = net.activate(plan, 0)
    hidden = torch.ones(2, 4)
    model(hidden).sum().backward()
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    seen = [block.seen.item() for block in blocks]
    torch.manual_seed(0)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(0)
    states = random.getstate(), np.random.get_state()
    with net.trial():
        model(hidden).sum().backward()
        assert all(p.grad is not None for p in model.parameters()), "all layers ran"
        assert [block.seen.item() for block in blocks] == [value + 1 for value in seen]
    assert random.getstate() == states[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state()[1:2], states[1][1:2], strict=True))
    assert torch.equal(torch.rand(1), expected[0])
    for p, gradient in zip(model.parameters(), before, strict=True):
        assert (p.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(p.grad, gradient)
    assert [block.seen.item() for block in blocks] == seen
    assert net.subnetwork == active
    with pytest.raises(RuntimeError, match="another error"), net.trial():
        raise RuntimeError("another error")


@pytest.mark.slow
def test_the_dearest_denoiser_is_tried(cache: Path) -> None:
    t5 = {"architecture": "t5", "config": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2}}
    denoising = {"name": "denoising", "denoisers": {"R3": 0.25, "S": 0.25, "X3": 0.25, "X8": 0.25}}
    task = prepare_task(tiny(model=t5, objective=denoising, data__sequence_length=48), cache)
    data = task.training_data(task.steps)
    kinds = {data[sample]["kind"] for sample in task.dearest(4)}
    seen = {data[sample]["kind"] for sample in range(len(data))}
    assert len(kinds) == 1
    assert len({task.denoiser_costs[kind].total for kind in seen}) > 1, "the check needs different costs"
    assert task.denoiser_costs[kinds.pop()].total == max(task.denoiser_costs[kind].total for kind in seen)


@pytest.mark.slow
def test_speed_is_that_of_what_really_ran(tmp_path: Path, cache: Path) -> None:
    task, _ = run(tiny(training__peak_flops=1e3), tmp_path / "run", cache)
    lines = metrics(tmp_path / "run", "train")
    done = 0.0
    ratios = set()
    for line in lines:
        flops, done = line["total_flops"] - done, line["total_flops"]
        per_token = flops / (task.batch * 16)
        assert line["mfu"] * 1e3 / line["tokens_per_second"] == pytest.approx(per_token, rel=1e-3)
        ratios.add(round(per_token))
    assert len(ratios) > 1, "stages differ in what a token costs"
    run(tiny(), tmp_path / "unknown", cache)
    assert all("mfu" not in line and line["tokens_per_second"] > 0 for line in metrics(tmp_path / "unknown", "train"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("peak_flops", 0, "above 0|FLOPs per second"),
        ("peak_flops", "fast", "training.peak_flops is 'fast'"),
        ("probe_memory", 3, "training.probe_memory is 3"),
    ],
)
def test_raptrs_own_settings_are_checked(name: str, value: Any, message: str, cache: Path) -> None:
    with pytest.raises(RaptrError, match=message):
        prepare_task(tiny(**{f"training__{name}": value}), cache)


@pytest.mark.slow
def test_layers_are_compiled_one_by_one(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = torch.compile

    def traced(function: Any, *args: Any, **options: Any) -> Any:
        compiled.append(function)
        return original(function, *args, **{"backend": "aot_eager"} | options)

    monkeypatch.setattr(torch, "compile", traced)
    run(tiny(training__torch_compile=True), tmp_path / "compiled", cache)
    assert len(compiled) == 4, "each of the layers, not the model"
    run(tiny(), tmp_path / "eager", cache)
    ours, theirs = ([line["loss"] for line in metrics(tmp_path / name, "train")] for name in ("compiled", "eager"))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert set(contents(tmp_path / "compiled")) == set(contents(tmp_path / "eager"))
