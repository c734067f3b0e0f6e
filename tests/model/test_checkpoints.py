"""A checkpoint of one engine and world size goes on in another: sharded and whole, before and behind a boundary."""

from pathlib import Path
from typing import Any

import pytest

from helpers.started import launch
from model.checkpoint_worker import SAVED

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("checkpoint_worker.py")
KINDS = ("", ".pt")


def go(name: str, kinds: tuple[str, ...] = KINDS) -> list[str]:
    return [f"go={name}/{step}{kind}" for step in SAVED for kind in kinds]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The end of every training: two shards, then one process, then three shards."""
    folder = tmp_path_factory.mktemp("checkpoints")
    order: list[tuple[str, int, list[str]]] = [
        ("fsdp2", 2, ["save=two", *go("two"), "lazy"]),
        ("single", 1, ["save=one", *go("two")]),
        ("fsdp2", 3, [*go("one"), *go("two", ("",))]),
    ]
    return {
        f"{mode} {size}": launch(mode, folder / "out.json", WORKER, str(folder), ",".join(jobs), size=size)
        for mode, size, jobs in order
    }


def test_all_end_where_the_training_that_was_not_stopped_ends(ends: dict[str, dict[str, Any]]) -> None:
    expected = ends["fsdp2 2"].pop("save=two")
    moments = [name for name in expected if name.endswith("/exp_avg")]
    assert any("layers.3" in name and any(expected[name]) for name in moments), "the moments are compared too"
    compared = 0
    for engine, found in ends.items():
        for job, end in found.items():
            if job != "lazy":
                assert end.keys() == expected.keys(), (engine, job)
                for name, values in expected.items():
                    assert end[name] == pytest.approx(values, rel=1e-5, abs=1e-7), (engine, job, name)
                compared += 1
    assert compared == 6 + 7 + 9


def test_without_the_state_that_prepare_makes_a_checkpoint_is_refused(ends: dict[str, dict[str, Any]]) -> None:
    assert "state" in ends["fsdp2 2"]["lazy"], "the control: only one of four layers had been trained"
