"""Under FSDP2 a skipped layer is neither gathered nor reduced: the collectives of two ranks, counted."""

from pathlib import Path

import pytest

from helpers.started import launch
from model.collectives_worker import LAYERS, PATHS

pytestmark = pytest.mark.slow

GATHER, REDUCE = "_allgather_base_", "_reduce_scatter_base_"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """The collectives of a step, by case."""
    out = tmp_path_factory.mktemp("collectives") / "out.json"
    return launch("fsdp2", out, Path(__file__).with_name("collectives_worker.py"))


@pytest.mark.parametrize("name", PATHS)
def test_each_layer_that_runs_is_gathered_twice_and_reduced_once(name: str, found: dict[str, dict[str, int]]) -> None:
    kept = len(PATHS[name])
    # Forward and backward gather a layer; what belongs to no layer is kept from one to the other.
    assert found[name] == {GATHER: 2 * kept + 1, REDUCE: kept + 1}
    assert (name == "all") == (kept == LAYERS), "control: only the whole model makes as many as its layers"


@pytest.mark.parametrize(("first", "second"), [("two", "five"), ("five", "two")])
def test_micro_steps_gather_what_each_runs_and_reduce_what_any_ran(
    first: str, second: str, found: dict[str, dict[str, int]]
) -> None:
    paths = PATHS[first], PATHS[second]
    gathers = sum(2 * len(path) + 1 for path in paths)
    reduced = len(set(paths[0]) | set(paths[1])) + 1
    assert reduced < LAYERS + 1
    assert found[f"{first}, then {second}"] == {GATHER: gathers, REDUCE: reduced}


def test_growth_under_the_root_alone_is_kept(found: dict[str, dict[str, int]]) -> None:
    """What holds a layer's parameters may be a module around it, which a validation leaves gathered."""
    grown = found["grown"]
    assert grown["of"] > 5
    assert grown["weights"] == grown["steps"] == grown["of"]
