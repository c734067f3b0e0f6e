"""run.json, result.json and comparison.json: what a run is, what it did, and what belongs to a comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from raptr.plan import Plan, Stage
from raptr.rundir import paths
from raptr.rundir.json_record import INLINE, number, omitted, section
from raptr.rundir.metrics_lines import COUNTERS, Totals

BROKEN = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""Exceptions that the ``of`` of a record raises if the content lacks or garbles something."""


class ModelInfo(TypedDict, total=False):
    """The model of a run: its kind, and its parameters, all of them and those of the layers."""

    architecture: str
    from_pretrained: str | None
    parameters: int
    layer_parameters: int


class FlopsInfo(TypedDict, total=False):
    """FLOPs of one step of the whole batch: those of each layer of each stack, and those besides the layers.

    ``predictions`` is the number of positions whose labels are predicted, if they are not all.
    """

    convention: str
    layers: Sequence[Sequence[float]]
    other: float
    predictions: float


class Environment(TypedDict, total=False):
    """Environment of a run: versions, processor, threads, accelerator, number of processes and engine."""

    python: str
    raptr: str
    torch: str
    transformers: str
    accelerate: str
    numpy: str
    platform: str
    cpu: str
    cores: int | None
    threads: int
    device: str
    processes: int
    engine: str


@dataclass(frozen=True, kw_only=True)
class StackInfo:
    """A stack's name and its number of layers."""

    name: str
    layers: int


@dataclass(frozen=True, kw_only=True)
class PlanInfo:
    """The plan of a run.

    Attributes:
        stacks: of the model.
        stages: with the sizes and the width of each.
        fingerprint: of what the plan says of every step; None in folders that are older than it.
    """

    stacks: tuple[StackInfo, ...]
    stages: tuple[Stage, ...]
    fingerprint: str | None = omitted(None)

    @classmethod
    def of_plan(cls, plan: Plan, fingerprint: str) -> "PlanInfo":
        """Return the record of a plan."""
        stacks = tuple(StackInfo(name=stack.name, layers=stack.layers) for stack in plan.shape.stacks)
        return cls(stacks=stacks, stages=tuple(plan.stages), fingerprint=fingerprint)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "PlanInfo":
        """Return what a file says.

        Raises:
            KeyError, TypeError, ValueError: the file lacks or garbles something, see `BROKEN`.
        """
        return cls(
            stacks=tuple(StackInfo(name=str(one["name"]), layers=int(one["layers"])) for one in content["stacks"]),
            stages=tuple(map(_stage, content["stages"])),
            fingerprint=content.get("fingerprint"),
        )


