"""Two gloo processes train what one does: other paths in each micro-step, some sequences of each rank, growth."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from helpers.started import launch

WORKER = Path(__file__).with_name("parts_worker.py")
WHAT = ("micro", "sequences", "growth")
TOLERANCE = {"micro": 1e-12, "sequences": 1e-12, "growth": 1e-3}
"""Muon, which some of the growing model has, computes in bfloat16: sums in another order show."""


@cache
def single(what: str) -> dict[str, Any]:
    """The same in one process, which computes both ranks' batches with both ranks' sequences."""
    with TemporaryDirectory() as folder:
        return launch("single", Path(folder) / "out.json", WORKER, what)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
@pytest.mark.parametrize("what", WHAT)
def test_two_ranks_train_what_one_process_trains(what: str, mode: str, tmp_path: Path) -> None:
    ranks, alone = launch(mode, tmp_path / "out.json", WORKER, what), single(what)
    close = {"rel": 1e-6, "abs": TOLERANCE[what]}
    assert ranks["losses"] == pytest.approx(alone["losses"], rel=1e-6 if what != "growth" else 1e-4)
    for step, (found, expected) in enumerate(zip(ranks["gradients"], alone["gradients"], strict=True)):
        assert found.keys() == expected.keys()
        for name, grad in expected.items():
            assert found[name] == pytest.approx(grad, **close), f"step {step}: {name}"
    for kind in ("weights", "moments"):
        assert ranks[kind].keys() == alone[kind].keys()
        for name, values in alone[kind].items():
            assert ranks[kind][name] == pytest.approx(values, **close), name
    assert ranks["same_parameters"]


@pytest.mark.slow
def test_a_layer_of_the_first_micro_step_only_has_its_gradient() -> None:
    """What the worker's paths are for: layer 1 in the first step, layers 1 and 2 in the third."""
    gradients = single("micro")["gradients"]

    def trained(step: int) -> list[int]:
        return [i for i in range(4) if any(any(grad) for n, grad in gradients[step].items() if f"layers.{i}." in n)]

    assert [trained(step) for step in range(5)] == [[0, 1, 3], [0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3], [0, 3]]


def test_both_ranks_draw_sequences_of_their_own() -> None:
    """Control of the comparison: the ranks' masks differ."""
    from model.parts_worker import Sequences

    kept = list(Sequences().subnetwork(0).kept(0))
    assert [part.rows(layer, 4, 0) for layer, part in kept] != [part.rows(layer, 4, 1) for layer, part in kept]
