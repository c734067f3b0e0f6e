"""Two gloo processes: DDP and FSDP2 train what one process trains."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from helpers.started import Started

WORKER = Path(__file__).with_name("distributed_worker.py")


def launch(mode: str, out: Path, worker: Path = WORKER, *more: str, size: int = 2) -> dict[str, Any]:
    """Run a worker alone or as several ranks, and read what rank 0 wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = range(1 if mode == "single" else size)
    common = {"WORLD_SIZE": str(len(ranks)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        Started(
            f"{worker.parent.name}.{worker.stem}",
            [mode, *more, str(out)],
            {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in ranks
    ]
    try:
        printed = ["".join(process.communicate(timeout=600)) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(ranks), "\n".join(printed)
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same training in one process, at the same global batch."""
    return launch("single", tmp_path_factory.mktemp("single") / "out.json")


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_two_ranks_train_what_one_process_trains(mode: str, single: dict[str, Any], tmp_path: Path) -> None:
    ranks = launch(mode, tmp_path / "out.json")
    assert ranks["moved"] == ranks["planned"] == single["moved"], "skipped layers keep still, kept ones move"
    assert len(set(map(tuple, ranks["planned"]))) > 3, "the check needs different paths"
    assert ranks["losses"] == pytest.approx(single["losses"], rel=1e-6)  # the loss itself is float32
    assert ranks["norms"] == pytest.approx(single["norms"], rel=1e-5)
    for name, values in single["weights"].items():
        assert ranks["weights"][name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    assert ranks["detachable"] == (mode == "ddp")