@dataclass(frozen=True, kw_only=True)
class ChangeInfo:
    """A value that was changed when a run was resumed.

    Attributes:
        after_step: the step of the checkpoint from which the run was resumed.
        key: of the config, with dots, or a fact such as "data" or "torch".
        old: what it was.
        new: what it is since.
    """

    after_step: int
    key: str
    old: Any
    new: Any

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "ChangeInfo":
        """Return what a file says.

        Raises:
            KeyError, TypeError: the file lacks or garbles something, see `BROKEN`.
        """
        return cls(after_step=content["after_step"], key=content["key"], old=content["old"], new=content["new"])


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Facts of a run that are known before it begins: the content of run.json.

    Attributes:
        format: of the folder.
        name: of the run's config.
        method: the name of the method in the config.
        label: what the run is called.
        control: what the run is a control for; empty for a method.
        seed: of the run.
        steps: that the run takes.
        plan: stacks and stages.
        model: what is trained.
        flops: of one step.
        data: what the token store says of itself.
        validation: the names of the validation sources.
        environment: where the run was made.
        command: that was given.
        changes: what was changed when the run was resumed; None if it never was.
    """

    format: int = paths.FORMAT
    name: str
    method: str
    label: str
    control: str = omitted("")
    seed: int
    steps: int
    plan: PlanInfo
    model: ModelInfo
    flops: FlopsInfo
    data: Mapping[str, Any]
    validation: Sequence[str] | None
    environment: Environment
    command: str
    changes: Sequence[ChangeInfo] | None = omitted(None)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "RunInfo":
        """Return what a file says; only method, seed, steps and plan must be there.

        Raises:
            KeyError, TypeError, ValueError: the file lacks or garbles something, see `BROKEN`.
        """
        method = str(content["method"])
        return cls(
            name=str(content.get("name") or ""),
            method=method,
            label=str(content.get("label") or method),
            control=str(content.get("control") or ""),
            seed=int(content["seed"]),
            steps=int(content["steps"]),
            plan=PlanInfo.of(content["plan"]),
            model=ModelInfo(**section(content, "model")),  # type: ignore[typeddict-item]
            flops=FlopsInfo(**section(content, "flops")),  # type: ignore[typeddict-item]
            data=section(content, "data"),
            validation=content.get("validation"),
            environment=Environment(**section(content, "environment")),  # type: ignore[typeddict-item]
            command=str(content.get("command") or ""),
            changes=None if (changes := content.get("changes")) is None else tuple(map(ChangeInfo.of, changes)),
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a finished run: the content of result.json.

    Attributes:
        steps: that were taken; fewer than planned if the run diverged.
        epochs: passes over the training data.
        skipped_updates: steps without an update.
        totals: of the run.
        eval_loss: last validation loss of the full model; NaN if the run diverged, null in the file.
        eval_losses: the same by validation source.
        diverged: whether the run stopped because it diverged.
    """

    steps: int
    epochs: float
    skipped_updates: int = 0
    totals: Totals = field(metadata=INLINE)
    eval_loss: float
    eval_losses: Mapping[str, float]
    diverged: bool = omitted(False)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Result":
        """Return what a file says.

        Raises:
            KeyError, TypeError, ValueError: the file lacks or garbles something, see `BROKEN`.
        """
        return cls(
            steps=number(content["steps"]),  # type: ignore[arg-type]
            epochs=number(content["epochs"]),
            skipped_updates=int(number(content.get("skipped_updates", 0))),
            totals=Totals(**{name: number(content[name]) for name in COUNTERS}),  # type: ignore[arg-type]
            eval_loss=number(content["eval_loss"]),
            eval_losses={str(name): number(loss) for name, loss in content.get("eval_losses", {}).items()},
            diverged=content.get("diverged", False) is True,
        )

    def cost(self, name: str) -> float:
        """Return what the run spent of one measure: ``steps``, ``epochs`` or one of its totals."""
        found: float = getattr(self.totals if name in COUNTERS else self, name)
        return found


@dataclass(frozen=True, kw_only=True)
class ComparisonInfo:
    """Methods, seeds and budget of a comparison: the content of comparison.json.

    Attributes:
        format: of the folder.
        name: of the comparison.
        budget: what is held equal; empty if nothing says.
        baseline: the method that the others are compared with.
        methods: their names in the config, and in the names of the runs' folders.
        seeds: of the reported runs.
        tuned: the config keys that are tuned.
        side_by_side: whether runs were trained side by side, so that their seconds are not those of an idle machine.
        notes: how the comparison was made.
    """

    format: int = paths.FORMAT
    name: str
    budget: str
    baseline: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    tuned: tuple[str, ...] = ()
    side_by_side: bool = omitted(False)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any], folder: Path) -> "ComparisonInfo":
        """Return what a file says; only methods and seeds must be there.

        Raises:
            KeyError, TypeError, ValueError: the file lacks or garbles something, see `BROKEN`.
        """
        methods = tuple(str(label) for label in content["methods"])
        found = cls(
            name=str(content.get("name") or folder.name),
            budget=str(content.get("budget") or ""),
            baseline=str(content.get("baseline") or ("full" if "full" in methods else methods[0])),
            methods=methods,
            seeds=tuple(int(seed) for seed in content["seeds"]),
            tuned=tuple(str(key) for key in content.get("tuned") or ()),
            side_by_side=bool(content.get("side_by_side", False)),
            notes=tuple(str(note) for note in content.get("notes") or ()),
        )
        if found.baseline not in methods:
            raise ValueError(f"the baseline {found.baseline!r}, which is not among the methods {', '.join(methods)}")
        return found


def read_result(folder: Path) -> Result | None:
    """Return what the run of a folder did; None if it is not finished.

    Raises:
        RaptrError: the result is damaged.
    """
    path = folder / paths.RESULT
    if not path.exists():
        return None
    with paths.recorded(path) as content:
        return Result.of(content)


def _stage(content: Mapping[str, Any]) -> Stage:
    return Stage(
        start=int(content["start"]),
        stop=int(content["stop"]),
        sizes=tuple(_size(size, "layers") for size in content["sizes"]),
        warmup=bool(content.get("warmup", False)),
        width=_size(content.get("width", 1.0), "its width"),
    )


def _size(value: Any, what: str) -> float:
    """A number of layers (whole, or the mean of a stage in which it changes), or a share of their width."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"a stage of {value} {what}")
    return found
