"""Two gloo processes: DDP and FSDP2 train what one process trains."""

from pathlib import Path
from typing import Any

import pytest

from helpers.started import launch

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same training in one process, at the same global batch."""
    return launch("single", tmp_path_factory.mktemp("single") / "out.json", WORKER)


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_two_ranks_train_what_one_process_trains(mode: str, single: dict[str, Any], tmp_path: Path) -> None:
    ranks = launch(mode, tmp_path / "out.json", WORKER)
    assert ranks["moved"] == ranks["planned"] == single["moved"], "skipped layers keep still, kept ones move"
    assert len(set(map(tuple, ranks["planned"]))) > 3, "the check needs different paths"
    assert ranks["losses"] == pytest.approx(single["losses"], rel=1e-6)  # the loss itself is float32
    assert ranks["norms"] == pytest.approx(single["norms"], rel=1e-5)
    for name, values in single["weights"].items():
        assert ranks["weights"][name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    assert ranks["detachable"] == (mode == "ddp")
