"""Two gloo processes: the head on masked positions, through DDP and FSDP2, is the full computation of one process."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from helpers.started import launch
from reference.masked_head import MODELS, PREDICTIONS, VOCABULARY

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("masked_head_worker.py")


@cache
def full(architecture: str) -> dict[str, Any]:
    """One process and all logits, at the same global batch."""
    with TemporaryDirectory() as folder:
        return launch("single", Path(folder) / "out.json", WORKER, architecture, "all")


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
@pytest.mark.parametrize("architecture", MODELS)
def test_two_ranks_train_what_all_logits_train(architecture: str, mode: str, tmp_path: Path) -> None:
    ranks, alone = launch(mode, tmp_path / "out.json", WORKER, architecture, "masked"), full(architecture)
    assert ranks["shapes"] == [[2, PREDICTIONS, VOCABULARY]] * 4, "each rank's head ran on its masked positions only"
    assert ranks["losses"] == pytest.approx(alone["losses"], rel=1e-10)
    assert ranks["norms"] == pytest.approx(alone["norms"], rel=1e-8)
    assert len(set(alone["losses"])) == 4
    assert ranks["weights"].keys() == alone["weights"].keys()
    for name, values in alone["weights"].items():
        assert ranks["weights"][name] == pytest.approx(values, rel=1e-6, abs=1e-8), name


def test_control_other_sequences_train_something_else() -> None:
    """The tolerances above tell two trainings apart."""
    one, other = full("roberta"), full("roberta-prelayernorm")
    assert one["losses"][0] != pytest.approx(other["losses"][0], rel=1e-10)
    assert one["norms"] != pytest.approx(other["norms"], rel=1e-8)
