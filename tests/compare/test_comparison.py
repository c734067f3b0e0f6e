"""`raptr compare`: equal budgets, paired seeds, and a summary that can be repeated."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.runs import contents, metrics, tiny
from raptr.compare import compare, steps_of
from raptr.compare.jobs import _run_task
from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.results.statistics import mean, t_interval
from raptr.train.task import prepare_task

METHODS = ("full", "raptr")


def run(config: RunConfig, folder: Path, cache: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {"methods": ["full", "raptr"], "seeds": 2, "budget": "flops"}
    return compare(config, folder=folder, cache=cache, console=Console(quiet=True), **{**values, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Any]:
    """A finished comparison and its summary."""
    folder = tmp_path_factory.mktemp("comparisons") / "tiny"
    return folder, run(tiny(), folder, cache)


@pytest.mark.slow
def test_summary_has_the_promised_fields(finished: Any) -> None:
    folder, summary = finished
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary))
    for entry in summary["methods"].values():
        assert {
            "steps",
            "tokens",
            "epochs",
            "layer_flops",
            "total_flops",
            "seconds",
            "eval_loss",
            "mean",
            "interval",
            "difference",
            "difference_interval",
        } <= entry.keys()
        assert len(entry["eval_loss"]) == 2


@pytest.mark.slow
def test_summary_is_what_the_runs_measured(finished: Any) -> None:
    folder, summary = finished
    last = {method: [metrics(folder / f"{method}-seed{seed}", "eval")[-1] for seed in (0, 1)] for method in METHODS}
    for method, lines in last.items():
        losses = [line["eval_loss"] for line in lines]
        entry = summary["methods"][method]
        assert entry["eval_loss"] == losses
        assert entry["mean"] == pytest.approx(mean(losses))
        assert entry["seconds"] == pytest.approx(mean([line["seconds"] for line in lines]))
        assert entry["total_flops"] == pytest.approx(lines[0]["total_flops"])
    paired = [a["eval_loss"] - b["eval_loss"] for a, b in zip(last["raptr"], last["full"], strict=True)]
    assert summary["methods"]["raptr"]["difference"] == pytest.approx(mean(paired))
    assert summary["methods"]["raptr"]["difference_interval"] == pytest.approx(t_interval(paired))
    assert summary["methods"]["full"]["verdict"] == "baseline"


@pytest.mark.slow
def test_counted_flops_agree_within_one_step(finished: Any, cache: Path) -> None:
    _, summary = finished
    full, raptr = (summary["methods"][method] for method in ("full", "raptr"))
    assert abs(raptr["total_flops"] - full["total_flops"]) <= prepare_task(tiny(), cache).costs.total
    assert raptr["steps"] > full["steps"]


@pytest.mark.slow
def test_learning_rate_schedules_take_the_same_share_of_every_run(finished: Any) -> None:
    folder, summary = finished
    rates = {name: [line["learning_rate"] for line in metrics(folder / f"{name}-seed0", "train")] for name in METHODS}
    for name in METHODS:
        steps = summary["methods"][name]["steps"]
        warmup = round(2 * steps / 9)  # the config's two warm-up steps of nine
        assert rates[name].index(max(rates[name])) == warmup
        assert rates[name][-1] == pytest.approx(1e-2 / (steps - warmup))
    assert len(rates["raptr"]) > len(rates["full"])


def test_step_counts_of_a_scheduler_are_stretched_and_shares_are_not(cache: Path) -> None:
    kwargs = {"num_decay_steps": 30, "min_lr_ratio": 0.1}
    config = tiny(
        training__max_steps=100,
        training__warmup_steps=0.1,
        training__lr_scheduler_type="warmup_stable_decay",
        training__lr_scheduler_kwargs=kwargs,
    )
    task = prepare_task(config, cache)
    longer = _run_task(task, "raptr", 3, 133).config.training
    assert longer["lr_scheduler_kwargs"] == {"num_decay_steps": 40, "min_lr_ratio": 0.1}
    assert longer["warmup_steps"] == 0.1
    assert longer["max_steps"] == 133
    assert _run_task(task, "full", 3, 100).config.training["lr_scheduler_kwargs"] == kwargs


@pytest.mark.slow
def test_text_that_changes_between_seeds_is_noticed(tmp_path: Path, cache: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of the text\n" for i in range(3000)))
    config = tiny(data__source=str(text), data__tokenizer=280)
    run(config, tmp_path / "c", cache, seeds=1)
    text.write_text(text.read_text() + "one more\n")
    with pytest.raises(RaptrError, match=r"holds another run \(data: "):
        run(config, tmp_path / "c", cache, seeds=2)


@pytest.mark.slow
def test_diverged_method_is_called_that(tmp_path: Path, cache: Path) -> None:
    config = tiny(training__learning_rate=1e30, training__max_grad_norm=0.0)
    summary = run(config, tmp_path / "c", cache, seeds=1)
    assert summary["methods"]["raptr"]["verdict"] == "diverged"
    assert json.loads((tmp_path / "c" / "summary.json").read_text())["methods"]["raptr"]["mean"] is None


@pytest.mark.slow
def test_methods_of_a_seed_start_alike_and_seeds_differ(finished: Any) -> None:
    folder, _ = finished
    start = {run: metrics(folder / run, "eval")[0]["eval_loss"] for run in ("full-seed0", "raptr-seed0", "full-seed1")}
    assert start["full-seed0"] == start["raptr-seed0"] != start["full-seed1"]


@pytest.mark.slow
def test_same_command_trains_nothing_again(finished: Any, cache: Path) -> None:
    folder, summary = finished
    before = contents(folder)
    assert run(tiny(), folder, cache) == summary
    assert contents(folder) == before


@pytest.mark.slow
def test_seeds_can_be_added(finished: Any, tmp_path: Path, cache: Path) -> None:
    folder, _ = finished
    kept = {name: data for name, data in contents(folder).items() if "-seed" in name}
    summary = run(tiny(), folder, cache, seeds=3)
    assert len(summary["methods"]["raptr"]["eval_loss"]) == 3
    after = contents(folder)
    assert all(after[name] == data for name, data in kept.items())


@pytest.mark.slow
def test_comparison_of_another_config_is_refused_and_left_alone(finished: Any, cache: Path) -> None:
    folder, _ = finished
    before = contents(folder)
    with pytest.raises(RaptrError, match="holds another comparison: it has"):
        run(tiny(training__max_steps=10), folder, cache)
    with pytest.raises(RaptrError, match="holds another comparison: it has"):
        run(tiny(), folder, cache, budget="steps")
    assert contents(folder) == before


@pytest.mark.slow
def test_interrupted_comparison_goes_on_where_it_was(tmp_path: Path, cache: Path, finished: Any) -> None:
    class Stop(Exception):
        pass

    class Interrupting(Console):
        def print(self, *args: Any, **kwargs: Any) -> None:
            if "run 3/4" in str(args[0]):
                raise Stop

    with pytest.raises(Stop):
        compare(
            tiny(),
            methods=["full", "raptr"],
            seeds=2,
            budget="flops",
            folder=tmp_path / "c",
            cache=cache,
            console=Interrupting(),
        )
    assert not (tmp_path / "c" / "summary.json").exists()
    first = (tmp_path / "c" / "full-seed0" / "metrics.jsonl").read_bytes()
    summary = run(tiny(), tmp_path / "c", cache)
    assert (tmp_path / "c" / "full-seed0" / "metrics.jsonl").read_bytes() == first
    assert summary["methods"]["raptr"]["eval_loss"] == finished[1]["methods"]["raptr"]["eval_loss"]


@pytest.mark.parametrize("schedule", ["2-3-4", "1-4", "3-4", "25%-50%-100%"])
@pytest.mark.parametrize("steps", [9, 50, 333])
def test_flops_budget_is_met_within_one_step(schedule: str, steps: int, cache: Path) -> None:
    config = tiny(methods__raptr={"schedule": schedule, "fixed": [0]}, training__max_steps=steps)
    task = prepare_task(config, cache)
    method = config.build_method("raptr")
    chosen = steps_of(method, task, "flops", task.costs)
    plan = method.plan(task.shape, chosen)
    spent = sum(task.costs.step(plan.subnetwork(step)) for step in range(chosen))
    assert abs(spent - steps * task.costs.total) <= task.costs.total
    assert chosen > steps


def test_lengths_in_steps_cannot_follow_a_budget_in_flops(cache: Path) -> None:
    task = prepare_task(tiny(methods__raptr={"schedule": "2-4", "lengths": [4, 5]}), cache)
    with pytest.raises(RaptrError, match="give shares"):
        steps_of(task.config.build_method("raptr"), task, "flops", task.costs)
    assert steps_of(task.config.build_method("raptr"), task, "steps", task.costs) == 9


@pytest.mark.parametrize("budget", ["steps", "tokens"])
def test_other_budgets_keep_the_number_of_steps(budget: Any, cache: Path) -> None:
    task = prepare_task(tiny(), cache)
    assert steps_of(task.config.build_method("raptr"), task, budget, task.costs) == 9


@pytest.mark.slow
def test_variants_of_a_method_can_be_compared(tmp_path: Path, cache: Path) -> None:
    config = tiny(methods__short={"method": "raptr", "schedule": "3-4"})
    summary = run(config, tmp_path / "c", cache, methods=["raptr", "short"], seeds=1)
    assert summary["baseline"] == "raptr"
    assert summary["methods"]["short"]["label"] == "RaPTr 3-4"
    assert summary["methods"]["short"]["verdict"] == "one seed: no interval"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["full", "full"]}, "each method once"),
        ({"methods": []}, "each method once"),
        ({"methods": ["full", "stacking"]}, "'stacking' is neither a method of raptr nor an entry"),
        ({"seeds": 0}, "at least 1"),
        ({"seeds": 1001}, "give 1 to 1000"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(RaptrError, match=message):
        run(tiny(), tmp_path / "c", cache, **changes)
    assert not (tmp_path / "c").exists()
