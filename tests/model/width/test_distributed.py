"""Two gloo processes train narrow layers as one process does, and freeze what it freezes."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers.started import launch

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("width_worker.py")


@cache
def single(inactive: str) -> dict[str, Any]:
    """The same training in one process, at the same global batch."""
    with tempfile.TemporaryDirectory() as folder:
        return launch("single", Path(folder) / "out.json", WORKER, inactive)


@pytest.mark.parametrize("inactive", ["freeze", "zero"])
@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_two_ranks_train_what_one_process_trains(mode: str, inactive: str, tmp_path: Path) -> None:
    ranks, alone = launch(mode, tmp_path / "out.json", WORKER, inactive), single(inactive)
    assert ranks["losses"] == pytest.approx(alone["losses"], rel=1e-6)  # the loss itself is float32
    for name, values in alone["weights"].items():
        assert ranks["weights"][name] == pytest.approx(values, rel=1e-5, abs=1e-7), name


def test_the_policies_differ() -> None:
    """Negative control of the test above."""
    freeze, zero = single("freeze")["weights"], single("zero")["weights"]
    differ = [name for name, values in freeze.items() if zero[name] != pytest.approx(values, rel=1e-4, abs=1e-5)]
    assert len(differ) > 20
