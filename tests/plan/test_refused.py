"""Every refusal of every method says what was given, what is expected and what to do."""

import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from helpers.refusals import refused
from raptr.errors import RaptrError
from raptr.plan import (
    LayerCosts,
    LayerPart,
    LayerParts,
    ModelShape,
    RaPTr,
    Schedule,
    SequenceKey,
    StackShape,
    Subnetwork,
    TransitionLR,
    steps_for,
)
from raptr.plan.methods import (
    METHODS,
    MIDAS,
    ConstantSize,
    DepthWidthRaPTr,
    GradualStacking,
    GStack,
    LateExpansion,
    LayerDrop,
    ProgressiveLayerDropping,
    ProgressiveStacking,
    Reversed,
    SequenceLayerDropout,
    StochasticDepth,
    WidthRaPTr,
)
from reference.methods import two_stacks

TWELVE = ModelShape.of(layers=12)
WIDE = ModelShape.of(layers=12, heads=4, neurons=16)
T5 = two_stacks(12, 8, 0)
UNKNOWN = ModelShape((StackShape("model.layers", 4, narrow="its heads are not known"),))
NAN = float("nan")
EVERY: dict[str, Any] = METHODS  # of any arguments
SEEDED = [key for key, spec in EVERY.items() if hasattr(spec(), "seed")]
TRANSITIONS = [key for key, spec in EVERY.items() if hasattr(spec(), "transition_lr")]
STATES = [key for key, spec in EVERY.items() if hasattr(spec(), "state")]
FIXED = [key for key, spec in EVERY.items() if hasattr(spec(), "fixed")]
SCHEDULED = [key for key, spec in EVERY.items() if hasattr(spec(), "schedule")]


@pytest.mark.parametrize("key", SEEDED)
@pytest.mark.parametrize("seed", [-1, 2**64, 0.0, "0", None, np.int64(3)], ids=repr)
def test_seeds(key: str, seed: Any) -> None:
    refused(lambda: EVERY[key](seed=seed), [f"seed {seed!r}"], ["a whole number between 0 and 2**64 - 1"])


@pytest.mark.parametrize("key", TRANSITIONS)
@pytest.mark.parametrize("rule", [0.5, "rewarm", {"rewarm": 3}], ids=repr)
def test_rules_for_the_learning_rate(key: str, rule: Any) -> None:
    given = [f"transition_lr={rule!r}"]
    refused(lambda: EVERY[key](transition_lr=rule), given, ["TransitionLR(rewarm=100)", "(scale=0.5)"])


@pytest.mark.parametrize("key", STATES)
def test_states(key: str) -> None:
    refused(lambda: EVERY[key](state="copied"), ["state 'copied'"], ["'copy' or 'reset'"])


@pytest.mark.parametrize("key", SEEDED)
def test_choices(key: str) -> None:
    spec = EVERY[key]()
    for name, choices in (
        ("sampler", "'fixed' or 'bernoulli'"),
        ("redraw", "'step' or 'micro_step'"),
        ("narrowed", "'both' or 'heads' or 'neurons'"),
        ("scaling", "'none' or 'inverse'"),
        ("variant", "'paper' or 'deepspeed'"),
    ):
        if hasattr(spec, name):
            for value in ("some", None, ["step"]):
                refused(lambda: EVERY[key](**{name: value}), [f"{name} {value!r}"], [choices])  # noqa: B023
    if key in ("layerdrop", "stochastic_depth", "pld", "sequence_layer_dropout"):
        refused(lambda: EVERY[key](scaling="sqrt"), ["scaling 'sqrt'"], ["'none' or 'inverse'"])


@pytest.mark.parametrize("key", FIXED)
@pytest.mark.parametrize("fixed", [0, "0", (0.5,), ("first",), None, ((0, "x"),)], ids=repr)
def test_fixed_sets_that_are_none(key: str, fixed: Any) -> None:
    refused(lambda: EVERY[key](fixed=fixed), ["fixed="], ["not a tuple of layer numbers such as (0, -1)"])


