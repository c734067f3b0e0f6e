"""Ranks train the same layers, or stop.

Every rank works out the subnetwork of a step by itself, so ranks that were given another seed, schedule or version
choose other layers. Under FSDP2 that is silent when the counts are equal (gradients of different layers are averaged
into each other) and hangs when they are not. So ranks compare a digest of what the next steps run.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch.distributed as dist

from raptr.errors import RaptrError
from raptr.plan import ModelShape, Trainable, digest_of, facts_of

Gather = Callable[[Any], list[Any]]
"""What every rank gives, by rank: a collective operation."""

EVERY = 100
"""Steps between two comparisons, where no stage begins in between."""


class Agreement:
    """Compares plans among the ranks: at the first step, where a stage begins, and every so many steps.

    One comparison covers all steps up to the next one, whose time is compared too: ranks never wait for a comparison
    that others do not make. It costs one small collective; what differs is looked for only if something does.

    Args:
        shape: of the model.
        gather: the collective; by default among all processes, or those of a process group.
    """

    def __init__(self, shape: ModelShape, gather: Gather | None = None) -> None:
        self._shape = shape
        self._gather = gather or gather_objects
        self._plan: Trainable | None = None
        self._covered = range(0)

    def check(self, plan: Trainable, step: int, micro_steps: int = 1, every: int = EVERY) -> None:
        """Compare what the steps from this one on run, unless an earlier call has covered this step.

        Raises:
            RaptrError: on every rank, with the first thing that differs and its value on each.
        """
        if every < 1 or micro_steps < 1:
            raise RaptrError(f"every={every} and micro_steps={micro_steps} are numbers of steps; give at least 1.")
        if plan is self._plan and step in self._covered:
            return
        if self._gather is gather_objects and alone():
            return
        digests = list(_digests(plan, step, _next_check(plan, step, every), self._shape, micro_steps))
        steps = range(step, step + len(digests))
        _compare(self._gather, (steps.start, steps.stop, micro_steps, self._shape.layers), digests, plan, self._shape)
        self._plan, self._covered = plan, steps


def alone() -> bool:
    """Whether there is no process group, or one of one process."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def gather_objects(mine: Any, group: Any = None) -> list[Any]:
    """What every process of a group gives, by rank; this one's alone where there is no process group."""
    if alone():
        return [mine]
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, mine, group=group)
    return found


def _next_check(plan: Trainable, step: int, every: int) -> int:
    starts = [stage.start for stage in getattr(plan, "stages", ()) if step < stage.start < step + every]
    return min(starts, default=step + every)


def _digests(plan: Trainable, start: int, stop: int, shape: ModelShape, micro_steps: int) -> Iterator[bytes]:
    """Of each of these steps, or of those before the first that the plan does not have."""
    yield digest_of(plan, start, shape, micro_steps)
    for step in range(start + 1, stop):
        try:
            yield digest_of(plan, step, shape, micro_steps)
        except Exception:  # a run's end, or what the plan will say when this step is reached
            return


def _compare(
    gather: Gather,
    place: tuple[int, int, int, tuple[int, ...]],
    digests: list[bytes],
    plan: Trainable,
    shape: ModelShape,
) -> None:
    found = gather((place, digests))
    if _alike(found):
        return
    names = ("the step", "the step of the next comparison (a stage's start)", "micro-steps", "layers of the model")
    for name, values in zip(names, zip(*(place for place, _ in found), strict=True), strict=True):
        if not _alike(values):
            raise _differ(name, values)
    by_step = zip(*(digests for _, digests in found), strict=True)
    step = place[0] + next(i for i, each in enumerate(by_step) if not _alike(each))
    facts = gather(dict(facts_of(plan, step, shape, place[2])))
    for name in dict.fromkeys(name for each in facts for name in each):
        values = tuple(each.get(name, "none") for each in facts)
        if not _alike(values):
            raise _differ(name, values)
    raise AssertionError("digests differ of facts that are equal")


def _alike(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _differ(name: str, values: Sequence[Any]) -> RaptrError:
    """The message: what differs, and who has which."""
    ranks: dict[Any, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(rank)
    each = "; ".join(f"{_shown(value)} on {_numbers(who)}" for value, who in ranks.items())
    return RaptrError(
        f"the ranks would not train the same: {name} differs: {each}. Nothing was trained with it. Give every rank the "
        "same method, seed, number of steps and versions of raptr and numpy."
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and len(value) > 32:
        return f"({', '.join(map(str, value[:32]))}, ... {len(value)} in all)"
    return str(value)


def _numbers(ranks: Sequence[int]) -> str:
    some = ", ".join(map(str, ranks[:8])) + (f", ... ({len(ranks)} in all)" if len(ranks) > 8 else "")
    return f"rank {some}" if len(ranks) == 1 else f"ranks {some}"
