"""What `raptr plan` says of a gain: the nearest measurement, how it came out, and how far away it is."""

import dataclasses
import itertools
import math
from typing import Any

import pytest

from raptr.cli.outlook import Point, Recipe, Setting, furthest, nearest, outlook, points, settings_of
from raptr.config.methods import SETTINGS
from raptr.plan import METHODS
from raptr.results.statistics import Decision

RUN = Setting(objective="causal", pre_norm=True, layers=12, parameters=150_000, tokens=3_000_000)


def recipe(schedule: str = "6-8-10-12", method: str = "raptr", **settings: object) -> Recipe:
    return Recipe.of(method, {"schedule": schedule, **settings})


def point(schedule: str = "6-8-10-12", settings: dict[str, object] | None = None, **changes: object) -> Point:
    given = {
        "comparison": "one",
        "method": "raptr",
        "settings": {"schedule": schedule, **(settings or {})},
        "name": ", ".join([f"RaPTr {schedule}", *(f"{key} {value}" for key, value in (settings or {}).items())]),
        "architecture": "llama",
        "objective": "causal",
        "pre_norm": True,
        "layers": 12,
        "parameters": 150_000,
        "tokens": 3_000_000,
        "difference": 0.02,
        "low": 0.01,
        "high": 0.03,
        "seeds": 3,
    }
    return Point(**{**given, **changes})  # type: ignore[arg-type]


def test_every_stored_point_is_of_a_method_and_holds_its_difference() -> None:
    for one in points():
        assert one.method in {*METHODS, "smaller"} - {"full"}
        assert one.low <= one.difference <= one.high
        assert min(one.seeds, one.layers, one.parameters, one.tokens) >= 1
        assert one.objective in ("causal", "masked", "denoising")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "a loss was measured"),
        (-0.03, -0.01, "a gain was measured"),
        (-0.01, 0.05, "neither a gain nor a loss was decided"),
        (0.0, 0.05, "neither a gain nor a loss was decided"),
    ],
)
def test_the_verdict_is_that_of_the_interval(low: float, high: float, said: str) -> None:
    one = point(difference=(low + high) / 2, low=low, high=high)
    assert one.verdict == said
    assert one.decision is (Decision.UNDECIDED if low <= 0 <= high else Decision.BETTER if high < 0 else Decision.WORSE)
    assert said in outlook(one.recipe, RUN, [one])[0]


def test_the_same_recipe_comes_before_a_nearer_one() -> None:
    same, nearer = point(parameters=600_000), point("9-12")
    assert nearest(recipe(), RUN, [nearer, same]) == same
    assert nearest(recipe("3-12"), RUN, [same, nearer]) == nearer
    assert nearest(recipe(), RUN, [point(objective="masked"), point(method="pld")]) is None


def test_norms_elsewhere_are_another_model() -> None:
    assert nearest(recipe(), RUN, [point(pre_norm=False)]) is None
    (line,) = outlook(recipe(), RUN, [point(pre_norm=False)])
    assert "was not measured in pre-norm causal models" in line
    after = point("9-12", method="midas", difference=-0.2, low=-0.25, high=-0.15, pre_norm=False)
    assert furthest(point(), [point(), after]) is None


def test_between_lengths_that_came_out_differently_neither_is_expected() -> None:
    """A run of 20 tokens for each parameter between a loss at 20 and what was undecided at 12; 5 is too far away."""
    undecided = point(tokens=1_800_000, low=-0.1, high=0.1)
    far = point(tokens=750_000, difference=-0.2, low=-0.3, high=-0.1)
    _, second, *_ = outlook(recipe(), RUN, [point(), undecided, far])
    assert "near, but at 12 tokens for each of 150 k parameters neither a gain nor a loss was decided" in second
    assert second.endswith("so expect neither.")
    other = point("9-12", tokens=1_800_000, low=-0.1, high=0.1)
    same_size = point(difference=-0.2, low=-0.3, high=-0.1)
    for among in ([point(), far], [point(), other], [point(), same_size]):
        assert "near enough to expect the same" in outlook(recipe(), RUN, among)[1]