@pytest.mark.parametrize("key", FIXED)
@pytest.mark.parametrize("layer", [12, -13])
def test_fixed_layers_that_are_not_there(key: str, layer: int) -> None:
    given = [f"fixed layer {layer} is out of range", "'layers'"]
    refused(lambda: EVERY[key](fixed=(0, layer)).plan(WIDE, 100), given, ["0 to 11", "-12 to -1"])


@pytest.mark.parametrize("key", FIXED)
def test_fixed_layers_of_numpy_are_numbers_too(key: str) -> None:
    assert EVERY[key](fixed=np.array([0, -1])) == EVERY[key](fixed=(0, -1))


@pytest.mark.parametrize("key", SCHEDULED)
@pytest.mark.parametrize("schedule", [12, None, (6, 12), [6, 12], 0.5], ids=repr)
def test_schedules_that_are_none(key: str, schedule: Any) -> None:
    refused(lambda: EVERY[key](schedule), [f"schedule {schedule!r}"], ["a Schedule", '"6-8-10-12"'])


@pytest.mark.parametrize("key", EVERY)
@pytest.mark.parametrize("steps", [0, -1, 2.5, None, "100"], ids=repr)
def test_steps(key: str, steps: Any) -> None:
    refused(lambda: EVERY[key]().plan(WIDE, steps), [f"steps={steps}"], ["a whole number", "at least 1"])


@pytest.mark.parametrize("key", ["gradual_stacking", "midas"])
def test_growth_has_no_full_model_to_warm_up(key: str) -> None:
    schedule = Schedule.parse("6-12", warmup=0.1)
    refused(lambda: EVERY[key](schedule), [key, "0.1"], ["still to grow", "leave it out"])


