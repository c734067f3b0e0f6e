"""Schedules: how large the subnetwork is, and for how long.

A `Schedule` is what a user writes ("6-8-10-12"); `Schedule.bind` makes the stages of a run out
of it, for a model's shape and a number of steps, and refuses what does not fit.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral

from raptr.errors import RaptrError
from raptr.plan.shape import ModelShape

Lengths = str | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive steps with one subnetwork size.

    Attributes:
        start: the first step.
        stop: the step after the last one.
        sizes: the number of kept layers of each stack; the mean, where it varies from step to step.
        warmup: whether this is the full-model warm-up that comes before the schedule's stages.
        width: the share of its heads and neurons that a kept layer runs.
    """

    start: int
    stop: int
    sizes: tuple[float, ...]
    warmup: bool = False
    width: float = 1.0

    @property
    def steps(self) -> int:
        """How many steps the stage has."""
        return self.stop - self.start

    @property
    def label(self) -> str:
        """The stage's size as a user writes it: "6", for two stacks "6+6", with half of its width "6 x 50%"."""
        sizes = "+".join(f"{size:.1f}".removesuffix(".0") for size in self.sizes)
        return ("warm-up " if self.warmup else "") + sizes + (f" x {self.width:.0%}" if self.width < 1 else "")


@dataclass(frozen=True)
class Schedule:
    """A list of stage sizes with their lengths, for any model and any run.

    With w warm-up steps (of a share u, w = round(u * T)) out of T, K stages and relative lengths
    r_1..r_K, stage k ends at step w + round((T - w) * (r_1 + ... + r_k) / (r_1 + ... + r_K)).
    Everywhere, round goes to the nearest whole number and a half goes up.

    Attributes:
        sizes: an int is a number of layers, a `fractions.Fraction` a share of a stack's layers.
        lengths: "equal"; "proportional" (stage k is k**alpha times as long as the first); a tuple of ints
            (steps, which must add up to the run without its warm-up); or a tuple of floats (shares of
            the run without its warm-up, which must add up to 1).
        warmup: full-model steps before the first stage, part of the run's steps: an int counts
            steps, a float below 1 is a share of the run.
        alpha: the exponent of "proportional" lengths, above 0.

    Raises:
        RaptrError: a size, length, warm-up or exponent that can fit no model and no run.

    Example:
        >>> schedule = Schedule.parse("6-8-10-12", lengths="proportional")
        >>> [stage.steps for stage in schedule.bind(ModelShape.of(layers=12), steps=1000)]
        [100, 200, 300, 400]

    Reference:
        Stages: "Efficient Stagewise Pretraining via Progressive Subnetworks", arXiv 2402.05913. The
        exponent: "On the Inductive Bias of Stacking Towards Improving Reasoning", arXiv 2409.19044. The rounding
        is ours.
    """

    sizes: tuple[int | Fraction, ...]
    lengths: Lengths = "equal"
    warmup: int | float = 0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sizes", "lengths"):
            value = getattr(self, name)
            if not isinstance(value, Iterable):
                raise RaptrError(f"{name}={value!r} of a schedule is not a tuple; give one entry for each stage.")
            if not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        if not self.sizes:
            raise RaptrError('the schedule has no stage; write its sizes, e.g. "6-8-10-12".')
        for size in self.sizes:
            if not isinstance(size, int | Fraction):
                raise RaptrError(f"stage size {size!r} is neither an int (layers) nor a Fraction (a share).")
            if isinstance(size, Fraction) and not 0 < size <= 1:
                raise RaptrError(f"stage size {float(size):.0%} is not above 0 % and at most 100 %.")
            if isinstance(size, int) and size < 1:
                raise RaptrError(f"stage size {size} is not at least 1 layer.")
        _check_lengths(self.lengths, len(self.sizes))
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha < 100:
            raise RaptrError(f"alpha={self.alpha!r} is not a number above 0 (and below 100).")
        if self.alpha != 1 and self.lengths != "proportional":
            raise RaptrError(
                f'alpha={self.alpha} is the exponent of lengths="proportional", but lengths is {self.lengths!r}; '
                "leave it out or change lengths."
            )
        if (
            not isinstance(self.warmup, int | float)
            or not self.warmup >= 0
            or (isinstance(self.warmup, float) and self.warmup >= 1)
        ):
            raise RaptrError(
                f"warmup={self.warmup!r} is neither a number of steps (an int from 0 on) "
                "nor a share of the run (a float from 0.0 to below 1.0)."
            )

    @classmethod
    def parse(cls, text: str, *, lengths: Lengths = "equal", warmup: int | float = 0, alpha: float = 1.0) -> "Schedule":
        """Read sizes as users write them: layer counts "6-8-10-12" or shares "50%-75%-100%".

        Raises:
            RaptrError: the text is not sizes joined by "-", or lengths, warm-up or exponent are not valid.
        """
        if not isinstance(text, str):
            raise RaptrError(f'schedule {text!r} is not text such as "6-8-10-12"; for numbers, make a Schedule.')
        sizes: list[int | Fraction] = []
        for part in (part.strip() for part in text.split("-")):
            if not re.fullmatch(r"\d{1,6}%?|\d{1,6}\.\d{1,9}%", part):
                raise RaptrError(
                    f"schedule {text!r} does not parse at {part!r}; write stage sizes joined by '-': "
                    "layer counts ('6-8-10-12') or shares of the layers ('50%-75%-100%')."
                )
            sizes.append(Fraction(part[:-1]) / 100 if part.endswith("%") else int(part))
        return cls(tuple(sizes), lengths=lengths, warmup=warmup, alpha=alpha)

    def __str__(self) -> str:
        return "-".join(map(_written, self.sizes))

    def bind(self, shape: ModelShape, steps: int) -> tuple[Stage, ...]:
        """The stages of a run of ``steps`` steps of a model of this shape.

        Raises:
            RaptrError: a size is larger than a stack, or a stage would have no step.
        """
        check_steps(steps)
        warmup = self.warmup if isinstance(self.warmup, int) else nearest(Fraction(self.warmup) * steps)
        rest = steps - warmup
        if rest < len(self.sizes):
            if rest < 0:
                raise RaptrError(f"{warmup} warm-up steps do not fit into a run of {steps} steps; use fewer.")
            raise RaptrError(
                f"schedule {self} has {len(self.sizes)} stages, but {rest} of {steps} steps are left for them "
                f"after {warmup} warm-up steps; every stage needs at least 1: train longer or use fewer stages."
            )
        bounds = [warmup + offset for offset in self._offsets(rest)]
        stages = [Stage(start=0, stop=warmup, sizes=shape.layers, warmup=True)] if warmup else []
        for size, start, stop in zip(self.sizes, bounds, bounds[1:], strict=False):
            if stop <= start:
                raise RaptrError(
                    f"stage {_written(size)} of schedule {self} would have no step in a run of {steps} steps; "
                    "train longer, use fewer stages, or make this stage longer."
                )
            stages.append(Stage(start=start, stop=stop, sizes=self._resolve(size, shape)))
        return tuple(stages)

    def _offsets(self, rest: int) -> list[int]:
        """Where the stages begin and end within ``rest`` steps."""
        if self.lengths == "equal":
            weights = [Fraction(1)] * len(self.sizes)
        elif self.lengths == "proportional":
            weights = [Fraction((k + 1) ** self.alpha) for k in range(len(self.sizes))]
        else:
            assert not isinstance(self.lengths, str)
            weights = [Fraction(length).limit_denominator(10**9) for length in self.lengths]
            if all(isinstance(length, int) for length in self.lengths) and sum(weights) != rest:
                raise RaptrError(
                    f"stage lengths {self.lengths} add up to {sum(weights)} steps, but the run has {rest} "
                    "without its warm-up; change them, or give shares of the run as floats."
                )
        total = sum(weights)
        ends = [sum(weights[: k + 1], Fraction(0)) / total for k in range(len(weights))]
        return [0, *(nearest(rest * end) for end in ends)]

    def _resolve(self, size: int | Fraction, shape: ModelShape) -> tuple[int, ...]:
        """A size as a layer count of every stack."""
        if isinstance(size, Fraction):
            return tuple(max(1, nearest(size * count)) for count in shape.layers)
        for stack in shape.stacks:
            if size > stack.layers:
                raise RaptrError(
                    f"schedule {self} asks for {size} layers, but {stack.name!r} has {stack.layers}; "
                    "use sizes up to that, or shares such as '50%-75%-100%'."
                )
        return (size,) * len(shape.stacks)


