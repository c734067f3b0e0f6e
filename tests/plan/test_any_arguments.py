"""Whatever a spec is given ends in a spec or in a `RaptrError`, and so does its plan; never in another exception."""

import dataclasses
import math
import pickle
import warnings
from fractions import Fraction
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raptr.errors import RaptrError
from raptr.plan import (
    METHODS,
    LayerPart,
    ModelShape,
    Schedule,
    StackShape,
    Subnetwork,
    TransitionLR,
    lr_factor_of,
    plan_cost,
    width_of,
)
from reference.methods import ODD, T5, TWELVE, two_stacks

SHAPES = [TWELVE, T5, ODD, two_stacks(6, 5, 0, 3), ModelShape.of(layers=1), ModelShape.of(layers=(2, 3))]

numbers = st.one_of(
    st.integers(-3, 14),
    st.sampled_from([2**64, -(2**64), 10**400, 0.5, 0.1, 0.8, 1.0, 0.0, 1e-320, 1e-17, 1 - 1e-16, 1e300, -0.5]),
    st.sampled_from([math.nan, math.inf, -math.inf, True, False, np.int64(2), np.float64(0.5), Fraction(1, 2)]),
    st.floats(0, 1),
)
texts = st.sampled_from(
    ["6-8-10-12", "50%-75%-100%", "3-6-9-12", "100%-50%", "1-7", "7", "100%", "", "fixed", "copy", "both", "50%-100%"]
)
layers = st.lists(st.integers(-4, 5), max_size=3)
junk = st.sampled_from([None, object(), b"6-12", {}, {0, -1}, [[0]], ((0,), "x"), ("a",), [None], 1j, int, range(2)])
lengths = st.one_of(
    st.sampled_from(["equal", "proportional", "even", 3, None]), st.lists(numbers, max_size=5), layers.map(tuple)
)


def tried(build: Any, *args: Any, **kwargs: Any) -> Any:
    """What is built, or None where it is refused in words."""
    try:
        return build(*args, **kwargs)
    except RaptrError as error:
        said = str(error)
    assert len(said) > 20
    assert said.endswith(".")
    return None


schedules = st.builds(
    lambda *args: tried(Schedule, *args),
    st.one_of(layers, st.lists(st.sampled_from([Fraction(1, 2), Fraction(1), 6, 12, 0.5, "6"]), max_size=4), junk),
    lengths,
    numbers,
    numbers,
)
rules = st.builds(lambda rewarm, scale: tried(TransitionLR, rewarm=rewarm, scale=scale), numbers, st.none() | numbers)

# Half of the time what the field can be, so that many specs are made; else anything.
LIKELY: dict[str, Any] = {
    "schedule": st.one_of(texts, schedules),
    "size": st.one_of(texts, st.integers(0, 13)),
    "width": st.sampled_from(["70%-80%-90%-100%", "25%-50%-75%-100%", "100%-100%-100%-100%", "50%-100%", "100%"]),
    "fixed": st.one_of(layers.map(tuple), layers, st.lists(layers.map(tuple), max_size=4)),
    "sampler": st.sampled_from(["fixed", "bernoulli"]),
    "scaling": st.sampled_from(["none", "inverse", "sqrt"]),
    "redraw": st.sampled_from(["step", "micro_step"]),
    "seed": st.integers(0, 2**64 - 1),
    "transition_lr": st.one_of(st.none(), st.sampled_from([TransitionLR(rewarm=3), TransitionLR(scale=0.5)]), rules),
    "narrowed": st.sampled_from(["both", "heads", "neurons"]),
    "rate": st.floats(0, 1),
    "last": st.floats(0, 1),
    "theta": st.floats(0, 1),
    "gamma": st.floats(0, 1),
    "variant": st.sampled_from(["paper", "deepspeed"]),
    "state": st.sampled_from(["copy", "reset"]),
    "new": st.sampled_from(["copy", "fresh", "silent"]),
    "growth": st.integers(1, 12),
    "layers": st.integers(0, 12),
    "at": st.floats(0, 1),
    "doublings": st.integers(0, 4),
    "lengths": lengths,
}


