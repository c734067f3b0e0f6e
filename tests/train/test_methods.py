"""Every method through the engine: what ran and what it cost, growth, learning rates, micro-steps, and resume."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.every_method import DROPPING, GROWING, LAYERS, SETTINGS_OF, STEPS, config_of, full_step
from helpers.runs import TINY, metrics, run
from helpers.stopping import interrupted, same_end
from raptr import RaptrError, Subnetwork, attach
from raptr.compare.budget import steps_of
from raptr.config import SETTINGS
from raptr.config.smaller import SMALLER
from raptr.plan import METHODS, Full, LayerCosts, ModelShape, plan_cost, trained_part
from raptr.train.callbacks.metrics import layer_flops
from raptr.train.setup.model import build_model
from raptr.train.task import plan_run, prepare_task


def test_kinds_of_methods_by_hand() -> None:
    """Of the methods whose kind is known; that of others follows from their plans."""
    assert {"gradual_stacking", "progressive_stacking", "midas", "gstack", "late_expansion"} <= set(GROWING)
    assert {"layerdrop", "stochastic_depth", "pld", "sequence_layer_dropout"} <= set(DROPPING)
    assert not {"full", "raptr", "width_raptr", "constant_size", "reversed"} & {*GROWING, *DROPPING}
    last = STEPS - 1
    found = {method: full_step(method) for method in METHODS}
    for method in ("full", "raptr", "width_raptr", "depth_width_raptr", *GROWING):
        assert found[method] == last
    assert [found[method] for method in ("constant_size", "reversed")] == [None, 2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Any:
    """The finished run of a method, trained when it is first asked for."""
    root, done = tmp_path_factory.mktemp("methods"), set[str]()

    def finished(method: str) -> Path:
        if method not in done:
            run(config_of(method), root / method, cache)
            done.add(method)
        return root / method

    return finished


every_method = pytest.mark.parametrize("method", METHODS)


@pytest.mark.slow
@every_method
def test_a_run_costs_what_its_plan_says(method: str, runs: Any, cache: Path) -> None:
    folder, task = runs(method), prepare_task(config_of(method), cache)
    plan = task.plan(config_of(method).build_method())
    lines = metrics(folder, "train")
    assert len(lines) == STEPS
    batch = task.batch
    spent = 0.0
    for step, line in enumerate(lines):
        part = plan.subnetwork(step)
        assert [tuple(path) for path in line["layers"]] == list(part.layers)
        spent += task.costs.of_layers(part, plan.shape, batch)
        assert line["layer_flops"] == pytest.approx(spent)
        assert line["total_flops"] == pytest.approx(spent + (step + 1) * task.costs.other)
        assert math.isfinite(line["loss"])
    expected = sum(stage.layers for stage in plan_cost(plan, task.costs))
    assert spent == pytest.approx(expected, rel=0.35 if method in DROPPING else 1e-9)
    full = STEPS * task.costs.all_layers
    assert (spent == pytest.approx(full)) == (method == "full")


# A resumed run depends on its method through the plan alone, which is a function of the step for every method
# (tests/plan/test_matrix.py). One method for each class of plan therefore stands for the others.
RESUMED = ("full", "raptr", "pld", "sequence_layer_dropout", "depth_width_raptr", "midas")


def test_a_method_of_every_class_of_plan_is_resumed(cache: Path) -> None:
    task = prepare_task(config_of("full"), cache)
    classes = {method: type(task.plan(config_of(method).build_method())) for method in METHODS}
    assert {classes[method] for method in RESUMED} == set(classes.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", RESUMED)
def test_a_stopped_run_ends_as_if_it_had_not_been(method: str, runs: Any, tmp_path: Path, cache: Path) -> None:
    config = config_of(method, checkpoints__every=2)
    interrupted(config, tmp_path / "run", cache, 9)
    run(config, tmp_path / "run", cache)
    same_end(tmp_path / "run", runs(method))


@pytest.mark.slow
@pytest.mark.parametrize("method", GROWING)
def test_stopped_on_either_side_of_a_boundary(method: str, runs: Any, tmp_path: Path, cache: Path) -> None:
    stages = json.loads((runs(method) / "run.json").read_text())["plan"]["stages"]
    boundary = stages[-1]["start"]
    config = config_of(method, checkpoints__every=1)
    lines = [json.loads(line) for line in (runs(method) / "metrics.jsonl").read_text().splitlines()]
    # The checkpoint of step s is written after s steps, so the next attempt begins with step s: once with the copies
    # still to be made, once with the last step before them, once right after them. Which side of the boundary a step
    # is on does not depend on the method, so one method is stopped on both sides, the others where copies are made.
    both_sides = (boundary - 1, boundary, boundary + 1)
    for completed in both_sides if method == "gradual_stacking" else (boundary,):
        at = next(i for i, line in enumerate(lines) if line["kind"] == "train" and line["step"] == completed + 1)
        interrupted(config, tmp_path / f"at-{completed}", cache, at + 1)
        kept = sorted((tmp_path / f"at-{completed}" / "checkpoints").glob("checkpoint-*"), key=lambda p: len(p.name))
        assert any(path.name == f"checkpoint-{completed}" for path in kept)
        run(config, tmp_path / f"at-{completed}", cache)
        same_end(tmp_path / f"at-{completed}", runs(method))


@pytest.mark.slow
@pytest.mark.parametrize("method", GROWING)
def test_until_it_has_grown_the_trained_part_is_validated_beside_the_full_model(method: str, runs: Any) -> None:
    folder = runs(method)
    boundary = json.loads((folder / "run.json").read_text())["plan"]["stages"][-1]["start"]
    lines = metrics(folder, "eval")
    before = [line for line in lines if max(line["step"] - 1, 0) < boundary]
    after = [line for line in lines if line not in before]
    assert before
    assert after
    for line in before:
        assert line["eval_loss_active"] != line["eval_loss"]
    assert not any("eval_loss_active" in line for line in after)
    if method != "late_expansion":  # it has only embeddings and head to train
        assert before[-1]["eval_loss_active"] < before[0]["eval_loss_active"]
    assert json.loads((folder / "result.json").read_text())["eval_loss"] == after[-1]["eval_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(set(METHODS) - set(GROWING)))
def test_where_every_layer_is_trained_nothing_else_is_validated(method: str, runs: Any) -> None:
    assert not any("eval_loss_active" in line for line in metrics(runs(method), "eval"))


def test_the_part_that_was_trained_is_what_was_on_a_path_so_far() -> None:
    shape = ModelShape.of(layers=LAYERS)
    plan = METHODS["gradual_stacking"]("2-3-4").plan(shape, 30)
    found = [trained_part(plan, step) for step in (0, 9, 10, 20)]
    assert [part and part.layers for part in found] == [((0, 1),), ((0, 1),), ((0, 1, 2),), None]
    assert trained_part(Full().plan(shape, 30), 0) is None
    fixed_only = METHODS["raptr"]("2-3-4").plan(shape, 30)  # its first stage has the fixed layers and no other
    assert [part and part.layers for part in (trained_part(fixed_only, step) for step in (9, 10))] == [((0, 3),), None]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradual_stacking", "midas"])
def test_the_learning_rate_follows_the_boundaries(method: str, runs: Any, tmp_path: Path, cache: Path) -> None:
    folder = runs(method)
    starts = [stage["start"] for stage in json.loads((folder / "run.json").read_text())["plan"]["stages"]]
    plain = {key: value for key, value in SETTINGS_OF[method].items() if key != "transition_lr"}
    run(config_of(method, methods={method: plain}), tmp_path / "plain", cache)
    for line, other in zip(metrics(folder, "train"), metrics(tmp_path / "plain", "train"), strict=True):
        step = line["step"] - 1
        start = max(begin for begin in starts if begin <= step)
        if method == "gradual_stacking":  # rewarm: 3
            factor = 1.0 if start == 0 else min(1.0, (step - start + 1) / 3)
        else:  # scale: 0.5
            factor = 0.5 ** starts.index(start)
        assert line["learning_rate"] == pytest.approx(other["learning_rate"] * factor)
    last = [metrics(each, "train")[-1]["loss"] for each in (folder, tmp_path / "plain")]
    assert last[0] != last[1]  # and it is the one that was used


@pytest.mark.slow
@pytest.mark.parametrize("method", ["raptr", "layerdrop", "sequence_layer_dropout", "width_raptr"])
def test_every_micro_step_can_have_a_part_of_its_own(method: str, tmp_path: Path, cache: Path) -> None:
    training = TINY["training"] | {"gradient_accumulation_steps": 2, "max_steps": STEPS}
    found = {}
    # Control: without it, nothing is drawn anew. One method trains so, too: its losses must differ.
    plain = config_of(method, methods={method: {**SETTINGS_OF.get(method, {}), "redraw": "step"}}, training=training)
    task = prepare_task(plain, cache)
    plan = task.plan(plain.build_method())
    assert all(plan.subnetwork(step) == plan.subnetwork(step, micro=1) for step in range(STEPS))
    for redraw in ("step", "micro_step") if method == "raptr" else ("micro_step",):
        settings = {**SETTINGS_OF.get(method, {}), "redraw": redraw}
        config = config_of(method, methods={method: settings}, training=training)
        task, result = run(config, tmp_path / redraw, cache)
        plan = task.plan(config.build_method())
        differ = [plan.subnetwork(step) != plan.subnetwork(step, micro=1) for step in range(STEPS)]
        assert any(differ) == (redraw == "micro_step")
        parts = [[plan.subnetwork(step, micro) for micro in range(2)] for step in range(STEPS)]
        spent = sum(layer_flops(drawn, plan.shape, task.costs, task.batch // 2) for drawn in parts)
        assert result["layer_flops"] == pytest.approx(spent)
        found[redraw] = result["eval_loss"]
    assert method != "raptr" or found["step"] != found["micro_step"]


def test_flops_of_a_step_are_the_mean_over_its_micro_steps(cache: Path) -> None:
    config = config_of("layerdrop", methods={"layerdrop": {"rate": 0.5, "redraw": "micro_step"}})
    task = prepare_task(config, cache)
    plan = task.plan(config.build_method())
    costs = LayerCosts.uniform(task.shape)
    by_hand = [sum(len(plan.subnetwork(5, micro).layers[0]) for micro in range(4)) / 4]
    drawn = [plan.subnetwork(5, micro) for micro in range(4)]
    assert [layer_flops(drawn, plan.shape, costs)] == by_hand
    assert layer_flops(drawn[:1], plan.shape, costs) == len(plan.subnetwork(5).layers[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in METHODS if full_step(method) is not None])
def test_a_full_step_is_bit_for_bit_one_of_the_untouched_model(method: str, cache: Path) -> None:
    config = config_of(method)
    task = prepare_task(config, cache)
    plan = task.plan(config.build_method())
    full = full_step(method)
    assert full is not None
    batch = task.collator()([task.training_data(STEPS)[i] for i in range(4)])
    found = []
    for attached in (False, True):
        model = build_model(config, task.model_config).train()
        if attached:
            net = attach(model)
            net.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
            for step in (max(full - 1, 0), full):  # also after a step of a smaller part
                if not plan.transition(step):
                    net.activate(plan, step)
            assert net.subnetwork == Subnetwork.full(task.shape)
        loss = model(**batch).loss
        loss.backward()
        found.append((loss, {name: p.grad for name, p in model.named_parameters()}))
    (plain, expected), (loss, gradients) = found
    assert torch.equal(loss, plain)
    assert all(torch.equal(gradients[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("objective", [{"name": "causal"}, {"name": "denoising", "denoisers": {"R3": 0.5, "X3": 0.5}}])
def test_expected_costs_are_those_of_the_micro_batch(objective: dict[str, Any], cache: Path) -> None:
    """The same batch in micro-batches of 8, 2 and 1: the fewer sequences, the less is skipped; one is rejected."""
    given: dict[str, Any] = {"objective": objective, "data__sequence_length": 64}
    shares = {}
    for rows in (8, 2):
        changes = {"training__gradient_accumulation_steps": 8 // rows, **given}
        config = config_of("sequence_layer_dropout", training__per_device_train_batch_size=rows, **changes)
        task, planned = prepare_task(config, cache), plan_run(config)
        plan = task.plan(config.build_method())
        assert task.rows == rows
        assert planned.plan == plan
        full = task.steps * task.costs.all_layers
        shares[rows] = sum(stage.layers for stage in plan_cost(plan, task.costs)) / full
        steps = steps_of(config.build_method(), task, "flops", task.costs)
        longer = task.plan(config.build_method(), steps)
        spent = sum(task.costs.of_layers(longer.subnetwork(step), task.shape, rows) for step in range(steps))
        assert spent + steps * task.costs.other == pytest.approx(task.steps * task.costs.total, rel=0.1)
    by_hand = sum((0.6 * layer / 3 * t / 11) ** 2 / 2 for layer in range(4) for t in range(12)) / (4 * 12)
    assert shares == {2: pytest.approx(0.85 + by_hand, rel=1e-9), 8: pytest.approx(0.85, abs=1e-3)}
    one = config_of("sequence_layer_dropout", training__per_device_train_batch_size=1, **given)
    for attempt in (lambda: plan_run(one), lambda: prepare_task(one, cache).plan(one.build_method())):
        with pytest.raises(RaptrError, match="Use micro-batches of at least 2 sequences"):
            attempt()
    assert plan_run(config_of("stochastic_depth", training__per_device_train_batch_size=1)).plan.stages  # control


def test_settings_cover_every_method() -> None:
    assert set(SETTINGS) == {*METHODS, SMALLER}
    for key, spec in METHODS.items():
        assert SETTINGS[key]().build(0) == spec()  # type: ignore[call-arg]
        assert spec.name == key
