"""Whether a run that goes on is the one that was begun, and what of it may be another."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from raptr.config import RunConfig, parse
from raptr.config.yaml import read_yaml
from raptr.errors import RaptrError
from raptr.plan import Plan, fingerprint
from raptr.rundir.json_record import to_json
from raptr.rundir.paths import CONFIG, RUN_INFO, recorded
from raptr.rundir.run_record import RunInfo

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
    path = folder / CONFIG
    if not path.exists():
        return []
    try:
        before = parse(read_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))
    except ValueError as error:
        raise RaptrError(f"{path} cannot be read ({error}); give another --output, or remove that folder.") from error
    old, new = (dict(_flat(each.model_dump(mode="json"))) for each in (before, config))
    return [Change(k, old.get(k), new.get(k)) for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]


def fact_changes(folder: Path, info: RunInfo) -> list[Change]:
    """How the facts of a run (of run.json) differ from those that are recorded in a folder: data, costs, versions."""
    now = _as_read(info)
    with recorded(folder / RUN_INFO) as content:
        before = RunInfo.of(content)
        old, new = dict(before.environment), dict(now.environment)
        pairs = {
            "data": (before.data["key"], now.data["key"]),
            "steps": (before.steps, now.steps),
            "flops": (before.flops, now.flops),
            "processes": (old.get("processes", 1), new["processes"]),
            **{name: (old[name], new[name]) for name in _VERSIONS},
        }
    return [Change(key, old, new) for key, (old, new) in pairs.items() if old != new]


def engine_change(folder: Path, info: RunInfo) -> list[Change]:
    """The same for the engine, which is known only when the Trainer is made."""
    with recorded(folder / RUN_INFO) as content:
        before = RunInfo.of(content).environment.get("engine", "single")
    now = info.environment["engine"]
    return [Change("engine", before, now)] if before != now else []


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


def refuse(folder: Path, changes: Collection[Change], allowed: Collection[str]) -> list[Change]:
    """The changes, if all of them are allowed.

    Args:
        folder: of the run.
        changes: all that there are.
        allowed: keys that may change, beside those of `SAFE`; a section's name allows all of it.

    Raises:
        RaptrError: others are not; all of these are named.
    """
    bad = [change for change in changes if not _is_allowed(change.key, {*allowed, *SAFE})]
    if bad:
        options = " ".join(f"--allow-changes {change.key}" for change in bad)
        raise RaptrError(
            f"{folder} holds another run ({'; '.join(map(str, bad))}). Give another --output (or name=...), remove "
            f"that folder, or go on in spite of it: {options}."
        )
    return list(changes)


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
