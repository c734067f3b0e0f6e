"""Layer and sequence dropping: probabilities, scales and draws against tests/reference/rates.py, and by hand."""

import math
import pickle
import random
from typing import Any

import pytest

from raptr import RaptrError
from raptr.plan import (
    WHOLE,
    LayerCosts,
    LayerPart,
    LayerParts,
    ModelShape,
    Plan,
    SequenceKey,
    Subnetwork,
    for_rows,
    plan_cost,
)
from raptr.plan.layer_part import run_probability
from raptr.plan.methods import LayerDrop, ProgressiveLayerDropping, SequenceLayerDropout, StochasticDepth
from reference import rates as reference
from reference.methods import two_stacks
from reference.rates import Keep

TWO = ModelShape.of(layers=(6, 9))
STEPS = 50

FAMILY: list[tuple[Any, Keep, Keep | None]] = [  # method, keep, what kept layers are divided by
    (LayerDrop(), reference.layerdrop(0.2), None),
    (LayerDrop(rate=0.5, scaling="inverse", seed=3), reference.layerdrop(0.5), reference.layerdrop(0.5)),
    (StochasticDepth(), reference.stochastic_depth(0.5), reference.stochastic_depth(0.5)),
    (StochasticDepth(last=0.2, scaling="none", redraw="micro_step"), reference.stochastic_depth(0.2), None),
    (ProgressiveLayerDropping(gamma=0.05), reference.pld(0.5, 0.05), reference.pld(0.5, 0.05)),
    (
        ProgressiveLayerDropping(theta=0.3, gamma=0.1, variant="deepspeed", redraw="micro_step", seed=2**64 - 1),
        reference.pld_deepspeed(0.3, 0.1),
        reference.pld(0.3, 0.1),
    ),
    (ProgressiveLayerDropping(gamma=1.0, scaling="none", fixed=(0, -2)), reference.pld(0.5, 1.0), None),
]


def places(count: int = 40) -> list[tuple[int, int]]:
    """Steps and micro-steps, the first and the last step among them."""
    some = random.Random(7)
    return [(0, 0), (STEPS - 1, 1), *((some.randrange(STEPS), some.randrange(3)) for _ in range(count))]


@pytest.mark.parametrize(("method", "keep", "divided"), FAMILY)
def test_paths_and_scales_are_those_of_the_reference(method: Any, keep: Keep, divided: Keep | None) -> None:
    plan = method.plan(TWO, STEPS)
    for step, micro in places():
        net = plan.subnetwork(step, micro)
        for i, layers in enumerate(TWO.layers):
            expected = reference.path(
                keep,
                layers=layers,
                steps=STEPS,
                fixed=method.fixed,
                seed=method.seed,
                step=step,
                micro=micro if method.redraw == "micro_step" else 0,
                stack=i,
            )
            assert list(net.layers[i]) == expected
            always = {layer % layers for layer in method.fixed}
            for layer, part in net.kept(i):
                by = 1.0 if divided is None or layer in always else divided(layer + 1, layers, step, STEPS)
                assert part.scale == pytest.approx(1 / by, rel=1e-12)
                assert (part.heads, part.neurons, part.sequences) == (None, None, None)


@pytest.mark.parametrize("inverse", [False, True])
def test_parts_made_together_are_those_made_one_by_one(inverse: bool) -> None:
    key = SequenceKey(seed=1, step=2)
    together = LayerParts((1.5, 2.0), (1.0, 0.5), key, inverse=inverse)
    alone = (LayerPart(scale=1.5), LayerPart(scale=2.0, share=0.5, sequences=key, inverse=inverse))
    assert [together == alone, alone == together, together == alone[:1], together == 1] == [True, True, False, False]
    assert (len(together), list(together), together[-1], together[1:]) == (2, list(alone), alone[-1], alone[1:])
    assert (hash(together), repr(together)) == (hash(alone), repr(alone))
    assert [hash(part) for part in together] == [hash(part) for part in alone]
    assert [repr(part) for part in together] == [repr(part) for part in alone]
    assert pickle.loads(pickle.dumps(together)) == alone
    assert together[1]._replace(heads=(0,)) == alone[1]._replace(heads=(0,)) != alone[1]


