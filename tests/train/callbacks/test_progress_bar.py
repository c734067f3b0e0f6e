"""The progress of a run: what it says, and the time it predicts."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from helpers.runs import run_of, tiny
from raptr.plan import LayerCosts, ModelShape
from raptr.train.engine import callbacks_of, train
from raptr.train.task import prepare_task

SHAPE = ModelShape.of(layers=4)


def test_time_left_knows_that_later_stages_are_dearer(tmp_path: Path, cache: Path) -> None:
    task = prepare_task(tiny(methods__raptr={"schedule": "2-4"}, training__max_steps=20), cache)
    run = run_of(replace(task, costs=LayerCosts.uniform(SHAPE)), tmp_path / "run")
    callbacks = callbacks_of(run)
    bar, progress = callbacks.bar, callbacks.metrics.progress
    assert bar.seconds_left() is None, "nothing is known before the first step"
    progress.seconds, progress.total_flops = 10.0, 10 * 2.0
    assert bar.seconds_left() == pytest.approx(20.0), "half of the steps, but a third of the work"


@pytest.mark.slow
def test_lines_without_a_terminal_say_stage_path_and_losses(tmp_path: Path, cache: Path) -> None:
    printed = io.StringIO()
    train(prepare_task(tiny(), cache), tmp_path / "run", console=Console(file=printed, width=200), title="mine")
    lines = printed.getvalue().splitlines()
    assert lines[0].startswith("mine: step 3/9, stage 1/3, 2 of 4 layers, loss ")
    assert "validation " in lines[0]
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("mine: 9 steps in 0:00:")


@pytest.mark.slow
def test_terminal_gets_a_bar_and_one_line_at_the_end(tmp_path: Path, cache: Path) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=120, force_terminal=True)
    train(prepare_task(tiny(), cache), tmp_path / "run", console=console, title="mine")
    assert "stage 3/3, 4 of 4 layers" in printed.getvalue()
    assert "mine: 9 steps in" in printed.getvalue().rstrip().splitlines()[-1]
