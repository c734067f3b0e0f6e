"""A run by stage: jumps at boundaries, and the clock."""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.synthetic_runs import write_run
from raptr.results.boundaries import boundaries, window_of
from raptr.results.run import Run, read_run
from raptr.results.speed import speeds


def lines(run: Run, kind: str) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [one for one in found if one["kind"] == kind]


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [read_run(write_run(tmp_path / str(seed), steps=400, seed=seed)) for seed in range(3)]


def test_jumps_by_hand(runs: list[Run]) -> None:
    found = boundaries(runs)
    assert [(one.step, one.before, one.after, one.window) for one in found] == [
        (100, (6,), (8,), 8),
        (200, (8,), (10,), 8),
        (300, (10,), (12,), 8),
    ]
    jumps = []
    for run in runs:
        loss = {int(one["step"]): one["loss"] for one in lines(run, "train")}
        after, before = [loss[step] for step in range(101, 109)], [loss[step] for step in range(93, 101)]
        jumps.append(sum(after) / 8 - sum(before) / 8)
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
        # the mean of 2 exp(-k / 5) over the eight steps of the window
        assert loud.jump - quiet.jump == pytest.approx(2 * sum(np.exp(-k / 5) for k in range(8)) / 8)
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
    assert [one.jump for one in short] == [None], "five steps of eight"


def test_boundaries_that_were_not_passed_are_not_told(tmp_path: Path) -> None:
    assert len(boundaries([read_run(write_run(tmp_path / "a", steps=400, done=250))])) == 2
    assert boundaries([read_run(write_run(tmp_path / "b", steps=400, done=100))]) == ()
    assert boundaries([read_run(write_run(tmp_path / "c", steps=400, sizes=(12,)))]) == ()
    assert boundaries([]) == ()


def test_a_window_stays_within_its_stages(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", steps=12))
    assert window_of(run, 3) == 1
    diverged = read_run(write_run(tmp_path / "b", steps=400, nan_from=104))
    assert boundaries([diverged])[0].jump is None


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
