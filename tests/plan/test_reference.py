"""raptr's plans against an independent re-implementation in plain Python (tests/reference/plan.py)."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raptr.errors import RaptrError
from raptr.plan import ModelShape, RaPTr, Schedule, rng
from raptr.plan.methods.path_plan import PathPlan
from reference import plan as reference

# Random123's own known-answer vectors for philox4x64-10 (kat_vectors): counter, key, result.
KNOWN = [
    ("0 0 0 0", "0 0", "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
    (
        "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff",
        "ffffffffffffffff ffffffffffffffff",
        "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    ),
    (
        "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
        "452821e638d01377 be5466cf34e90c6c",
        "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
    ),
]


def _hex(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_the_reference_generator_gives_the_published_answers(counter: str, key: str, result: str) -> None:
    assert reference.philox(_hex(counter), _hex(key)) == _hex(result)


@given(
    seed=st.integers(0, 2**64 - 1),
    purpose=st.sampled_from([rng.PATHS, rng.MASKS, rng.ORDER]),
    place=st.tuples(st.integers(0, 2**40), st.integers(0, 2**20), st.integers(0, 9)),
    count=st.integers(0, 40),
)
@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_words_are_those_of_philox(seed: int, purpose: int, place: tuple[int, int, int], count: int) -> None:
    assert rng.words(seed, purpose, place, count).tolist() == reference.words(seed, purpose, place, count)


@st.composite
def specs(draw_: st.DrawFn) -> dict[str, Any]:
    """Arguments of a RaPTr plan; a stage may be too short, everything else is right."""
    layers = draw_(st.lists(st.integers(2, 14), min_size=1, max_size=2).map(tuple))
    smallest = min(layers)
    fixed = draw_(st.lists(st.integers(-smallest, smallest - 1), max_size=min(3, smallest), unique=True).map(tuple))
    always = max(len({layer % count for layer in fixed}) for count in layers)
    if len(set(layers)) == 1 and draw_(st.booleans()):
        sizes = draw_(st.lists(st.integers(max(1, always), smallest), max_size=5))
        text = "-".join(map(str, [*sorted(sizes), smallest]))
    else:
        least = -(-100 * (2 * always + 1) // (2 * smallest))  # the first whole per cent that keeps the fixed set
        shares = draw_(st.lists(st.integers(min(100, max(1, least)), 100), max_size=5))
        text = "-".join(f"{share}%" for share in [*sorted(shares), 100])
    steps = draw_(st.integers(1, 600))
    warmup = draw_(st.one_of(st.just(0), st.integers(0, steps // 2), st.floats(0, 0.5)))
    count = text.count("-") + 1
    lengths: Any = draw_(st.sampled_from(["equal", "proportional", "shares", "counts"]))
    if lengths == "shares":
        cuts = sorted(draw_(st.lists(st.integers(1, 9999), min_size=count - 1, max_size=count - 1, unique=True)))
        lengths = tuple((b - a) / 10000 for a, b in zip([0, *cuts], [*cuts, 10000], strict=True))
    elif lengths == "counts":
        rest = steps - (warmup if isinstance(warmup, int) else round(warmup * steps))
        if rest < count:
            lengths = "equal"
        else:
            cuts = sorted(
                draw_(st.lists(st.integers(1, max(1, rest - 1)), min_size=count - 1, max_size=count - 1, unique=True))
            )
            lengths = tuple(b - a for a, b in zip([0, *cuts], [*cuts, rest], strict=True))
    return {
        "layers": layers,
        "text": text,
        "fixed": fixed,
        "steps": steps,
        "warmup": warmup,
        "lengths": lengths,
        "sampler": draw_(st.sampled_from(["fixed", "bernoulli"])),
        "redraw": draw_(st.sampled_from(["step", "micro_step"])),
        "seed": draw_(st.integers(0, 2**64 - 1)),
        "places": draw_(st.integers(0, 2**32)),
    }


def _differences(spec: dict[str, Any], seed: int) -> list[str]:
    """Where raptr's plan differs from the reference, which draws with ``seed``."""
    layers, steps, fixed, sampler = spec["layers"], spec["steps"], spec["fixed"], spec["sampler"]
    expected = reference.stages_of(spec["text"], layers, steps, spec["lengths"], spec["warmup"])
    method = RaPTr(
        Schedule.parse(spec["text"], lengths=spec["lengths"], warmup=spec["warmup"]),
        fixed=fixed,
        sampler=sampler,
        redraw=spec["redraw"],
        seed=spec["seed"],
    )
    if any(stop <= start for start, stop, _ in expected):
        with pytest.raises(RaptrError):
            method.plan(ModelShape.of(layers=layers), steps)
        return []
    plan = method.plan(ModelShape.of(layers=layers), steps)
    found = [(stage.start, stage.stop, stage.sizes) for stage in plan.stages]
    wrong = [] if found == expected else [f"stages {found} instead of {expected}"]
    places = random.Random(spec["places"])
    for _ in range(8):
        step, micro = places.randrange(steps), places.randrange(3)
        drawn = micro if spec["redraw"] == "micro_step" else 0
        sizes = next(sizes for start, stop, sizes in expected if start <= step < stop)
        paths = tuple(
            tuple(
                reference.path(
                    layers=count, size=size, fixed=fixed, sampler=sampler, seed=seed, step=step, micro=drawn, stack=i
                )
            )
            for i, (count, size) in enumerate(zip(layers, sizes, strict=True))
        )
        if plan.subnetwork(step, micro).layers != paths:
            wrong.append(f"step {step}.{micro}: {plan.subnetwork(step, micro).layers} instead of {paths}")
    return wrong


@given(specs())
@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_plans_equal_the_reference(spec: dict[str, Any]) -> None:
    assert _differences(spec, spec["seed"]) == []


def test_the_comparison_notices_another_seed() -> None:
    spec = {
        "layers": (12, 6),
        "text": "50%-75%-100%",
        "fixed": (0, -1),
        "steps": 300,
        "warmup": 0,
        "lengths": "equal",
        "sampler": "fixed",
        "redraw": "step",
        "seed": 5,
        "places": 0,
    }
    assert _differences(spec, 5) == []
    assert _differences(spec, 6)


def test_the_comparison_notices_draws_for_each_micro_step() -> None:
    spec: dict[str, Any] = {"layers": (12,), "text": "50%-100%", "fixed": (), "steps": 300, "warmup": 0}
    spec |= {"lengths": "equal", "sampler": "fixed", "redraw": "micro_step", "seed": 5, "places": 0}
    assert _differences(spec, 5) == []
    with pytest.MonkeyPatch.context() as patch:  # control: a plan that overlooks the micro-step
        patch.setattr(PathPlan, "subnetwork", lambda plan, step, micro=0, real=PathPlan.subnetwork: real(plan, step))
        assert _differences(spec, 5)
