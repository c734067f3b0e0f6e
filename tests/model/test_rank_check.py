"""Ranks that would train different layers are stopped, all of them, before any weight is updated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.started import launch
from raptr import Copy, ModelShape, RaPTr, RaptrError, Subnetwork
from raptr.model.rank_check import Agreement
from raptr.plan import facts_of

SHAPE = ModelShape.of(layers=4)


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each of two ranks was told, by case."""
    out = tmp_path_factory.mktemp("agreement") / "out.json"
    return launch(request.param, out, Path(__file__).with_name("rank_check_worker.py"))


@pytest.mark.slow
def test_both_ranks_are_told_the_same_before_anything_is_trained(told: dict[str, Any]) -> None:
    for case in ("seed", "schedule", "step", "scale"):
        one, other = told[case]
        assert one == other, case
        assert one["told"], case
        assert one["steps"] == 0, case
        assert not one["moved"], case


@pytest.mark.slow
def test_the_message_names_what_differs(told: dict[str, Any]) -> None:
    one, other = (RaPTr("2-4", seed=seed, fixed=()).plan(SHAPE, 12) for seed in (5, 6))
    step = next(step for step in range(12) if one.subnetwork(step) != other.subnetwork(step))
    kept = [plan.subnetwork(step).layers[0] for plan in (one, other)]
    said = f"step {step}, layers of 'model.layers' differs: {kept[0]} on rank 0; {kept[1]} on rank 1."
    assert said in told["seed"][0]["told"]
    assert "a stage's start" in told["schedule"][0]["told"]
    assert "the step differs: 4 on rank 0; 5 on rank 1" in told["step"][0]["told"]
    assert "scale of layer" in told["scale"][0]["told"]


@pytest.mark.slow
def test_ranks_that_agree_train_to_the_end(told: dict[str, Any]) -> None:
    for rank in told["nothing"]:
        assert rank == {"told": "", "steps": 12, "moved": True}


@pytest.mark.slow
def test_a_difference_later_in_the_run_is_found_by_then(told: dict[str, Any]) -> None:
    for rank in told["later"]:
        assert rank["steps"] == 5, "the comparison before step 5 covers the steps 5 to 9"
        assert "step 5, layers of 'model.layers' differs" in rank["told"]


def test_comparisons_are_made_at_the_start_at_stages_and_every_so_many_steps() -> None:
    plan, made = RaPTr("2-4").plan(SHAPE, 20), []

    def gather(mine: Any) -> list[Any]:
        made.append(mine[0][:2])
        return [mine, mine]

    agreement = Agreement(SHAPE, gather)
    for step in range(20):
        agreement.check(plan, step, every=8)
    assert made == [(0, 8), (8, 10), (10, 18), (18, 20)]
    agreement.check(plan, 3, every=8)
    assert made[-1] == (3, 10), "a run that goes back compares anew"


def test_one_process_draws_nothing() -> None:
    class Undrawn:
        def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
            raise AssertionError("drawn")

        transition = subnetwork

    Agreement(SHAPE).check(Undrawn(), 0)


def told_of(one: Any, other: Any) -> str:
    """What the second of two simulated ranks is told."""
    sent: list[Any] = []

    def record(mine: Any) -> list[Any]:
        sent.append(mine)
        return [mine, None]  # differs, so that both collectives are made

    with pytest.raises(TypeError):
        Agreement(SHAPE, record).check(one, 0, every=1)
    answers = iter([sent[0], dict(facts_of(one, 0, SHAPE))])
    with pytest.raises(RaptrError) as raised:
        Agreement(SHAPE, lambda mine: [next(answers), mine]).check(other, 0, every=1)
    return str(raised.value)


@dataclass
class Grown:
    """Layers 0 and 1, with copies and a factor on the learning rate."""

    copies: int = 0
    factor: float = 1.0

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        return Subnetwork.of((0, 1))

    def transition(self, step: int) -> tuple[Copy, ...]:
        return tuple(Copy(source=0, target=target) for target in range(2, 2 + self.copies))

    def lr_factor(self, step: int) -> float:
        return self.factor


def test_copies_and_learning_rates_are_compared_too() -> None:
    assert "copy 1 (stack, source, target, reset, silent) differs: (0, 0, 3, 0, 0) on rank 0; none on rank 1" in (
        told_of(Grown(copies=2), Grown(copies=1))
    )
    assert "factor of the learning rate differs: none on rank 0; 0.5 on rank 1" in told_of(Grown(), Grown(factor=0.5))


def test_a_plan_of_ones_own_that_ends_early_is_compared_to_its_end() -> None:
    class Short(Grown):
        def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
            return Subnetwork.of([(0, 1), (0, 2)][step])

    made = []
    agreement = Agreement(SHAPE, lambda mine: [made.append(mine[0][:2]), mine][1:])
    agreement.check(Short(), 0)
    assert made == [(0, 2)]


def test_numbers_of_steps_below_one_are_refused() -> None:
    with pytest.raises(RaptrError, match="every=0"):
        Agreement(SHAPE).check(Grown(), 0, every=0)
