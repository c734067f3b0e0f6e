"""Detect and check differences between a resumed run and the original."""

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from raptr.config import RunConfig, parse
from raptr.config.yaml import read_yaml
from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.plan import Plan, fingerprint
from raptr.rundir.json_record import to_json
from raptr.rundir.paths import CONFIG, RUN_INFO, recorded
from raptr.rundir.run_record import RunInfo
from raptr.train.setup.arguments import OWN_NAMES, learning_rate_at

SAFE = {
    "checkpoints.every",
    "checkpoints.keep_last",
    "stability.max_skipped_updates",
    "training.dataloader_num_workers",
    "training.dataloader_persistent_workers",
    "training.dataloader_pin_memory",
    "training.dataloader_prefetch_factor",
    "training.log_level",
    "training.report_to",
    "training.run_name",
}
"""What changes neither a weight nor a line of metrics.jsonl."""

_VERSIONS = ("raptr", "torch", "transformers")

_SCHEDULE = "learning_rate_schedule"

_FACTS = {"data", "steps", "flops", "processes", "engine", _SCHEDULE, *_VERSIONS}
"""Names of changes that are no keys of the config."""


@dataclass(frozen=True)
class Change:
    """A value that is not what it was: of the config (its key, with dots), or a fact such as "data" or "torch"."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.old)} -> {_short(self.new)}"


def config_changes(folder: Path, config: RunConfig) -> list[Change]:
    """How a config differs from that of the run in a folder; nothing if there is no run in it.

    Raises:
        RaptrError: the folder's config cannot be read.
    """
    old, new = _recorded(folder), _values(config)
    if old is None:
        return []
    return [Change(k, old.get(k), new.get(k)) for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]


def check_allowed(folder: Path, config: RunConfig, allowed: Collection[str]) -> None:
    """Reject names of allowed changes that are not a key or section of either config, nor a fact.

    Args:
        folder: of the run.
        config: of the run that goes on.
        allowed: the names.

    Raises:
        RaptrError: a name is unknown, or the folder's config cannot be read.
    """
    if not allowed:
        return
    training = {f"training.{field.name}" for field in fields(TrainingArguments) if field.init}
    keys = {*_values(config), *(_recorded(folder) or {}), *training, *(f"training.{name}" for name in OWN_NAMES)}
    sections = {key[:at] for key in keys for at, letter in enumerate(key) if letter == "."}
    known = {*keys, *sections, *_FACTS}
    for name in allowed:
        if name not in known:
            near = did_you_mean(name, known, quoted=False)
            raise RaptrError(
                f"--allow-changes {name!r} is not a key of the config or a fact of a run; "
                + (near or f"give a key or section such as training.max_steps, or one of {', '.join(sorted(_FACTS))}.")
            )


def fact_changes(folder: Path, info: RunInfo) -> list[Change]:
    """Return how the facts of a run (of run.json) differ from those recorded in a folder: data, costs, versions, ..."""
    now = _as_read(info)
    with recorded(folder / RUN_INFO) as content:
        before = RunInfo.of(content)
        old, new = dict(before.environment), dict(now.environment)
        pairs = {
            "data": (before.data["key"], now.data["key"]),
            "steps": (before.steps, now.steps),
            "flops": (before.flops, now.flops),
            "processes": (old.get("processes", 1), new["processes"]),
            "engine": (old.get("engine", "single"), new["engine"]),
            **{name: (old[name], new[name]) for name in _VERSIONS},
        }
    return [Change(key, old, new) for key, (old, new) in pairs.items() if old != new]


def rate_change(folder: Path, config: RunConfig, info: RunInfo, step: int) -> list[Change]:
    """Return how another number of steps changes the learning rate of the step from which a run goes on.

    A schedule that decays until the end of a run is another one for a longer run: from 0 at the end of the shorter run,
    a linear decay would jump back to where the longer run has it.

    Args:
        folder: of the run.
        config: of the run that goes on; its rate and schedule are taken for both numbers of steps.
        info: of the run that goes on.
        step: how many steps are done.
    """
    with recorded(folder / RUN_INFO) as content:
        lengths = RunInfo.of(content).steps, info.steps
    if lengths[0] == lengths[1]:
        return []
    old, new = (learning_rate_at(config, steps, step) for steps in lengths)
    if math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-15):
        return []
    return [
        Change(
            _SCHEDULE, *(f"{rate:.4g} after step {step} of {n}" for rate, n in zip((old, new), lengths, strict=True))
        )
    ]


def longer(folder: Path, info: RunInfo, plan: Plan) -> set[str]:
    """The keys whose changes only add steps to the last stage of the run in a folder; none if they do more.

    Args:
        folder: of the run.
        info: of the run that goes on.
        plan: of it, which must say of the steps of before what the plan of before said.
    """
    now = _as_read(info).plan
    with recorded(folder / RUN_INFO) as content:
        before = RunInfo.of(content).plan
        old, new = before.stages, now.stages
        same = before.stacks == now.stacks and len(old) == len(new) and old[:-1] == new[:-1]
        if not same or replace(old[-1], stop=0) != replace(new[-1], stop=0) or new[-1].stop < old[-1].stop:
            return set()
        # a rate that falls until the run's end has other draws; a run of before there were fingerprints is trusted
        if before.fingerprint not in (None, fingerprint(plan, plan.shape, old[-1].stop)):
            return set()
    return {"steps", "training.max_steps", f"methods.{info.method}.lengths"}


def refuse(folder: Path, changes: Collection[Change], allowed: Collection[str], stuck: str = "") -> None:
    """Reject changes that are not allowed, and a run that cannot go on.

    Args:
        folder: of the run.
        changes: all that there are.
        allowed: keys that may change, beside those of `SAFE`; a section's name allows all of it.
        stuck: why the run cannot go on, whatever is allowed; empty if it can.

    Raises:
        RaptrError: all that is not allowed is named, and why the run cannot go on.
    """
    bad = [change for change in changes if not _is_allowed(change.key, {*allowed, *SAFE})]
    said = f"holds another run ({'; '.join(map(str, bad))})"
    if stuck:
        raise RaptrError(
            f"the run in {folder} {stuck}{f', and {said}' if bad else ''}; give another --output. "
            "checkpoints.keep_last=true keeps one for the next time."
        )
    if bad:
        options = " ".join(f"--allow-changes {change.key}" for change in bad)
        raise RaptrError(
            f"{folder} {said}. Give another --output (or name=...), remove "
            f"that folder, or go on in spite of it: {options}."
        )


class OwnHyperparameters:
    """Lets an optimizer and its scheduler keep the hyper-parameters of now when a checkpoint brings its own.

    Rates are those of schedulers that multiply a base with a function of the step (`LambdaLR`), as all of the Trainer's
    are but ``reduce_lr_on_plateau`` and ``greedy``; these go on at the checkpoint's rate.

    Args:
        optimizer: as it was made.
        scheduler: of the optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
        self._optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate's wrappers hold the real ones
        self._scheduler = getattr(scheduler, "scheduler", scheduler)
        self._groups = [{k: v for k, v in group.items() if k != "params"} for group in self._optimizer.param_groups]
        self._rates = list(self._scheduler.base_lrs) if hasattr(self._scheduler, "lr_lambdas") else []

    def restore(self) -> None:
        """Put them back; the scheduler goes on at the step at which the checkpoint was written."""
        for group, own in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update({k: v for k, v in own.items() if k != "lr"})
        if self._rates:
            at, rules = self._scheduler.last_epoch, self._scheduler.lr_lambdas
            rates = [base * rule(at) for base, rule in zip(self._rates, rules, strict=True)]
            self._scheduler.base_lrs, self._scheduler._last_lr = list(self._rates), rates
            for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
                group["lr"] = rate


def _values(config: RunConfig) -> dict[str, Any]:
    """Return the values of a config by their keys, with dots."""
    return dict(_flat(config.model_dump(mode="json")))


def _recorded(folder: Path) -> dict[str, Any] | None:
    """Return the same of the config in a run's folder; None if there is none."""
    path = folder / CONFIG
    if not path.exists():
        return None
    try:
        return _values(parse(read_yaml(path.read_text(encoding="utf-8"), str(path)), str(path)))
    except ValueError as error:
        raise RaptrError(f"{path} cannot be read ({error}); give another --output, or remove that folder.") from error


def _as_read(info: RunInfo) -> RunInfo:
    """The facts as a reader of their file has them."""
    return RunInfo.of(json.loads(to_json(info)))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flat(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _is_allowed(key: str, allowed: Collection[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in allowed)


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