MOST_STEPS = 10**15
"""Of a run: so many a number of the machine counts exactly, and more no run has."""


def check_steps(steps: int) -> None:
    """Refuse a number of steps that is not a whole number from 1 to `MOST_STEPS`."""
    if not isinstance(steps, Integral) or steps < 1:
        raise RaptrError(f"steps={steps}: give a whole number of steps; a run has at least 1.")
    if steps > MOST_STEPS:
        raise RaptrError(f"steps is above {MOST_STEPS:,}; give as many as the run has.")


def nearest(value: Fraction) -> int:
    """The nearest whole number; a half goes up."""
    return math.floor(value + Fraction(1, 2))


def _written(size: int | Fraction) -> str:
    return f"{float(size * 100):g}%" if isinstance(size, Fraction) else str(size)


def _check_lengths(lengths: Lengths, count: int) -> None:
    expected = (
        '"equal", "proportional", one number of steps per stage (ints), '
        "or one share of the run per stage (floats that add up to 1.0)"
    )
    if isinstance(lengths, str):
        if lengths not in ("equal", "proportional"):
            raise RaptrError(f"stage lengths {lengths!r} are not known; expected {expected}.")
        return
    if len(lengths) != count:
        raise RaptrError(
            f"{len(lengths)} stage lengths {lengths} for {count} stages; give one per stage, or {expected}."
        )
    counts = all(isinstance(length, int) for length in lengths)
    shares = all(isinstance(length, float) for length in lengths)
    if not (counts or shares) or not all(length > 0 for length in lengths):
        raise RaptrError(f"stage lengths {lengths} are not valid; expected {expected}, all above 0.")
    if shares and not abs(sum(lengths) - 1) <= 1e-6:
        raise RaptrError(f"stage lengths {lengths} add up to {sum(lengths):g}; shares must add up to 1.0.")


def stage_number_at(stages: Sequence[Stage], step: int) -> int:
    """The number, from 0, of the stage that a step belongs to.

    Raises:
        RaptrError: the step is not in the run.
    """
    if not 0 <= step < stages[-1].stop:
        raise RaptrError(f"step {step} is not in the plan, which has the steps 0 to {stages[-1].stop - 1}.")
    return bisect_right(stages, step, key=lambda stage: stage.start) - 1


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage that a step belongs to.

    Raises:
        RaptrError: the step is not in the run.
    """
    return stages[stage_number_at(stages, step)]
