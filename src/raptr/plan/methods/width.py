"""Width: at each step a random part of the attention heads and MLP neurons of every kept layer, growing in stages."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from fractions import Fraction
from typing import Literal

from raptr.errors import RaptrError
from raptr.plan import rng
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.fields import check_fields
from raptr.plan.layer_part import LayerPart
from raptr.plan.methods.path_plan import PathPlan
from raptr.plan.methods.raptr import RaPTr
from raptr.plan.methods.spec_parts import HALF_DEPTH, Redraw, Scaling
from raptr.plan.protocol import Keep, Width
from raptr.plan.schedule import Schedule, Stage, nearest, stage_number_at
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import Copy, Subnetwork

Narrowed = Literal["both", "heads", "neurons"]
"""What is drawn: attention heads, MLP neurons, or both."""


@dataclass(frozen=True, kw_only=True)
class WidthPlan:
    """Random heads and neurons of the layers of a path, bound to a shape and a number of steps.

    In a stage of share q, every kept layer runs with max(1, round(q * H)) of its H heads (under grouped-query
    attention of its key-value groups) and max(1, round(q * N)) of its N neurons; every such set is equally likely,
    and layers draw independently. The output of the attention is multiplied with 1, with H / h for h kept heads
    ("inverse"), or with sqrt(H / h) ("sqrt"); that of the MLP alike. A stage of the full width runs whole layers.

    Attributes:
        depth: which layers are kept; its stages are those of the run, with their widths.
        shares: of each stage.
        narrowed: what is drawn.
        scaling: the factor on the outputs.
        redraw: whether a draw holds for a step or a micro-step.
        seed: of the draws.
    """

    depth: PathPlan
    shares: tuple[Fraction, ...]
    narrowed: Narrowed
    scaling: Scaling
    redraw: Redraw
    seed: int

    @property
    def shape(self) -> ModelShape:
        """The shape it was bound to."""
        return self.depth.shape

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages; they cover the run without a gap."""
        return self.depth.stages

    def stage(self, step: int) -> Stage:
        """The stage of a step."""
        return self.depth.stage(step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """The path of a step with the heads and neurons of each layer: a function of (seed, step, stack, layer)."""
        path, k = self.depth.subnetwork(step, micro), stage_number_at(self.stages, step)
        if self.shares[k] == 1:
            return path
        place = (step, micro if self.redraw == "micro_step" else 0)
        parts = tuple(
            tuple(self._narrow(k, i, part, (*place, rng.pair(i, layer))) for layer, part in path.kept(i))
            for i in range(len(self.shape.stacks))
        )
        return Subnetwork(path.layers, parts)

    def transition(self, step: int) -> tuple[Copy, ...]:
        """Nothing is copied: heads and neurons are there from the start."""
        return ()

    def keep(self, stage: Stage) -> Keep:
        """The probability of each layer to be kept."""
        return self.depth.keep(stage)

    def width(self, stage: Stage) -> Width:
        """Of each stack, which share of its heads and of its neurons a kept layer runs."""
        k = self.stages.index(stage)
        return tuple(
            tuple(kept / count if count else 1.0 for kept, count in self._counts(k, i))  # type: ignore[misc]
            for i in range(len(self.shape.stacks))
        )

    def lr_factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied with."""
        return self.depth.lr_factor(step)

    def _counts(self, k: int, i: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many heads and neurons of how many a layer of a stack runs in a stage."""
        stack, share = self.shape.stacks[i], self.shares[k]
        heads, neurons = stack.heads or 0, stack.neurons or 0
        some_heads = heads if self.narrowed == "neurons" else max(1, nearest(share * heads))
        some_neurons = neurons if self.narrowed == "heads" else max(1, nearest(share * neurons))
        return (some_heads, heads), (some_neurons, neurons)

    def _narrow(self, k: int, i: int, part: LayerPart, place: tuple[int, int, int]) -> LayerPart:
        (heads, all_heads), (neurons, all_neurons) = self._counts(k, i)
        return LayerPart(
            scale=part.scale,
            heads=self._chosen(rng.HEADS, place, heads, all_heads),
            neurons=self._chosen(rng.NEURONS, place, neurons, all_neurons),
            head_scale=self._scale(heads, all_heads),
            neuron_scale=self._scale(neurons, all_neurons),
        )

    def _chosen(self, purpose: int, place: tuple[int, int, int], kept: int, count: int) -> tuple[int, ...] | None:
        return rng.subset(rng.words(self.seed, purpose, place, count), kept) if kept < count else None

    def _scale(self, kept: int, count: int) -> float:
        if self.scaling == "none" or kept == count:
            return 1.0
        return math.sqrt(count / kept) if self.scaling == "sqrt" else count / kept


@dataclass(frozen=True)
class WidthRaPTr:
    """Progressive subnetwork training by width: all layers, each with random heads and neurons, more in each stage.

    The rules by which heads and neurons are drawn and scaled are those of `raptr.plan.methods.width.WidthPlan`.

    Args:
        schedule: a `Schedule` of shares of the width, or the shares as text, "50%-75%-100%".
        narrowed: what is drawn, "heads", "neurons" or "both".
        scaling: "none", "inverse" or "sqrt": the factor on the outputs of attention and MLP.
        redraw: "step" draws for each optimizer step, "micro_step" for each micro-step.
        seed: of the draws.
        transition_lr: what the learning rate does at stage boundaries; nothing if not given.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if the schedule does not grow to the
            whole width, or the heads and neurons of the model cannot be chosen.

    Example:
        >>> plan = WidthRaPTr("50%-100%").plan(ModelShape.of(layers=2, heads=4, neurons=8), steps=10)
        >>> part = plan.subnetwork(0).parts[0][0]
        >>> plan.stages[0].label, len(part.heads), len(part.neurons)
        ('2 x 50%', 2, 4)

    Reference:
        Width is named in arXiv 2402.05913 ("depth-wise, width-wise"); the rules are ours (docs/deviations.md).
    """

    schedule: Schedule | str = "50%-75%-100%"
    _: KW_ONLY
    narrowed: Narrowed = "both"
    scaling: Scaling = "none"
    redraw: Redraw = "step"
    seed: int = 0
    transition_lr: TransitionLR | None = None
    name = "width_raptr"
    skips = ("width",)

    def __post_init__(self) -> None:
        check_fields(self)
        assert isinstance(self.schedule, Schedule)
        _check_shares(self.schedule, "schedule")

    def __str__(self) -> str:
        return f"Width RaPTr {self.schedule}"

    def plan(self, shape: ModelShape, steps: int) -> WidthPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        assert isinstance(self.schedule, Schedule)
        stages = replace(self.schedule, sizes=(Fraction(1),) * len(self.schedule.sizes)).bind(shape, steps)
        every = (Subnetwork.full(shape).layers,) * len(stages)
        depth = PathPlan(shape=shape, stages=stages, fixed=every, transition_lr=self.transition_lr)
        return _bind(self, depth, self.schedule.sizes)


@dataclass(frozen=True)
class DepthWidthRaPTr:
    """Progressive subnetwork training by depth and width together: a random path, and of its layers random parts.

    Args:
        schedule: of the depth, as for `RaPTr`.
        width: the share of heads and neurons that kept layers run in each stage of the schedule, as text.
        fixed: layers that are always kept (with the stage's width), negative from the end; in every stack.
        narrowed: what is drawn of a layer, "heads", "neurons" or "both".
        scaling: "none", "inverse" or "sqrt": the factor on the outputs of attention and MLP, and on the residual
            update of kept layers.
        redraw: "step" draws for each optimizer step, "micro_step" for each micro-step.
        seed: of the draws.
        transition_lr: what the learning rate does at stage boundaries; nothing if not given.

    Raises:
        RaptrError: as for `RaPTr` and `WidthRaPTr`, or if depth and width have not the same number of stages.

    Example:
        >>> shape = ModelShape.of(layers=4, heads=4, neurons=8)
        >>> [stage.label for stage in DepthWidthRaPTr("2-3-4", width="50%-75%-100%").plan(shape, steps=30).stages]
        ['2 x 50%', '3 x 75%', '4']

    Reference:
        Ours, from arXiv 2402.05913 (docs/deviations.md).
    """

    schedule: Schedule | str = HALF_DEPTH
    _: KW_ONLY
    width: str = "70%-80%-90%-100%"
    fixed: tuple[int, ...] = (0, -1)
    narrowed: Narrowed = "both"
    scaling: Scaling = "none"
    redraw: Redraw = "step"
    seed: int = 0
    transition_lr: TransitionLR | None = None
    name = "depth_width_raptr"
    skips = ("layers", "width")

    def __post_init__(self) -> None:
        if not isinstance(self.width, str):
            raise RaptrError(f"width={self.width!r} is not text such as '50%-75%-100%'.")
        check_fields(self)
        widths = Schedule.parse(self.width)
        _check_shares(widths, "width")
        if len(widths.sizes) != len(self._depth.sizes):
            raise RaptrError(
                f"width {self.width} has {len(widths.sizes)} stages, but schedule {self.schedule} has "
                f"{len(self._depth.sizes)}; give one share of the width for each stage."
            )

    def __str__(self) -> str:
        return f"Depth-width RaPTr {self.schedule} x {self.width}"

    @property
    def _depth(self) -> Schedule:
        assert isinstance(self.schedule, Schedule)
        return self.schedule

    def plan(self, shape: ModelShape, steps: int) -> WidthPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        depth = RaPTr(
            self._depth,
            fixed=self.fixed,
            scaling=self.scaling,
            redraw=self.redraw,
            seed=self.seed,
            transition_lr=self.transition_lr,
        )
        return _bind(self, depth.plan(shape, steps), Schedule.parse(self.width).sizes)


def _bind(spec: WidthRaPTr | DepthWidthRaPTr, depth: PathPlan, sizes: Sequence[int | Fraction]) -> WidthPlan:
    for stack in depth.shape.stacks:
        for what, count in (("heads", stack.heads), ("neurons", stack.neurons)):
            if count is None and spec.narrowed in ("both", what):
                why = f" ({stack.narrow})" if stack.narrow else ""
                raise RaptrError(
                    f"{what} of {stack.name!r} cannot be chosen{why}, so {spec.name} does not fit this model."
                )
    warmups = len(depth.stages) - len(sizes)
    shares = (Fraction(1),) * warmups + tuple(Fraction(size) for size in sizes)
    stages = tuple(replace(stage, width=float(share)) for stage, share in zip(depth.stages, shares, strict=True))
    return WidthPlan(
        depth=replace(depth, stages=stages),
        shares=shares,
        narrowed=spec.narrowed,
        scaling=spec.scaling,
        redraw=spec.redraw,
        seed=spec.seed,
    )


def _check_shares(schedule: Schedule, name: str) -> None:
    """Refuse widths that are not shares which rise to the whole."""
    sizes = schedule.sizes
    if not all(isinstance(size, Fraction) for size in sizes):
        raise RaptrError(
            f"{name} {schedule} gives layer counts; a width is a share of heads and neurons: 50%-75%-100%."
        )
    if list(sizes) != sorted(sizes) or sizes[-1] != 1:
        raise RaptrError(f"{name} {schedule} does not grow to the whole width; give shares that rise to 100%.")