# what is refused, what the message repeats, what it expects
CASES: dict[str, tuple[Callable[[], Any], list[str], list[str]]] = {
    # RaPTr and its controls
    "too few fixed sets": (
        lambda: RaPTr("6-8-12", fixed=((0,), (1,))),
        ["2 sets", "3 stages", "6-8-12"],
        ["one for each stage"],
    ),
    "a fixed set too large for its stage": (
        lambda: RaPTr("3-12", fixed=((0, 1, 2, 3), ())).plan(TWELVE, 10),
        ["3-12", "3 layers of 'layers'", "(0, 1, 2, 3)"],
        ["holds 4", "fix fewer"],
    ),
    "a set and a layer": (lambda: RaPTr("6-12", fixed=((0,), 1)), ["fixed=1"], ["(0, -1)"]),
    "shrinking": (lambda: RaPTr("12-6-12").plan(TWELVE, 9), ["12-6-12", "shrinks"], ["do not fall", "'reversed'"]),
    "unfinished": (lambda: RaPTr("6-8").plan(TWELVE, 9), ["6-8", "8 of the 12"], ["end with 12 or 100%"]),
    "sizes": (lambda: ConstantSize("6-12"), ["'6-12'", "not one size"], ["'9'", "'75%'"]),
    "no size": (lambda: ConstantSize(None), ["'None'"], ["6-8-10-12"]),  # type: ignore[arg-type]
    "a size that is too large": (lambda: ConstantSize("13").plan(TWELVE, 9), ["13 layers"], ["has 12"]),
    "a size below the fixed set": (lambda: ConstantSize("1").plan(TWELVE, 9), ["1 layers"], ["holds 2"]),
    "growing": (lambda: Reversed("12-6-8").plan(TWELVE, 9), ["12-6-8", "grows"], ["do not rise", "12-10-8-6"]),
    "not whole first": (
        lambda: Reversed("10-8-6").plan(TWELVE, 9),
        ["10-8-6", "begins with 10 of the 12"],
        ["begin with 12 or 100%"],
    ),
    "reversed below its fixed set": (
        lambda: Reversed(Schedule.parse("12-1", warmup=2)).plan(TWELVE, 9),
        ["12-1", "1 layers"],
        ["(0, 11)", "fix fewer"],
    ),
    # dropping
    "rate 1": (lambda: LayerDrop(rate=1), ["rate=1 "], ["from 0 to below 1"]),
    "rate below 0": (lambda: LayerDrop(rate=-0.1), ["rate=-0.1"], ["from 0 to below 1"]),
    "rate as text": (lambda: LayerDrop(rate="0.1"), ["rate='0.1'"], ["from 0 to below 1"]),  # type: ignore[arg-type]
    "no rate": (lambda: SequenceLayerDropout(rate=NAN), ["rate=nan"], ["from 0 to below 1"]),
    "sequences rate 1": (lambda: SequenceLayerDropout(rate=1.0), ["rate=1.0"], ["from 0 to below 1"]),
    "last 0": (lambda: StochasticDepth(last=0), ["last=0 "], ["from 1e-06 to 1."]),
    "last 1.1": (lambda: StochasticDepth(last=1.1), ["last=1.1"], ["from 1e-06 to 1."]),
    "theta 0": (lambda: ProgressiveLayerDropping(theta=0.0), ["theta=0.0"], ["from 1e-06 to 1."]),
    "gamma 0": (lambda: ProgressiveLayerDropping(gamma=0), ["gamma=0 "], ["from 1e-12 to 1."]),
    # stacking
    "a block larger than the model": (
        lambda: GradualStacking("3-12").plan(TWELVE, 9),
        ["from 3 to 12 layers of 'layers'"],
        ["only 3", "fewer layers at a time"],
    ),
    "a middle larger than the model": (
        lambda: MIDAS("3-12").plan(TWELVE, 9),
        ["from 3 to 12"],
        ["only 3", "fewer layers at a time"],
    ),
    "no growth": (
        lambda: GradualStacking("6-6-12").plan(TWELVE, 9),
        ["6-6-12 layers of 'layers'"],
        ["does not grow at each boundary", "give sizes that rise"],
    ),
    "no growth in one stack": (
        lambda: MIDAS("50%-60%-100%").plan(two_stacks(12, 2), 9),
        ["1-1-2 layers of 'decoder.block'"],
        ["give sizes that rise, or fewer of them"],
    ),
    "growth that stops": (lambda: MIDAS("3-6").plan(TWELVE, 9), ["6 of the 12", "3-6"], ["end with 12 or 100%"]),
    "no doubling": (lambda: ProgressiveStacking(doublings=0), ["doublings=0"], ["from 1 to 1000"]),
    "half a doubling": (
        lambda: ProgressiveStacking(doublings=1.5),  # type: ignore[arg-type]
        ["doublings=1.5"],
        ["a whole number"],
    ),
    "an odd depth": (
        lambda: ProgressiveStacking().plan(ModelShape.of(layers=(12, 7)), 9),
        ["12+7 layers"],
        ["even number of layers", "gradual_stacking"],
    ),
    "lengths for other stages": (
        lambda: ProgressiveStacking(lengths=(1, 2)),
        ["2 stage lengths (1, 2)", "3 stages"],
        ["one per stage"],
    ),
    "unknown lengths": (lambda: ProgressiveStacking(lengths="even"), ["'even'"], ['"equal"', '"proportional"']),
    "lengths that are none": (
        lambda: ProgressiveStacking(lengths=7),  # type: ignore[arg-type]
        ["lengths=7"],
        ["one entry for each stage"],
    ),
    "growth 1": (lambda: GStack(growth=1), ["growth=1 "], ["from 2 to 1000"]),
    "growth that does not divide": (
        lambda: GStack(growth=5).plan(T5, 9),
        ["growth=5", "12 layers of 'encoder.block'"],
        ["use 2 or 3 or 4 or 6 or 12"],
    ),
    "growth of one layer": (
        lambda: GStack().plan(ModelShape.of(layers=1), 9),
        ["growth=4", "1 layers"],
        ["a model of more layers"],
    ),
    "at the beginning": (lambda: GStack(at=0.0), ["at=0.0"], ["from 1e-06 to below 1"]),
    "at the end": (lambda: LateExpansion(at=1), ["at=1 "], ["from 1e-06 to below 1"]),
    "no step before": (lambda: GStack(at=0.1).plan(TWELVE, 4), ["at=0.1", "4 steps"], ["before", "train longer"]),
    "no step after": (lambda: LateExpansion(at=0.9).plan(TWELVE, 4), ["at=0.9", "4 steps"], ["after", "train longer"]),
    "nothing to copy": (lambda: LateExpansion(layers=0), ["layers=0"], ["'fresh' or 'silent'", "begin with a layer"]),
    "less than nothing": (lambda: LateExpansion(layers=-1), ["layers=-1"], ["from 0 to 1000"]),
    "nothing to grow": (
        lambda: LateExpansion(layers=8).plan(T5, 9),
        ["layers=8", "'decoder.block' has 8"],
        ["begin with fewer"],
    ),
    "new layers of another kind": (
        lambda: LateExpansion(new="zero"),  # type: ignore[arg-type]
        ["new 'zero'"],
        ["'copy' or 'fresh' or 'silent'"],
    ),
    # width
    "counts of heads": (lambda: WidthRaPTr("2-4"), ["schedule 2-4"], ["a share", "50%-75%-100%"]),
    "a width that shrinks": (lambda: WidthRaPTr("100%-50%"), ["100%-50%"], ["rise to 100%"]),
    "a width that stops": (lambda: WidthRaPTr("25%-50%"), ["25%-50%"], ["rise to 100%"]),
    "width counts": (lambda: DepthWidthRaPTr("6-12", width="2-4"), ["width 2-4"], ["50%-75%-100%"]),
    "width is no text": (
        lambda: DepthWidthRaPTr("6-12", width=0.5),  # type: ignore[arg-type]
        ["width=0.5"],
        ["'50%-75%-100%'"],
    ),
    "other numbers of stages": (
        lambda: DepthWidthRaPTr("6-12", width="50%-75%-100%"),
        ["width 50%-75%-100% has 3 stages", "schedule 6-12 has 2"],
        ["one share of the width for each stage"],
    ),
    "a model without heads": (
        lambda: WidthRaPTr().plan(UNKNOWN, 9),
        ["heads of 'model.layers'", "(its heads are not known)"],
        ["width_raptr does not fit"],
    ),
    "a model without neurons": (
        lambda: DepthWidthRaPTr(narrowed="neurons").plan(TWELVE, 9),
        ["neurons of 'layers'"],
        ["depth_width_raptr does not fit"],
    ),
    # the learning rate
    "no rule": (lambda: TransitionLR(), ["rewarm=None and scale=None"], ["give one of them"]),
    "two rules": (lambda: TransitionLR(rewarm=3, scale=0.5), ["rewarm=3 and scale=0.5"], ["give one of them"]),
    "a warm-up of a step": (lambda: TransitionLR(rewarm=1), ["rewarm=1"], ["from 2"]),
    "half a step": (lambda: TransitionLR(rewarm=2.5), ["rewarm=2.5"], ["whole number"]),  # type: ignore[arg-type]
    "scale 0": (lambda: TransitionLR(scale=0.0), ["scale=0.0"], ["from 1e-06 to 100"]),
    "scale nan": (lambda: TransitionLR(scale=NAN), ["scale=nan"], ["from 1e-06 to 100"]),
    "scale as text": (lambda: TransitionLR(scale="2"), ["scale='2'"], ["a factor"]),  # type: ignore[arg-type]
    # schedules
    "sizes that are no tuple": (lambda: Schedule(6), ["sizes=6"], ["one entry for each stage"]),  # type: ignore[arg-type]
    "text that is none": (lambda: Schedule.parse(6), ["schedule 6"], ['"6-8-10-12"']),  # type: ignore[arg-type]
    "alpha 0": (
        lambda: Schedule.parse("6-12", lengths="proportional", alpha=0),
        ["alpha=0"],
        ["above 0"],
    ),
    "alpha without effect": (
        lambda: Schedule.parse("6-12", alpha=2),
        ["alpha=2", "'equal'"],
        ['lengths="proportional"', "leave it out or change lengths"],
    ),
    # shapes and subnetworks
    "half a layer": (lambda: ModelShape.of(layers=2.5), ["layers=2.5"], ["a number of layers"]),  # type: ignore[arg-type]
    "no shape": (lambda: ModelShape(12), ["stacks 12"], ["ModelShape.of(layers=12)"]),  # type: ignore[arg-type]
    "no heads": (lambda: ModelShape.of(layers=2, heads=0), ["0 heads"], ["at least 1, or None"]),
    "reasons without layers": (
        lambda: StackShape("a", 3, required=(1,)),  # type: ignore[arg-type]
        ["required=(1,)", "'a'"],
        ["(layer, reason) pairs"],
    ),
    "too few parts": (lambda: Subnetwork(((0, 1),), ((LayerPart(),),)), ["parts of (1,)", "(2,)"], ["one LayerPart"]),
    "parts that are none": (
        lambda: Subnetwork(((0, 1),), ((1, 2),)),  # type: ignore[arg-type]
        ["parts ((1, 2),)"],
        ["one tuple of LayerPart for each stack"],
    ),
    "layers that are none": (
        lambda: Subnetwork((0, 1)),  # type: ignore[arg-type]
        ["layers (0, 1)"],
        ["Subnetwork.of((0, 2, 5))"],
    ),
    "heads that fall": (lambda: LayerPart(heads=(1, 0)), ["kept heads (1, 0)"], ["rising numbers from 0 on"]),
    "no neurons": (lambda: LayerPart(neurons=()), ["kept neurons ()"], ["at least one"]),
    "many neurons": (
        lambda: LayerPart(neurons=(*range(100), 5)),
        ["kept neurons (0, 1,", "11, ...)"],
        ["rising numbers"],
    ),
    "a list of heads": (lambda: LayerPart(heads=[0]), ["kept heads [0]"], ["a tuple"]),  # type: ignore[arg-type]
    "heads of text": (lambda: LayerPart(heads=("a",)), ["('a',)"], ["rising numbers"]),  # type: ignore[arg-type]
    "scale of nothing": (lambda: LayerPart(scale=0.0), ["scales 0.0, 1.0 and 1.0"], ["finite number above 0"]),
    "one scale of nothing": (lambda: LayerParts((1.0, 0.0)), ["scales 0.0,"], ["finite number above 0"]),
    "one scale that is no number": (lambda: LayerParts((1.0, float("nan"))), ["nan"], ["finite number above 0"]),
    "shares drawn from nothing": (lambda: LayerParts((1.0,), (0.5,)), ["1 shares", "None"], ["a SequenceKey"]),
    "a share too few": (
        lambda: LayerParts((1.0, 1.0), (0.5,), SequenceKey(seed=0, step=0)),
        ["1 shares", "2 layers"],
        ["one share for each"],
    ),
    "one share that is no number": (
        lambda: LayerParts((1.0, 1.0), (0.5, float("nan")), SequenceKey(seed=0, step=0)),
        ["share of nan"],
        ["above 0", "up to 1"],
    ),
    "one share above one": (
        lambda: LayerParts((1.0, 1.0), (0.1, 1.5), SequenceKey(seed=0, step=0)),
        ["share of 1.5"],
        ["above 0", "up to 1"],
    ),
    "a share of nothing": (lambda: LayerPart(share=0.0), ["share of 0.0"], ["above 0", "up to 1"]),
    "a share above one": (lambda: LayerPart(share=1.5), ["share of 1.5"], ["above 0", "up to 1"]),
    "a share drawn from nothing": (lambda: LayerPart(share=0.5), ["share of 0.5", "None"], ["a SequenceKey"]),
    "endless scale": (lambda: LayerPart(head_scale=float("inf")), ["inf"], ["finite number above 0"]),
    "more heads than there are": (
        lambda: Subnetwork(((0,),), ((LayerPart(heads=(0, 4)),),)).check(WIDE),
        ["head 4"],
        ["heads 0 to 3"],
    ),
    "heads of a model without": (
        lambda: Subnetwork(((0,),), ((LayerPart(neurons=(0,)),),)).check(UNKNOWN),
        ["neurons of 'model.layers'"],
        ["cannot be: its heads are not known"],
    ),
    "costs of a width that are not known": (
        lambda: LayerCosts(layers=((1.0,),)).of_layer(0, 0, (0.5, 1.0)),
        ["heads and neurons"],
        ["count_flops"],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_refusals(case: tuple[Callable[[], Any], list[str], list[str]]) -> None:
    build, given, expected = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(build, given, expected)


def test_what_is_at_the_edge_is_accepted() -> None:
    """Controls: what lies just inside of the limits above."""
    assert LayerDrop(rate=0).plan(TWELVE, 1).subnetwork(0) == Subnetwork.full(TWELVE)
    assert StochasticDepth(last=1).plan(TWELVE, 1).subnetwork(0) == Subnetwork.full(TWELVE)
    assert StochasticDepth(last=1e-6).plan(TWELVE, 1).stages[0].sizes[0] == pytest.approx(5.5, abs=1e-5)
    assert SequenceLayerDropout(rate=0).plan(TWELVE, 1).subnetwork(0) == Subnetwork.full(TWELVE)
    assert GStack(growth=12, at=0.5).plan(TWELVE, 2).stages[0].sizes == (1,)
    assert LateExpansion(layers=11, at=0.5).plan(TWELVE, 2).stages[0].sizes == (11,)
    assert Reversed("12-12-6").plan(TWELVE, 3).stages[1].sizes == (12,)
    assert GradualStacking("12").plan(TWELVE, 1).transition(0) == ()
    assert MIDAS("6-12").plan(TWELVE, 3).copies[1]
    assert WidthRaPTr("100%").plan(WIDE, 1).subnetwork(0) == Subnetwork.full(WIDE)
    assert WidthRaPTr(narrowed="heads").plan(ModelShape.of(layers=2, heads=4), 3).stages[0].width == 0.5
    assert Schedule((Fraction(1, 2), 12)).sizes == (Fraction(1, 2), 12)
    assert LayerPart(share=1e-300, sequences=SequenceKey(seed=0, step=0)).rows(0, 5) in [(i,) for i in range(5)]
    with pytest.raises(RaptrError):
        StochasticDepth(last=0.9e-6)


def test_a_method_that_never_fits_is_refused_at_once() -> None:
    """No number of steps helps a model of the wrong depth, so that none is tried one after the other."""
    costs = LayerCosts.uniform(TWELVE)
    began = time.perf_counter()
    refused(
        lambda: steps_for(12.0 * 10**6, lambda n: GStack(growth=5).plan(TWELVE, n), costs),
        ["growth=5"],
        ["use 2 or 3"],
    )
    assert time.perf_counter() - began < 2
    tried: list[int] = []

    def bind(steps: int) -> Any:  # control: where the number of steps is what is wrong, the next ones are tried
        tried.append(steps)
        return RaPTr(Schedule.parse("6-12", lengths=(100, 300))).plan(TWELVE, steps)

    assert steps_for(4200.0, bind, costs) == 400
    assert min(tried) == 350
