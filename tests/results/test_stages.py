"""A run by stage: jumps at boundaries, and the clock."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.synthetic_runs import write_run
from raptr.plan.schedule import stage_at
from raptr.results.boundaries import boundaries
from raptr.results.run_files import Run, read_run
from raptr.results.speed import speeds
from raptr.train.callbacks.boundary import Boundaries


def lines(run: Run, kind: str) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [one for one in found if one["kind"] == kind]


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [read_run(write_run(tmp_path / str(seed), steps=400, seed=seed)) for seed in range(3)]


def test_jumps_by_hand(runs: list[Run]) -> None:
    found = boundaries(runs)
    assert [(one.step, one.before.sizes, one.after.sizes, one.window) for one in found] == [
        (100, (6,), (8,), 10),
        (200, (8,), (10,), 10),
        (300, (10,), (12,), 10),
    ]
    jumps = []
    for run in runs:
        loss = {int(one["step"]): one["loss"] for one in lines(run, "train")}
        after, before = [loss[step] for step in range(101, 111)], [loss[step] for step in range(91, 101)]
        jumps.append(sum(after) / 10 - sum(before) / 10)
    assert found[0].jump == pytest.approx(sum(jumps) / 3)
    assert found[0].interval is not None
    half = 4.302653 * float(np.std(jumps, ddof=1)) / 3**0.5
    assert found[0].interval == pytest.approx((sum(jumps) / 3 - half, sum(jumps) / 3 + half))
    evals = [{int(one["step"]): one["eval_loss"] for one in lines(run, "eval")} for run in runs]
    assert found[0].evaluated == (90, 105)
    assert found[0].validation == pytest.approx([sum(one[step] for one in evals) / 3 for step in (90, 105)])


def test_a_loss_that_jumps_is_measured_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    calm, wild = (read_run(write_run(tmp_path / str(jump), steps=400, jump=jump)) for jump in (0.0, 2.0))
    for quiet, loud in zip(boundaries([calm]), boundaries([wild]), strict=True):
        assert quiet.jump is not None
        assert loud.jump is not None
        # the mean of 2 exp(-k / 5) over the ten steps of the window
        assert loud.jump - quiet.jump == pytest.approx(2 * sum(np.exp(-k / 5) for k in range(10)) / 10)
        assert quiet.interval is None


def test_a_window_that_was_not_recorded_whole_has_no_jump(runs: list[Run]) -> None:
    """One line less in one seed: of step 101, the first after the first boundary; the others are as they were."""
    whole = boundaries(runs)
    path = runs[1].folder / "metrics.jsonl"
    kept = [line for line in path.read_text().splitlines() if '"kind": "train", "step": 101,' not in line]
    path.write_text("".join(f"{line}\n" for line in kept))
    first, *others = boundaries([runs[0], read_run(runs[1].folder), runs[2]])
    assert (first.jump, first.interval) == (None, None)
    assert first.validation == whole[0].validation
    assert [one.jump for one in others] == [one.jump for one in whole[1:]]
    short = boundaries([read_run(write_run(runs[0].folder / "short", steps=400, done=105))])
    assert [one.jump for one in short] == [None], "five steps of ten"


def test_boundaries_that_were_not_passed_are_not_told(tmp_path: Path) -> None:
    assert len(boundaries([read_run(write_run(tmp_path / "a", steps=400, done=250))])) == 2
    assert boundaries([read_run(write_run(tmp_path / "b", steps=400, done=100))]) == ()
    assert boundaries([read_run(write_run(tmp_path / "c", steps=400, sizes=(12,)))]) == ()
    assert boundaries([]) == ()


def test_a_window_after_a_boundary_stays_within_its_stage(tmp_path: Path) -> None:
    """Stages of three steps: all of each are compared with up to ten steps before it."""
    run = read_run(write_run(tmp_path / "a", steps=12))
    loss = [one["loss"] for one in lines(run, "train")]
    first, second, third = boundaries([run])
    assert [first.window, second.window, third.window] == [3, 3, 3]
    assert first.jump == pytest.approx(sum(loss[3:6]) / 3 - sum(loss[:3]) / 3)
    assert third.jump == pytest.approx(sum(loss[9:]) / 3 - sum(loss[:9]) / 9)
    diverged = read_run(write_run(tmp_path / "b", steps=400, nan_from=104))
    assert boundaries([diverged])[0].jump is None


def add_boundary(run: Run, step: int, jump: float | None) -> Run:
    """The run with a recorded boundary."""
    line = {"kind": "boundary", "step": step, "stage": 1, "window": 10, "jump": jump, "peak": jump}
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return read_run(run.folder)


def test_a_recorded_jump_is_read_and_not_computed(runs: list[Run]) -> None:
    computed = boundaries(runs)
    first, *others = boundaries([*runs[:2], add_boundary(runs[2], 100, 7.0)])
    own = [boundaries([run])[0].jump for run in runs[:2]]
    assert first.jump == pytest.approx((own[0] + own[1] + 7.0) / 3)
    assert [one.jump for one in others] == [one.jump for one in computed[1:]]


def test_a_recorded_jump_needs_no_recorded_steps(runs: list[Run]) -> None:
    """As in what is kept of a long comparison: boundaries, and few of the steps."""
    path = runs[0].folder / "metrics.jsonl"
    path.write_text(
        "".join(f"{line}\n" for line in path.read_text().splitlines() if '"train", "step": 101,' not in line)
    )
    assert boundaries([read_run(runs[0].folder)])[0].jump is None
    assert boundaries([add_boundary(runs[0], 100, 0.25)])[0].jump == 0.25
    assert boundaries([add_boundary(runs[0], 100, None)])[0].jump is None, "the later record counts: it diverged"


def test_what_a_run_records_is_what_the_report_computes_without_it(runs: list[Run]) -> None:
    plan = SimpleNamespace(stages=runs[0].stages, stage=lambda step: stage_at(runs[0].stages, step))
    seen = Boundaries()
    recorded = [seen.add(plan, step, one["loss"]) for step, one in enumerate(lines(runs[0], "train"))]
    assert [one.jump for one in recorded if one] == [one.jump for one in boundaries(runs[:1])]
    assert [one.window for one in recorded if one] == [one.window for one in boundaries(runs[:1])]


def test_speed_and_shares_by_hand(runs: list[Run]) -> None:
    found = speeds(runs)
    assert [one.stage.sizes for one in found] == [(6,), (8,), (10,), (12,)]
    seconds = []
    for run in runs:
        clock = {0: 0.0, **{int(one["step"]): one["seconds"] for one in lines(run, "train")}}
        seconds.append([clock[100 * (k + 1)] - clock[100 * k] for k in range(4)])
    means = np.mean(seconds, axis=0)
    assert [one.seconds for one in found] == pytest.approx(means.tolist())
    assert [one.share for one in found] == pytest.approx((means / means.sum()).tolist())
    assert sum(one.flops_share for one in found) == pytest.approx(1)
    assert found[0].tokens_per_second == pytest.approx(100 * 16 * 256 / means[0])
    assert found[0].tokens_per_second > found[3].tokens_per_second


def test_stages_that_were_not_finished_have_no_speed(tmp_path: Path) -> None:
    assert len(speeds([read_run(write_run(tmp_path / "a", steps=400, done=250))])) == 2
    assert speeds([read_run(write_run(tmp_path / "b", steps=400, done=50))]) == ()
    assert speeds([]) == ()
