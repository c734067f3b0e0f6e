"""What the host does at each step besides launching work: nothing that walks the model or waits for the device."""

from pathlib import Path

import pytest
import transformers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.runs import metrics, run, tiny
from raptr.train.setup.arguments import build_arguments


@pytest.mark.slow
def test_the_trainers_estimate_of_flops_is_neither_made_nor_reported(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer would walk all parameters at each step, and report the full model's FLOPs for every path."""
    monkeypatch.setattr(transformers.Trainer, "floating_point_ops", lambda *_: pytest.fail("walked the model"))
    _, result = run(tiny(training__report_to="tensorboard"), tmp_path / "run", cache)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    (reported,) = events.Scalars("train/total_flos")
    assert reported.value == pytest.approx(result["total_flops"])
    assert metrics(tmp_path / "run", "train")[-1]["total_flops"] == result["total_flops"]


@pytest.mark.parametrize("pinned", [False, True])
def test_batches_of_pinned_memory_are_copied_without_waiting(pinned: bool, tmp_path: Path) -> None:
    arguments = build_arguments(tiny(training__dataloader_pin_memory=pinned), tmp_path)
    assert arguments.accelerator_config.non_blocking is pinned
