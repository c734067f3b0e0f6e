"""`method=smaller` trains and plans the smaller model, also outside of a comparison, and reduces it once only."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.runs import metrics, run, tiny
from helpers.stopping import interrupted
from raptr.compare import compare
from raptr.config import RunConfig, load
from raptr.config.method_settings import GivenModel
from raptr.config.smaller import SmallerSettings
from raptr.config.yaml import read_yaml, write_yaml
from raptr.errors import RaptrError
from raptr.plan import METHODS, LayerCosts, ModelShape, StackShape
from raptr.train.task import own_task, plan_run, prepare_task, task_of

T5 = {
    "architecture": "t5",
    "config": {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 4, "num_decoder_layers": 2},
}


def smaller(layers: str | None = "2", **changes: Any) -> RunConfig:
    methods = {"raptr": {"schedule": "2-3-4"}, **({} if layers is None else {"smaller": {"layers": layers}})}
    return tiny(method="smaller", methods=methods, **changes)


@pytest.mark.slow
def test_a_run_trains_the_smaller_model(tmp_path: Path, cache: Path) -> None:
    task, result = run(smaller(), tmp_path / "run", cache)
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (told["label"], told["control"]) == ("Smaller, 2 layers", "smaller")
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["num_hidden_layers"] == 2
    assert all(line["layers"] == [[0, 1]] for line in metrics(tmp_path / "run", "train"))
    assert result["layer_flops"] == pytest.approx(9 * sum(task.costs.layers[0][:2]))
    assert task.shape.layers == (4,), "as it was given"


@pytest.mark.parametrize(("layers", "depth"), [("2", 2), ("25%", 1), (None, 3)])
def test_the_config_that_a_run_keeps_is_not_reduced_again(layers: str | None, depth: int, cache: Path) -> None:
    once = own_task(prepare_task(smaller(layers), cache))
    assert (once.shape.layers, once.config.model.config["num_hidden_layers"]) == ((depth,), depth)
    again = prepare_task(once.config, cache)
    assert own_task(again) is again
    assert own_task(again).config == once.config
    other = prepare_task(tiny(), cache)
    assert own_task(other) is other  # control: another method


@pytest.mark.parametrize(("layers", "depth"), [("2", 2), ("25%", 1), (None, 3)])
def test_a_plan_is_of_the_smaller_model(layers: str | None, depth: int, cache: Path) -> None:
    planned = plan_run(smaller(layers))
    assert planned.plan.shape.layers == (depth,)
    assert planned.name == ("a smaller model" if layers is None else f"a smaller model of {layers} layers")
    larger = prepare_task(smaller(layers), cache)
    task = task_of(larger, "smaller")
    assert planned.costs.layers == task.costs.layers
    assert (planned.layers, planned.parameters) == (4, larger.layer_parameters), "what it is compared with"
    assert planned.tokens == pytest.approx(9 * task.costs.total / larger.costs.total * 4 * 16)
    assert plan_run(task.config).plan.shape.layers == (depth,)


@pytest.mark.slow
def test_a_depth_that_is_not_smaller_is_refused_in_a_run_too(tmp_path: Path, cache: Path) -> None:
    for layers in ("100%", "5", "2-3"):
        with pytest.raises(RaptrError, match="layers"):
            run(smaller(layers), tmp_path / "run", cache)
        with pytest.raises(RaptrError, match="layers"):
            plan_run(smaller(layers))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_stacks_of_other_depths_are_written_one_by_one() -> None:
    planned = plan_run(smaller("75%", model=T5, objective={"name": "denoising"}, data__sequence_length=512))
    assert planned.plan.shape.layers == (3, 2)
    shape = ModelShape(stacks=(StackShape(name="encoder", layers=4), StackShape(name="decoder", layers=3)))
    costs = LayerCosts.uniform(shape)
    given = GivenModel(shape=shape, costs=costs, steps=9, method=lambda label: METHODS[label]())
    assert SmallerSettings(layers="3+2").own_sizes("smaller", given) == (3, 2)
    assert SmallerSettings().with_sizes((3, 2)).layers == "3+2"
    assert SmallerSettings(layers="4+3").is_own(shape)
    assert not SmallerSettings(layers="3+2").is_own(shape)
    for wrong in ("4+3", "5+1", "0+1", "1+1+1"):
        with pytest.raises(RaptrError, match=r"methods\.smaller\.layers is .* \(4\+3\)"):
            SmallerSettings(layers=wrong).own_sizes("smaller", given)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["now", "without its depth"])
def test_a_stopped_run_of_a_comparison_goes_on_by_either_command(before: str, tmp_path: Path, cache: Path) -> None:
    config = smaller(None, checkpoints__every=2)
    task = task_of(prepare_task(config, cache), "smaller")
    folder = tmp_path / "c" / "smaller-seed0"

    compare(
        config,
        methods=["full", "smaller"],
        seeds=1,
        budget="steps",
        folder=tmp_path / "c",
        cache=cache,
        console=Console(quiet=True),
    )
    stored = load(folder / "config.yaml")
    reference = (folder / "model" / "model.safetensors").read_bytes()
    assert stored.methods["smaller"].layers == "3"
    assert stored.model.config == task.config.model.config
    interrupted(stored, tmp_path / "run", cache, 7)
    if before != "now":  # as raptr wrote it when only the model's own config had the depth
        content = read_yaml((tmp_path / "run" / "config.yaml").read_text(), "config.yaml")
        content["methods"] = {}
        (tmp_path / "run" / "config.yaml").write_text(write_yaml(content))
    run(stored, tmp_path / "run", cache)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == reference
    with pytest.raises(RaptrError, match=r"num_hidden_layers: 3 -> 2"):
        run(smaller("2", checkpoints__every=2), tmp_path / "run", cache)