def test_distance_counts_size_length_and_depth_by_themselves() -> None:
    """By hand: 4 times the parameters and as many tokens are 4 times as large and a quarter as long."""
    larger = dataclasses.replace(RUN, parameters=4 * RUN.parameters)
    assert point().distance(larger) == (4.0, 4.0, 1.0)
    assert point().distance(RUN) == (1.0, 1.0, 1.0)
    assert point().distance(dataclasses.replace(RUN, tokens=0)) == (1.0, math.inf, 1.0)
    assert point().distance(dataclasses.replace(RUN, layers=3)) == (1.0, 1.0, 4.0)
    shallow, deep = point("3", layers=3), point("24", layers=24)
    assert nearest(recipe("9-12"), RUN, [shallow, deep]) == deep


def test_what_is_far_away_says_little_and_by_how_much() -> None:
    larger = dataclasses.replace(RUN, parameters=100 * RUN.parameters, tokens=50 * RUN.tokens)
    first, second = outlook(recipe(), larger, [point()])
    assert "+0.020 nats a token (+0.010 to +0.030, 95 % over 3 seeds)" in first
    assert "150 k parameters in 12 layers, FLOPs of full training on 20 tokens for each, causal llama." in first
    assert (
        "15.0 M parameters in 12 layers, FLOPs of full training on 10 tokens for each; 100 times as large, so" in second
    )
    shorter = dataclasses.replace(RUN, tokens=RUN.tokens / 10)
    assert "; 10 times as short, so" in outlook(recipe(), shorter, [point()])[1]


def test_what_is_near_is_said_to_be() -> None:
    near = dataclasses.replace(RUN, parameters=int(1.5 * RUN.parameters), tokens=1.6 * RUN.tokens)
    assert "near enough to expect the same" in outlook(recipe(), near, [point()])[1]


def test_nothing_is_expected_of_what_was_undecided() -> None:
    undecided = point(low=-0.1, high=0.1)
    assert outlook(recipe(), RUN, [undecided])[1].endswith("undecided there, so expect neither.")


def test_the_unit_is_that_of_the_objective() -> None:
    masked = dataclasses.replace(RUN, objective="masked")
    assert "nats a masked token (" in outlook(recipe(), masked, [point(objective="masked")])[0]


def test_another_recipe_is_named() -> None:
    assert "at the nearest size (RaPTr 6-8-10-12): " in outlook(recipe("3-12"), RUN, [point()])[0]
    assert "at the nearest size: " in outlook(recipe(), RUN, [point()])[0]


def test_settings_that_were_not_measured_are_not_expected_to_do_the_same() -> None:
    """`fixed []` was measured as a loss; what is asked differs from it in one setting, from the plain one in two."""
    plain = point(difference=-0.02, low=-0.03, high=-0.01)
    nothing_fixed = point(settings={"fixed": []}, difference=0.49, low=0.1, high=0.9)
    first, second, *_ = outlook(recipe(fixed=[], scaling="sqrt"), RUN, [plain, nothing_fixed])
    assert first.startswith(
        "Whether it gains at equal FLOPs is not known here: these settings were not measured. "
        "With others a loss was measured at the nearest size "
        "(RaPTr 6-8-10-12, fixed []): +0.490"
    )
    assert second.endswith("near in size, but other settings can turn a gain into a loss, so expect neither.")
    lengths = recipe("1-12", "gradual_stacking", lengths=[0.9, 0.1])
    stacked = point("6-9-12", method="gradual_stacking", difference=-0.2, low=-0.3, high=-0.1)
    assert "expect the same" not in " ".join(outlook(lengths, RUN, [stacked]))


def test_a_depth_that_was_not_measured_is_said_not_to_be() -> None:
    deep = dataclasses.replace(RUN, layers=48)
    first, second = outlook(recipe("24-32-40-48"), deep, [point()])
    assert "is not known here; a loss was measured at the nearest size (RaPTr 6-8-10-12)" in first
    assert "20 tokens for each; 4 times as deep, so that says little of it" in second
    assert second.endswith("The method was not measured in a model of about 48 layers.")
    there = point(layers=40, parameters=1_500_000)
    assert "about 48 layers" not in outlook(recipe("24-32-40-48"), deep, [point(), there])[1]
    for layers, said in ((18, "near enough"), (8, "near enough"), (19, "1.58 times as deep"), (7, "as shallow")):
        other = dataclasses.replace(RUN, layers=layers)
        assert said in outlook(recipe("50%-66.7%-83.3%-100%"), other, [point()])[1]


