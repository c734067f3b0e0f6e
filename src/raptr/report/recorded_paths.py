"""Which layers each step trained: as it was recorded; where not every record was kept, as the run's plan says.

A plan is a pure function of the step, so the steps without a record are known too, if ``config.yaml`` names the method
with all of its settings. The plan that is made from it is used only if it has the stages that ``run.json`` tells, and
trains at every recorded step the layers that were recorded.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raptr.config import SETTINGS
from raptr.config.yaml import read_yaml
from raptr.plan import ModelShape, Plan, StackShape
from raptr.results.metric_arrays import Bools
from raptr.results.run_files import Run
from raptr.rundir.paths import CONFIG

Source = Literal["records", "plan", "some"]
"""Where it is known from: a record of every step; records and the plan; or it is known of some steps only."""

MOST = 2_000_000
"""Steps times layers: what is larger is not filled in, since making a plan's paths takes seconds."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a run's paths: for each stack ``kept`` is [N, L], of the N completed steps ``step`` (from 1)."""

    step: NDArray[np.int64]
    kept: tuple[Bools, ...]
    source: Source


def known_paths(run: Run) -> Known:
    """Returns the layers that each step of a run trained, of all steps that were reached and of which it is known."""
    seen = run.train.step >= 1
    step, kept = run.train.step[seen], tuple(one[seen] for one in run.train.kept)
    layers = [size for _, size in run.stacks]
    if len(step) == run.reached:
        return Known(step=step, kept=kept, source="records")
    if run.reached > run.steps or run.reached * sum(layers) > MOST:
        return Known(step=step, kept=kept, source="some")
    if (every := _planned(run, step, kept)) is not None:
        return Known(step=np.arange(1, run.reached + 1), kept=every, source="plan")
    return _with_whole_stages(run, step, kept)


def _planned(run: Run, step: NDArray[np.int64], kept: tuple[Bools, ...]) -> tuple[Bools, ...] | None:
    """The layers of all steps that were reached; None if no plan can be made, or if it is not the one that ran."""
    plan = _plan_of(run)
    if plan is None:
        return None
    if [(one.start, one.stop, one.sizes) for one in plan.stages] != [(s.start, s.stop, s.sizes) for s in run.stages]:
        return None
    every = tuple(np.zeros((run.reached, size), dtype=np.bool_) for _, size in run.stacks)
    for number in [*(step - 1).tolist(), *range(run.reached)]:
        for stack, layers in enumerate(plan.subnetwork(number).layers):
            every[stack][number, list(layers)] = True
    same = all(np.array_equal(one[step - 1], recorded) for one, recorded in zip(every, kept, strict=True))
    return every if same else None


def _plan_of(run: Run) -> Plan | None:
    """The plan of the method in ``config.yaml``; None where the files do not say all that it depends on.

    What a stack requires and how wide its layers are is not in them: of a method that depends on it there is no plan.
    """
    try:
        config = read_yaml(run.config, CONFIG)
        name = config["method"]
        settings = {"method": name, **config["methods"].get(name, {})}
        method = SETTINGS[settings["method"]].model_validate(settings).build(config["seed"])
        shape = ModelShape(tuple(StackShape(name, layers) for name, layers in run.stacks))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method.plan(shape, run.steps)
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError):
        return None


def _with_whole_stages(run: Run, step: NDArray[np.int64], kept: tuple[Bools, ...]) -> Known:
    """What was recorded, and the stages in which every step trains every layer."""
    whole = np.zeros(run.reached, dtype=np.bool_)
    for stage in run.stages:
        if all(size == layers for size, (_, layers) in zip(stage.sizes, run.stacks, strict=True)):
            whole[max(stage.start, 0) : max(stage.stop, 0)] = True
    if not all(one[whole[step - 1]].all() for one in kept):
        whole[:] = False
    known = whole.copy()
    known[step - 1] = True
    every = []
    for recorded in kept:
        layers = np.repeat(whole[:, None], recorded.shape[1], axis=1)
        layers[step - 1] = recorded
        every.append(layers[known])
    return Known(step=np.flatnonzero(known) + 1, kept=tuple(every), source="plan" if known.all() else "some")
