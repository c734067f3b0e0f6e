"""Width: heads and neurons against exact Philox in Python's integers, counts and scales by hand."""

import math
from typing import Any

import pytest

from raptr.plan import LayerCosts, ModelShape, RaPTr, Schedule, StackShape, plan_cost
from raptr.plan.methods import DepthWidthRaPTr, WidthRaPTr
from reference import rates as reference
from reference.methods import two_stacks

TWO = ModelShape(
    (StackShape("encoder.block", 3, heads=5, neurons=33), StackShape("decoder.block", 2, heads=4, neurons=18))
)
SHARES = ["25%", "62.5%", "100%"]


@pytest.mark.parametrize("redraw", ["step", "micro_step"])
@pytest.mark.parametrize("narrowed", ["both", "heads", "neurons"])
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_heads_and_neurons_are_those_of_the_reference(redraw: Any, narrowed: Any, seed: int) -> None:
    plan = WidthRaPTr("-".join(SHARES), redraw=redraw, narrowed=narrowed, seed=seed).plan(TWO, 30)
    for step, micro in [(0, 0), (1, 2), (9, 1), (10, 0), (19, 3), (29, 0)]:
        share = SHARES[step // 10]
        net = plan.subnetwork(step, micro)
        assert net.layers == ((0, 1, 2), (0, 1))
        for i, stack in enumerate(TWO.stacks):
            for layer, part in net.kept(i):
                for what, purpose, count, kept in (
                    ("heads", reference.HEADS, stack.heads, part.heads),
                    ("neurons", reference.NEURONS, stack.neurons, part.neurons),
                ):
                    if narrowed not in ("both", what) or share == "100%":
                        assert kept is None
                        continue
                    assert count is not None
                    assert kept is not None
                    assert list(kept) == reference.units(
                        purpose,
                        share=share,
                        count=count,
                        seed=seed,
                        step=step,
                        micro=micro if redraw == "micro_step" else 0,
                        stack=i,
                        layer=layer,
                    )


def test_the_reference_of_heads_is_not_that_of_neurons() -> None:
    """Control: purposes, layers and seeds are streams of their own."""
    place = {"share": "50%", "count": 30, "seed": 1, "step": 4, "micro": 0, "stack": 0, "layer": 1}
    found = [reference.units(reference.HEADS, **place), reference.units(reference.NEURONS, **place)]  # type: ignore[arg-type]
    found += [
        reference.units(reference.HEADS, **{**place, name: 2})  # type: ignore[arg-type]
        for name in ("seed", "step", "micro", "stack", "layer")
    ]
    assert len({tuple(each) for each in found}) == 7


def counts(method: Any, shape: ModelShape, step: int) -> list[tuple[int | None, int | None]]:
    """Kept heads and neurons of the first layer of each stack."""
    net = method.plan(shape, 40).subnetwork(step)
    return [
        tuple(None if kept is None else len(kept) for kept in (parts[0].heads, parts[0].neurons))  # type: ignore[misc]
        for parts in net.parts
    ]


def test_counts_are_rounded_a_half_up_and_never_none() -> None:
    # 5 heads: 1.25, 3.125; 33 neurons: 8.25, 20.625; 4 heads: 1, 2.5; 18 neurons: 4.5, 11.25.
    method = WidthRaPTr("25%-62.5%-100%-100%")
    assert counts(method, TWO, 0) == [(1, 8), (1, 5)]
    assert counts(method, TWO, 10) == [(3, 21), (3, 11)]
    assert counts(method, TWO, 20) == []
    assert counts(WidthRaPTr("1%-100%"), TWO, 0) == [(1, 1), (1, 1)]
    assert counts(WidthRaPTr("95%-100%"), TWO, 0) == [(None, 31), (None, 17)]  # 4.75 and 3.8 heads are all of them


@pytest.mark.parametrize(("scaling", "rule"), [("none", lambda r: 1.0), ("inverse", lambda r: r), ("sqrt", math.sqrt)])
def test_outputs_are_scaled_by_what_really_runs(scaling: Any, rule: Any) -> None:
    for step, ratios in ((0, [(5 / 1, 33 / 8), (4 / 1, 18 / 5)]), (10, [(5 / 3, 33 / 21), (4 / 3, 18 / 11)])):
        net = WidthRaPTr("25%-62.5%-100%-100%", scaling=scaling).plan(TWO, 40).subnetwork(step)
        for parts, (heads, neurons) in zip(net.parts, ratios, strict=True):
            for part in parts:
                assert part.scale == 1
                assert part.head_scale == pytest.approx(rule(heads))
                assert part.neuron_scale == pytest.approx(rule(neurons))
    heads_only = WidthRaPTr("25%-100%", scaling="inverse", narrowed="heads").plan(TWO, 40).subnetwork(0)
    assert {(part.head_scale, part.neuron_scale) for part in heads_only.parts[0]} == {(5.0, 1.0)}


def test_depth_and_width_together_are_the_path_of_raptr_with_parts_of_its_layers() -> None:
    shape = ModelShape.of(layers=6, heads=4, neurons=20)
    both = DepthWidthRaPTr("3-4-6", width="50%-75%-100%", scaling="sqrt", seed=5).plan(shape, 90)
    depth = RaPTr("3-4-6", scaling="sqrt", seed=5).plan(shape, 90)
    width = WidthRaPTr("50%-75%-100%", scaling="sqrt", seed=5).plan(shape, 90)
    for step in range(90):
        net, path, wide = both.subnetwork(step), depth.subnetwork(step), width.subnetwork(step)
        assert net.layers == path.layers
        parts = dict(wide.kept(0))
        for (layer, part), (_, scaled) in zip(net.kept(0), path.kept(0), strict=True):
            assert part.scale == scaled.scale
            assert (part.heads, part.neurons) == (parts[layer].heads, parts[layer].neurons)
            assert (part.head_scale, part.neuron_scale) == (parts[layer].head_scale, parts[layer].neuron_scale)
    assert [stage.label for stage in both.stages] == ["3 x 50%", "4 x 75%", "6"]


def test_the_warm_up_has_the_whole_width() -> None:
    plan = WidthRaPTr(Schedule.parse("50%-100%", warmup=0.5)).plan(TWO, 40)
    assert [(stage.label, stage.width, stage.steps) for stage in plan.stages] == [
        ("warm-up 3+2", 1.0, 20),
        ("3+2 x 50%", 0.5, 10),
        ("3+2", 1.0, 10),
    ]
    assert [plan.subnetwork(step).parts == () for step in (0, 19, 20, 29, 30)] == [True, True, False, False, True]


def test_the_cost_of_a_width_by_hand() -> None:
    # A third of a layer is attention: of 4 heads 2 run; two thirds are the MLP: of 6 neurons 3 run.
    shape = ModelShape.of(layers=2, heads=4, neurons=6)
    plan = WidthRaPTr("50%-100%").plan(shape, 20)
    assert [cost.layers for cost in plan_cost(plan)] == pytest.approx([10 * 2 * 0.5, 20])
    costs = LayerCosts(layers=((10.0, 20.0),), other=1.0, heads=((2.0, 4.0),), neurons=((4.0, 8.0),))
    # (10 - 1 - 2) + (20 - 2 - 4) + 1
    assert costs.step(plan.subnetwork(0), shape) == pytest.approx(22)
    assert plan_cost(plan, costs)[0].total == pytest.approx(220)
    assert plan_cost(WidthRaPTr("50%-100%", narrowed="heads").plan(shape, 20), costs)[0].layers == pytest.approx(270)


def test_required_layers_are_no_news_where_every_layer_runs(recwarn: pytest.WarningsRecorder) -> None:
    WidthRaPTr().plan(two_stacks(6, 6, 0, 2), 30)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="layer 2"):
        DepthWidthRaPTr().plan(two_stacks(6, 6, 0, 2), 30)