@pytest.mark.parametrize(("method", "keep", "divided"), FAMILY)
def test_the_mean_over_a_run_is_that_of_all_steps(method: Any, keep: Keep, divided: Keep | None) -> None:
    for steps in (1, 2, 50, 777):
        plan = method.plan(TWO, steps)
        (stage,) = plan.stages
        for i, layers in enumerate(TWO.layers):
            always = {layer % layers for layer in method.fixed}
            expected = [
                1.0 if layer in always else sum(keep(layer + 1, layers, step, steps) for step in range(steps)) / steps
                for layer in range(layers)
            ]
            assert list(plan.keep(stage)[i]) == pytest.approx(expected, rel=1e-12)
            assert stage.sizes[i] == pytest.approx(sum(expected), abs=1e-6)


def test_the_reference_of_one_variant_is_not_that_of_the_other() -> None:
    """Control, and the off-by-one of the public implementation by hand, at a theta of one half."""
    paper, other = reference.pld(0.5, 10.0), reference.pld_deepspeed(0.5, 10.0)
    assert [paper(layer, 4, 9, 10) for layer in (1, 2, 3, 4)] == [0.875, 0.75, 0.625, 0.5]
    assert [other(layer, 4, 9, 10) for layer in (1, 2, 3, 4)] == [1.0, 0.875, 0.75, 0.625]
    four = ModelShape.of(layers=4)
    late = ProgressiveLayerDropping(gamma=1.0, variant="deepspeed").plan(four, steps=100_000)
    assert late.keep(late.stages[0])[0] == pytest.approx((1.0, 0.875, 0.75, 0.625), abs=1e-5)
    # Kept with 1, 7/8, 6/8, 5/8, and divided by 7/8, 6/8, 5/8, 4/8: those of the next layers.
    scales = {layer: part.scale for step in range(500, 600) for layer, part in late.subnetwork(step).kept(0)}
    assert [1 / scales[layer] for layer in range(4)] == pytest.approx([0.875, 0.75, 0.625, 0.5])


def test_by_hand() -> None:
    """One line each: what a reader of the papers would check first."""
    four = ModelShape.of(layers=4)

    def keep(method: Any, steps: int) -> tuple[float, ...]:
        plan: Plan = method.plan(four, steps)
        return plan.keep(plan.stages[0])[0]

    assert keep(LayerDrop(rate=0.25), 7) == (0.75,) * 4
    assert keep(StochasticDepth(last=0.5), 7) == (0.875, 0.75, 0.625, 0.5)
    assert keep(ProgressiveLayerDropping(), 1) == (1.0,) * 4  # theta(0) = 1
    assert keep(SequenceLayerDropout(rate=0.6), 2) == pytest.approx((1.0, 0.9, 0.8, 0.7))  # half of 0, 0.2, 0.4, 0.6
    # theta(t) = 0.5 exp(-t ln 2) + 0.5: 1, 0.75, mean 0.875; the last layer keeps theta(t).
    assert keep(ProgressiveLayerDropping(gamma=0.6931471805599453), 2)[3] == pytest.approx(0.875)


def test_plds_share_falls_and_the_sequences_share_rises() -> None:
    twelve = ModelShape.of(layers=12)
    falling = ProgressiveLayerDropping(gamma=0.01).plan(twelve, 2000)
    sizes = [falling.subnetwork(step).sizes[0] for step in range(2000)]
    assert sum(sizes[:20]) / 20 > 11
    assert sum(sizes[-200:]) / 200 < 9.5
    rising = SequenceLayerDropout().plan(twelve, 2000)
    parts = [rising.subnetwork(step).parts[0][-1] for step in (0, 500, 1000, 1998)]
    assert [part.share for part in parts] == pytest.approx([0.4, 0.55, 0.7, 1.0], abs=1e-3)
    assert rising.subnetwork(1999) == Subnetwork.full(twelve)


