"""Losses and gradients that are no numbers: the update is not made, it is counted, and too many end the run."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rich.console import Console
from transformers import TrainerControl, TrainerState

from helpers.runs import contents, metrics, run, run_of, tiny
from raptr.compare import compare
from raptr.train.callbacks.nonfinite import Diverged, FiniteCallback
from raptr.train.hf.trainer import RunTrainer
from raptr.train.task import prepare_task

pytestmark = pytest.mark.slow


def broken(monkeypatch: pytest.MonkeyPatch, steps: set[int], what: str) -> list[dict[str, torch.Tensor]]:
    """Let the loss or the gradients of some steps be no number; and give the weights before every step."""
    seen: list[dict[str, torch.Tensor]] = []
    training_step = transformers.Trainer.training_step

    def step(self: RunTrainer, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        loss = training_step(self, model, *args, **kwargs)
        if self.state.global_step in steps:
            if what == "loss":
                return loss * math.inf
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(math.nan)
        return loss

    monkeypatch.setattr(transformers.Trainer, "training_step", step)
    return seen


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("changes", [{}, {"methods__raptr__inactive": "zero"}, {"training__max_grad_norm": 0.0}])
def test_such_an_update_is_not_made_and_is_counted(
    what: str, changes: dict[str, Any], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = broken(monkeypatch, {3, 4, 7}, what)
    _, result = run(tiny(**changes), tmp_path / "run", cache)
    lines = metrics(tmp_path / "run", "train")
    assert [line.get("skipped_updates", 0) for line in lines] == [0, 0, 0, 1, 2, 2, 2, 3, 3]
    assert [line["loss" if what == "loss" else "grad_norm"] is None for line in lines] == [
        step in (3, 4, 7) for step in range(9)
    ]
    for step in range(1, 8):  # step 0 has a learning rate of 0
        same = all(torch.equal(before[step][name], before[step + 1][name]) for name in before[0])
        assert same == (step in (3, 4, 7)), step
    assert math.isfinite(result["eval_loss"])


def test_the_optimizer_remembers_nothing_of_it(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = []
    step_end = FiniteCallback.on_step_end

    def seen(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = kwargs["optimizer"].state_dict()["state"]
        states.append(
            {key: {name: torch.as_tensor(v).clone() for name, v in one.items()} for key, one in found.items()}
        )
        step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(FiniteCallback, "on_step_end", seen)
    broken(monkeypatch, {4}, "loss")
    run(tiny(method="full"), tmp_path / "run", cache)

    def same(a: Any, b: Any) -> bool:
        return all(torch.equal(one[name], b[key][name]) for key, one in a.items() for name in one)

    assert same(states[3], states[4])
    assert not same(states[4], states[5])  # control


def test_too_many_in_a_row_end_the_run_and_leave_its_checkpoint(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, {1, 5, 6, 7}, "gradient")
    config = tiny(stability__max_skipped_updates=3, checkpoints__every=2)
    with pytest.raises(Diverged, match=r"3 updates in a row .* step 8, in stage 3 of 3, with the layers 0, 1, 2, 3\."):
        run(config, tmp_path / "run", cache)
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-6"
    assert json.loads((checkpoint / "raptr.json").read_text())["metrics"]["skipped"] == {"total": 2, "in_a_row": 1}
    assert not (tmp_path / "run" / "result.json").exists()
    monkeypatch.undo()  # what was wrong is mended: the same command goes on
    _, result = run(config, tmp_path / "run", cache)
    assert math.isfinite(result["eval_loss"])
    assert metrics(tmp_path / "run", "train")[-1]["skipped_updates"] == 2


def test_a_comparison_goes_on_without_what_diverged(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_step = transformers.Trainer.training_step

    def step(self: RunTrainer, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = training_step(self, model, *args, **kwargs)
        broke = self.state.max_steps != 9 and self.state.global_step >= 4  # RaPTr's, which are more
        return loss * math.nan if broke else loss

    monkeypatch.setattr(transformers.Trainer, "training_step", step)

    def go() -> Any:
        return compare(
            tiny(stability__max_skipped_updates=2),
            methods=["full", "raptr"],
            seeds=1,
            budget="flops",
            folder=tmp_path / "comparison",
            cache=cache,
            console=Console(quiet=True),
        )

    summary = go()
    assert summary["methods"]["raptr"]["verdict"] == "diverged"
    assert math.isfinite(summary["methods"]["full"]["mean"])
    last = metrics(tmp_path / "comparison" / "raptr-seed0", "train")[-1]
    assert (last["step"], last["skipped_updates"]) == (5, 1), "and the next one ended it"
    result = json.loads((tmp_path / "comparison" / "raptr-seed0" / "result.json").read_text())
    other = json.loads((tmp_path / "comparison" / "full-seed0" / "result.json").read_text())
    assert (result["steps"], result["skipped_updates"], result["diverged"]) == (6, 2, True)
    assert result["epochs"] / other["epochs"] == pytest.approx(6 / 9)
    assert result["tokens"] / other["tokens"] == pytest.approx(6 / 9), "the steps that its FLOPs are of, too"
    assert (other["steps"], other["skipped_updates"], "diverged" in other) == (9, 0, False)
    steps = json.loads((tmp_path / "comparison" / "raptr-seed0" / "run.json").read_text())["steps"]
    assert summary["warnings"] == [
        "RaPTr 2-3-4, seed 0: 2 of 6 updates were not made (loss or gradient norm not finite); "
        f"it diverged, and ended before {steps}."
    ]
    before = contents(tmp_path / "comparison")
    assert go() == summary
    assert contents(tmp_path / "comparison") == before, "it is finished, and not trained again"


def test_what_a_gradient_scaler_leaves_out_is_counted(tmp_path: Path, cache: Path) -> None:
    """In fp16 the scaler does not call the optimizer where gradients are not finite; the next good update is made."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    task = prepare_task(tiny(training__max_steps=50, stability__max_skipped_updates=3), cache)
    finite = FiniteCallback(run_of(task, tmp_path / "run"))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    state, nothing = TrainerState(), TrainerControl()
    finite.on_train_begin(None, state, nothing, optimizer=optimizer)

    def step(value: float) -> bool:
        """Whether the weights have moved."""
        before = weight.detach().clone()
        loss = (weight * value).sum()
        scaler.scale(loss).backward()
        finite.saw_loss(loss)
        scaler.unscale_(optimizer)
        finite.saw_norm(torch.nn.utils.clip_grad_norm_([weight], 1.0))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        state.global_step += 1
        finite.on_step_end(None, state, nothing)
        return not torch.equal(before, weight)

    assert [step(value) for value in (1.0, math.nan, math.inf, 1.0, math.nan)] == [True, False, False, True, False]
    assert finite.snapshot() == {"total": 3, "in_a_row": 1}
    assert not step(math.nan)
    with pytest.raises(Diverged, match="3 updates in a row"):
        step(math.nan)


def test_jumps_at_boundaries_are_recorded(tmp_path: Path, cache: Path) -> None:
    run(tiny(), tmp_path / "run", cache)
    losses = [line["loss"] for line in metrics(tmp_path / "run", "train")]
    found = metrics(tmp_path / "run", "boundary")
    assert [(one["step"], one["stage"], one["window"]) for one in found] == [(3, 1, 3), (6, 2, 3)]
    assert found[0]["jump"] == pytest.approx(sum(losses[3:6]) / 3 - sum(losses[:3]) / 3)