@pytest.mark.parametrize(
    ("asked", "layers", "same"),
    [
        (recipe(fixed=[]), 12, True),
        (recipe("50%-66.7%-83.3%-100%", fixed=[]), 12, True),
        (recipe("12-16-20-24", fixed=[]), 24, True),
        (recipe("6-9-12", fixed=[]), 12, False),
        (recipe(), 12, False),
        (recipe(fixed=[], lengths=[0.1, 0.9]), 12, False),
        (recipe(method="width_raptr", fixed=[]), 12, False),
    ],
)
def test_a_recipe_is_the_same_in_shares_of_the_layers(asked: Recipe, layers: int, same: bool) -> None:
    assert point(settings={"fixed": []}, name="another name").is_recipe(asked, layers) == same


@pytest.mark.parametrize(
    ("method", "given", "settings"),
    [
        ("raptr", {"schedule": " 6 - 12", "lengths": "equal"}, {"schedule": "6-12"}),
        ("raptr", {"schedule": "6-12", "fixed": [], "warmup": 0.1}, {"schedule": "6-12", "fixed": [], "warmup": 0.1}),
        (
            "raptr",
            {"schedule": "6-12", "transition_lr": {"rewarm": 5}},
            {"schedule": "6-12", "transition_lr": {"rewarm": 5}},
        ),
        ("layerdrop", {"rate": 0.3}, {"rate": 0.3}),
        ("layerdrop", {}, {}),
        ("smaller", {}, {"layers": None}),
        ("smaller", {"layers": 7}, {"layers": "7"}),
    ],
)
def test_the_settings_of_a_recipe_are_those_of_the_config(method: str, given: Any, settings: Any) -> None:
    assert settings_of(SETTINGS[method](**given)) == settings


def test_every_stored_recipe_has_one_name() -> None:
    assert len({one.recipe for one in points()}) == len({one.name for one in points()}) > 20


def test_of_equally_near_points_the_order_in_the_file_decides_nothing() -> None:
    few = point(seeds=2, high=0.9)
    low, high, again = point(high=0.03), point(high=0.05, comparison="b"), point(high=0.05, comparison="a")
    for known in itertools.permutations([few, low, high, again]):
        assert nearest(recipe(), RUN, known) == again


def test_nothing_is_said_of_full_training_and_nothing_known_is_said() -> None:
    assert outlook(Recipe.of("full", {}), RUN, [point()]) == []
    (line,) = outlook(Recipe.of("pld", {}), RUN, [point()])
    assert "is not known" in line


def test_the_surest_gain_at_that_size_is_named() -> None:
    undecided = point("1-12", method="midas", name="Lucky", difference=-0.5, low=-1.1, high=0.1)
    sure = point("3-12", method="gradual_stacking", name="Stacking", difference=-0.2, low=-0.25, high=-0.15)
    wide = point("2-12", method="midas", name="MIDAS", difference=-0.3, low=-0.5, high=-0.1)
    elsewhere = point("4-12", method="gstack", difference=-0.9, low=-0.91, high=-0.89, parameters=600_000)
    masked = point("5-12", method="gstack", difference=-0.9, low=-0.91, high=-0.89, objective="masked")
    known = [point(), undecided, wide, sure, elsewhere, masked]
    assert furthest(point(), known) == sure
    *_, line = outlook(recipe(), RUN, known)
    assert "of another method, Stacking: −0.200 nats a token (−0.250 to −0.150, 95 % over 3 seeds). It" in line
    assert line.endswith("It is the best of 4 that were tried there, which flatters it.")
    assert len(outlook(sure.recipe, RUN, known)) == 2, "it is the one"
    assert furthest(point(), [point(), undecided]) is None
    assert len(outlook(recipe(), RUN, [point(), undecided])) == 2