@pytest.mark.parametrize("redraw", ["step", "micro_step"])
@pytest.mark.parametrize("scaling", ["none", "inverse"])
def test_masks_are_those_of_the_reference(redraw: Any, scaling: Any) -> None:
    method = SequenceLayerDropout(rate=0.7, redraw=redraw, scaling=scaling, fixed=(-1,), seed=11)
    plan, keep = method.plan(TWO, STEPS), reference.by_sequence(0.7)
    for step, micro in places(12):
        net = plan.subnetwork(step, micro)
        assert net.layers == Subnetwork.full(TWO).layers
        for i, layers in enumerate(TWO.layers):
            for layer, part in net.kept(i):
                probability = keep(layer + 1, layers, step, STEPS)
                if layer == layers - 1 or probability == 1:
                    assert part == WHOLE
                    continue
                assert part.sequences is not None
                assert part.share == pytest.approx(probability, rel=1e-12)
                inverse = scaling == "inverse"
                assert part.factor() == pytest.approx(1 / probability if inverse else 1, rel=1e-12)
                runs = reference.run_probability(probability, 7)
                assert part.factor(7) == pytest.approx(1 / runs if inverse else 1, rel=1e-12)
                for rank in (0, 3):
                    expected = reference.kept_sequences(
                        probability,
                        batch=7,
                        seed=11,
                        step=step,
                        micro=micro if redraw == "micro_step" else 0,
                        rank=rank,
                        stack=i,
                        layer=layer,
                    )
                    assert list(part.rows(layer, 7, rank)) == expected


def test_every_rank_keeps_a_sequence_and_ranks_differ() -> None:
    parts = [LayerPart(share=0.02, sequences=SequenceKey(seed=1, step=step)) for step in range(200)]
    kept = [[part.rows(0, 4, rank) for rank in range(4)] for part in parts]
    assert all(len(each) >= 1 for ranks in kept for each in ranks)
    assert sum(len(each) for ranks in kept for each in ranks) > 800  # some keep two
    assert {each for ranks in kept for each in ranks if len(each) == 1} == {(0,), (1,), (2,), (3,)}
    assert sum(len(set(ranks)) > 1 for ranks in kept) > 180
    assert parts[0].rows(0, 1) == (0,)
    assert [SequenceKey(seed=1, step=0).kept(0, 1.0, 3, rank) for rank in range(2)] == [(0, 1, 2)] * 2


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("share", [1e-6, 0.02, 0.4, 0.7, 0.999, 1.0])
def test_the_kept_sequence_raises_the_probability_to_run(share: float, batch: int) -> None:
    """By all outcomes of the draws, and as often as sequences run; the share alone is what fails."""
    exact = reference.run_probability(share, batch)
    assert run_probability(share, batch) == pytest.approx(exact, rel=1e-12)
    draws = [SequenceKey(seed=4, step=step).kept(2, share, batch) for step in range(4000)]
    counts = [sum(row in rows for rows in draws) for row in range(batch)]
    error = math.sqrt(max(exact * (1 - exact), 1e-12) / len(draws))
    assert all(abs(count / len(draws) - exact) <= 6 * error for count in counts)
    if exact - share > 12 * error:
        assert all(abs(count / len(draws) - share) > 6 * error for count in counts)
    # What sequences get of the layer's update is 1 on average, and with 1 / share it is not.
    part = LayerPart(share=share, sequences=SequenceKey(seed=4, step=0), inverse=True)
    assert sum(counts) / (batch * len(draws)) * part.factor(batch) == pytest.approx(1, abs=6 * error / exact)
    if exact - share > 12 * error:
        assert sum(counts) / (batch * len(draws)) * part.factor() > 1 + 6 * error / exact


SOME_ROWS: list[tuple[dict[str, Any], int, int]] = [  # settings, rows of a micro-batch, steps
    ({}, 2, 1),
    ({}, 2, 2),
    ({}, 2, STEPS),
    ({}, 3, STEPS),
    ({"rate": 0.95}, 4, STEPS),
    ({"rate": 0.999999}, 2, 4097),
    ({"rate": 0.9}, 2, 5001),
    ({"rate": 0.9}, 3, 6000),
    ({"rate": 0.9}, 8, 20),
    ({"fixed": (0, -1), "rate": 0.8}, 2, STEPS),
    ({"scaling": "none"}, 2, STEPS),
    ({"redraw": "step"}, 3, STEPS),
    ({"rate": 0.0}, 1, STEPS),
]