BY_TYPE: dict[Any, Any] = {float: st.floats(0, 1), int: st.integers(0, 12), str: texts, bool: st.booleans()}


def likely_values(key: str, name: str) -> Any:
    """What a field can be: as written above, or as its type says."""
    hint = get_type_hints(METHODS[key])[name]
    if name in LIKELY:
        return LIKELY[name]
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    assert hint in BY_TYPE, f"add {name!r}, a field of {key}, to LIKELY in tests/plan/test_any_arguments.py"
    return BY_TYPE[hint]


def test_every_field_is_tried() -> None:
    fields = [(key, field.name) for key in METHODS for field in dataclasses.fields(METHODS[key])]
    assert all(likely_values(*field) for field in fields)
    assert set(LIKELY) <= {name for _, name in fields}


@st.composite
def arguments(draw: st.DrawFn, key: str) -> dict[str, Any]:
    """Some fields of a spec, each with what it can be or with anything."""
    found = {}
    for field in dataclasses.fields(METHODS[key]):  # type: ignore[arg-type]
        if draw(st.booleans()):
            likely = draw(st.integers(0, 3)) > 0
            values = likely_values(key, field.name) if likely else st.one_of(numbers, texts, layers, junk)
            found[field.name] = draw(values)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("key", METHODS)
def test_any_arguments_end_in_a_spec_and_a_plan_or_in_words(key: str) -> None:
    made: list[int] = []

    @given(arguments(key), st.sampled_from(SHAPES[:4] if "width" in key else SHAPES), st.sampled_from([60, 1, 3, 17]))
    @settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    def check(given_: dict[str, Any], shape: ModelShape, steps: int) -> None:
        spec = tried(METHODS[key], **given_)
        if spec is None:
            return
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert hash(spec) == hash(dataclasses.replace(spec))
        assert str(spec)
        plan = tried(spec.plan, shape, steps)
        if plan is None:
            return
        made.append(steps)
        for step in {0, steps // 2, steps - 1}:
            net = plan.subnetwork(step, 1)
            net.check(shape)
            assert all(part.scale > 0 for i in range(len(net.layers)) for _, part in net.kept(i))
            assert isinstance(plan.transition(step), tuple)
            assert 0 < lr_factor_of(plan, step) < math.inf
        assert 0 <= sum(cost.layers for cost in plan_cost(plan)) <= steps * sum(shape.layers) * (1 + 1e-9)
        assert all(0 < share <= 1 for stage in plan.stages for pair in width_of(plan, stage) for share in pair)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check()
    assert len(made) >= 3, "hardly any plan was made"


@given(st.one_of(layers, junk, numbers, texts), st.one_of(lengths, junk), st.one_of(numbers, texts, junk), numbers)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_any_schedule(sizes: Any, stage_lengths: Any, warmup: Any, alpha: Any) -> None:
    for schedule in (
        tried(Schedule, sizes, stage_lengths, warmup, alpha),
        tried(Schedule.parse, sizes, lengths=stage_lengths, warmup=warmup, alpha=alpha),
    ):
        if schedule is not None:
            hash(schedule)
            tried(schedule.bind, TWELVE, 50)


anything = st.one_of(numbers, texts, layers, layers.map(tuple), junk)


@given(anything, anything, anything, anything)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_any_shape_part_subnetwork_and_rule(one: Any, two: Any, three: Any, four: Any) -> None:
    for built in (
        tried(ModelShape.of, layers=one, heads=two, neurons=three),
        tried(ModelShape, one),
        tried(StackShape, "layers", one, two, three, four),
        tried(LayerPart, scale=one, heads=two, neurons=three, head_scale=four),
        tried(LayerPart, heads=one),
        tried(Subnetwork, one, two),
        tried(Subnetwork, ((0, 1),), three),
        tried(TransitionLR, rewarm=one, scale=two),
        tried(TransitionLR, rewarm=three),
        tried(TransitionLR, scale=four),
    ):
        if built is not None:
            hash(built)