@pytest.mark.parametrize(("settings", "rows", "steps"), SOME_ROWS)
def test_small_micro_batches_cost_what_their_sequences_run(settings: dict[str, Any], rows: int, steps: int) -> None:
    method = SequenceLayerDropout(**settings)
    nominal, keep = method.plan(TWO, steps), reference.by_sequence(method.rate)
    plan = for_rows(nominal, rows)
    (stage,) = plan.stages
    for i, layers in enumerate(TWO.layers):
        always = {layer % layers for layer in method.fixed}
        expected = [
            1.0
            if layer in always
            else sum(reference.run_probability(keep(layer + 1, layers, step, steps), rows) for step in range(steps))
            / steps
            for layer in range(layers)
        ]
        assert list(plan.keep(stage)[i]) == pytest.approx(expected, rel=1e-7)
        assert stage.sizes[i] == pytest.approx(sum(expected), abs=1e-5)
    assert [plan.subnetwork(step) for step in range(min(steps, 9))] == [
        nominal.subnetwork(s) for s in range(min(steps, 9))
    ]
    if method.rate:
        assert sum(stage.sizes) > sum(nominal.stages[0].sizes) + 1e-3  # control: the share alone


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_a_budget_counts_the_sequences_that_run(rows: int) -> None:
    """Counted over a run on three ranks; the costs of a large batch are too low for two and three sequences."""
    steps, shape = 400, ModelShape.of(layers=12)
    method, costs = SequenceLayerDropout(rate=0.95, seed=5), LayerCosts.uniform(shape)
    plan = method.plan(shape, steps)
    counted = sum(costs.of_layers(plan.subnetwork(step), sequences=rows, ranks=3) for step in range(steps))
    (expected,), (nominal,) = plan_cost(for_rows(plan, rows)), plan_cost(plan)
    error = 0.45 * math.sqrt(12 * steps / (3 * rows))
    assert abs(counted - expected.layers) < 6 * error
    assert (abs(counted - nominal.layers) > 6 * error) == (rows < 8)


@pytest.mark.parametrize("settings", [{}, {"rate": 1e-9}, {"scaling": "none"}, {"fixed": (0, -1)}, {"redraw": "step"}])
def test_one_sequence_is_rejected_with_what_to_use(settings: dict[str, Any]) -> None:
    plan = SequenceLayerDropout(**settings).plan(TWO, STEPS)
    with pytest.raises(
        RaptrError, match=r"nothing would be skipped\. Use micro-batches of at least 2 .*stochastic_depth"
    ):
        for_rows(plan, 1)
    everything_fixed = SequenceLayerDropout(fixed=tuple(range(9))).plan(ModelShape.of(layers=9), STEPS)
    assert for_rows(everything_fixed, 1).keep(everything_fixed.stages[0]) == ((1.0,) * 9,)


@pytest.mark.parametrize("method", [method for method, *_ in FAMILY])
def test_dropping_for_the_whole_batch_does_not_depend_on_its_size(method: Any) -> None:
    plan = method.plan(TWO, STEPS)
    assert for_rows(plan, 1) is plan


@pytest.mark.parametrize("field", ["seed", "step", "micro", "stack", "layer"])
def test_sequences_are_functions_of_all_of_their_place(field: str) -> None:
    base = {"seed": 1, "step": 2, "micro": 3, "stack": 0, "layer": 5}

    def kept(rank: int = 0, **fields: int) -> tuple[int, ...]:
        layer = fields.pop("layer")
        return SequenceKey(**fields).kept(layer, 0.5, 64, rank)

    assert kept(**base) == kept(**base)
    assert kept(**base) != kept(**{**base, field: base[field] + 1})
    assert kept(rank=1, **base) != kept(**base)


def test_required_layers_are_kept_and_not_scaled() -> None:
    shape = two_stacks(6, 6, 0, 3)
    for method in (LayerDrop(rate=0.9, scaling="inverse"), StochasticDepth(last=0.1), SequenceLayerDropout(rate=0.9)):
        with pytest.warns(UserWarning, match=r"layer 3 of 'decoder\.block'") as caught:
            plan = method.plan(shape, 100)
        assert caught[0].filename == __file__
        assert [keep[3] for keep in plan.keep(plan.stages[0])] == [1.0, 1.0]
        for step in range(100):
            parts = dict(plan.subnetwork(step).kept(1))
            assert (parts[3].scale, parts[3].sequences) == (1.0, None)
