"""Layer dropping: each layer is kept by itself, with a probability of its own. The paper's baselines."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from raptr.plan import draw
from raptr.plan.methods.spec import (
    Redraw,
    Scaling,
    always_kept,
    as_layers,
    check_choice,
    check_drawn,
    check_share,
)
from raptr.plan.protocol import Keep
from raptr.plan.schedule import Stage, check_steps, stage_at
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import WHOLE, Copy, LayerPart, Subnetwork

Probabilities = npt.NDArray[np.float64]


class Rule(Protocol):
    """A spec of this family: it says the probability of every layer to be kept."""

    @property
    def redraw(self) -> Redraw: ...

    @property
    def seed(self) -> int: ...

    def keep(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """Of the layers of a stack, one row for each step in ``t``, of shape (steps, 1)."""
        ...

    def scales(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """The factors on the residual updates of kept layers, in the same form."""
        ...


@dataclass(frozen=True, kw_only=True)
class DroppingPlan:
    """A spec of this family, bound to a shape and a number of steps: one stage.

    Attributes:
        shape: of the model.
        stages: the only one; its size is the mean over the run.
        rule: the spec.
        fixed: the layers of each stack that are always kept.
    """

    shape: ModelShape
    stages: tuple[Stage, ...]
    rule: Rule
    fixed: tuple[tuple[int, ...], ...]

    def stage(self, step: int) -> Stage:
        """The stage of a step: there is one."""
        return stage_at(self.stages, step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """The layers that this step keeps: a function of (seed, step, stack, layer), and of the micro-step if asked."""
        self.stage(step)
        place = (step, micro if self.rule.redraw == "micro_step" else 0)
        layers, parts = [], []
        for i, (count, always) in enumerate(zip(self.shape.layers, self.fixed, strict=True)):
            at, steps = np.array([[float(step)]]), self.stages[-1].stop
            (keep,), (scales,) = self.rule.keep(count, at, steps), self.rule.scales(count, at, steps)
            words = draw.words(self.rule.seed, draw.PATHS, (*place, i), count)
            kept = draw.uniforms(words) < keep
            kept[list(always)] = True
            path = tuple(kept.nonzero()[0].tolist())
            layers.append(path)
            parts.append(tuple(WHOLE if layer in always else LayerPart(scale=float(scales[layer])) for layer in path))
        return Subnetwork(tuple(layers), tuple(parts))

    def transition(self, step: int) -> tuple[Copy, ...]:
        """Nothing is copied."""
        return ()

    def keep(self, stage: Stage) -> Keep:
        """The mean probability of each layer over the run."""
        return self._mean

    @cached_property
    def _mean(self) -> Keep:
        return mean_keep(self.rule, self.shape, self.stages[-1].stop, self.fixed)


def mean_keep(rule: Rule, shape: ModelShape, steps: int, fixed: tuple[tuple[int, ...], ...]) -> Keep:
    """The mean over a run of the probability of each layer to be kept."""
    means = []
    for count, always in zip(shape.layers, fixed, strict=True):
        total = np.zeros(count)
        for start in range(0, steps, 4096):  # in pieces: a run can have millions of steps
            at = np.arange(start, min(start + 4096, steps), dtype=np.float64)[:, None]
            total += rule.keep(count, at, steps).sum(axis=0)
        mean = total / steps
        mean[list(always)] = 1.0
        means.append(tuple(mean.tolist()))
    return tuple(means)


def _bind(rule: Rule, fixed: tuple[int, ...], shape: ModelShape, steps: int) -> DroppingPlan:
    check_steps(steps)
    always = always_kept(fixed, shape)
    sizes = tuple(round(sum(stack), 6) for stack in mean_keep(rule, shape, steps, always))
    return DroppingPlan(shape=shape, stages=(Stage(start=0, stop=steps, sizes=sizes),), rule=rule, fixed=always)


def _inverse(keep: Probabilities, scaling: Scaling) -> Probabilities:
    return np.ones_like(keep) if scaling == "none" else 1 / np.maximum(keep, np.finfo(np.float64).tiny)


@dataclass(frozen=True, kw_only=True)
class LayerDrop:
    """Each layer is dropped by itself with one probability for all layers and steps: keep = 1 - rate.

    Args:
        rate: the probability to drop a layer, from 0 to below 1.
        fixed: layers that are always kept, negative from the end; in every stack. None as published.
        scaling: "none" as published, or "inverse": the residual update of a kept layer is divided by keep.
        redraw: "step" or "micro_step".
        seed: of the paths.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if a fixed layer is out of range.

    Example:
        >>> plan = LayerDrop(rate=0.25).plan(ModelShape.of(layers=12), steps=100)
        >>> plan.stages[0].label
        '9'

    Reference:
        "Reducing Transformer Depth on Demand with Structured Dropout", arXiv 1909.11556.
    """

    rate: float = 0.2
    fixed: tuple[int, ...] = ()
    scaling: Literal["none", "inverse"] = "none"
    redraw: Redraw = "step"
    seed: int = 0
    name = "layerdrop"

    def __post_init__(self) -> None:
        check_share("rate", self.rate, one=False)
        object.__setattr__(self, "fixed", as_layers(self.fixed))
        check_choice("scaling", self.scaling, ("none", "inverse"))
        check_drawn(self)

    def __str__(self) -> str:
        return f"LayerDrop {self.rate:g}"

    def keep(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """The same for every layer and step."""
        return np.full((len(t), layers), 1.0 - self.rate)

    def scales(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """1, or 1 / keep."""
        return _inverse(self.keep(layers, t, steps), self.scaling)

    def plan(self, shape: ModelShape, steps: int) -> DroppingPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        return _bind(self, self.fixed, shape, steps)


@dataclass(frozen=True, kw_only=True)
class StochasticDepth:
    """Each layer is dropped by itself, deeper ones more often: layer l of L, from 1, keeps 1 - (l / L) * (1 - last).

    Args:
        last: the probability of the last layer to be kept, above 0.
        fixed: layers that are always kept, negative from the end; in every stack. None as published.
        scaling: "inverse" divides the residual update of a kept layer by its probability in training, which is the
            published multiplication at test time, moved so that the evaluated model is an ordinary one; or "none".
        redraw: "step" or "micro_step".
        seed: of the paths.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if a fixed layer is out of range.

    Example:
        >>> plan = StochasticDepth(last=0.5).plan(ModelShape.of(layers=4), steps=100)
        >>> plan.keep(plan.stages[0])
        ((0.875, 0.75, 0.625, 0.5),)

    Reference:
        "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    last: float = 0.5
    fixed: tuple[int, ...] = ()
    scaling: Literal["none", "inverse"] = "inverse"
    redraw: Redraw = "step"
    seed: int = 0
    name = "stochastic_depth"

    def __post_init__(self) -> None:
        check_share("last", self.last, zero=False)
        object.__setattr__(self, "fixed", as_layers(self.fixed))
        check_choice("scaling", self.scaling, ("none", "inverse"))
        check_drawn(self)

    def __str__(self) -> str:
        return f"Stochastic depth {self.last:g}"

    def keep(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """1 - (l / L) * (1 - last) at every step."""
        depth = np.arange(1, layers + 1) / layers
        return np.broadcast_to(1 - depth * (1 - self.last), (len(t), layers))

    def scales(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """1 / keep, or 1."""
        return _inverse(self.keep(layers, t, steps), self.scaling)

    def plan(self, shape: ModelShape, steps: int) -> DroppingPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        return _bind(self, self.fixed, shape, steps)


Variant = Literal["paper", "deepspeed"]


@dataclass(frozen=True, kw_only=True)
class ProgressiveLayerDropping:
    """PLD: stochastic depth whose kept share *falls* during training.

    With theta(t) = (1 - theta) * exp(-gamma * t) + theta at step t, layer i of L, from 1, is kept with

    - ``variant="paper"``: p_i = 1 - (i / L) * (1 - theta(t)), and its residual update is divided by p_i;
    - ``variant="deepspeed"``, as in the only public implementation: 1 - ((i - 1) / L) * (1 - theta(t)), so that the
      first layer is always kept, and its update is divided by the probability of the *next* layer, the paper's p_i.

    Args:
        theta: the limit of theta(t), above 0.
        gamma: how fast it falls, per step.
        variant: which of the two.
        fixed: layers that are always kept, negative from the end; in every stack. None as published.
        scaling: "inverse" as published, or "none".
        redraw: "step" or "micro_step".
        seed: of the paths.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if a fixed layer is out of range.

    Example:
        >>> plan = ProgressiveLayerDropping(gamma=1.0).plan(ModelShape.of(layers=2), steps=1)
        >>> plan.keep(plan.stages[0])  # at step 0 theta(t) is 1
        ((1.0, 1.0),)

    Reference:
        "Accelerating Training of Transformer-Based Language Models with Progressive Layer Dropping", arXiv 2010.13369.
    """

    theta: float = 0.5
    gamma: float = 0.001
    variant: Variant = "paper"
    fixed: tuple[int, ...] = ()
    scaling: Literal["none", "inverse"] = "inverse"
    redraw: Redraw = "step"
    seed: int = 0
    name = "pld"

    def __post_init__(self) -> None:
        check_share("theta", self.theta, zero=False)
        check_share("gamma", self.gamma, zero=False)
        check_choice("variant", self.variant, get_args(Variant))
        object.__setattr__(self, "fixed", as_layers(self.fixed))
        check_choice("scaling", self.scaling, ("none", "inverse"))
        check_drawn(self)

    def __str__(self) -> str:
        return f"PLD {self.theta:g}" + (" (DeepSpeed)" if self.variant == "deepspeed" else "")

    def keep(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """The probabilities of the variant."""
        return self._falling(layers, t, shift=1 if self.variant == "deepspeed" else 0)

    def scales(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """1 / p_i of the paper in either variant, or 1."""
        return _inverse(self._falling(layers, t, shift=0), self.scaling)

    def _falling(self, layers: int, t: Probabilities, shift: int) -> Probabilities:
        theta = (1 - self.theta) * np.exp(-self.gamma * t) + self.theta
        found: Probabilities = 1 - (np.arange(1, layers + 1) - shift) / layers * (1 - theta)
        return found

    def plan(self, shape: ModelShape, steps: int) -> DroppingPlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        return _bind(self, self.fixed, shape, steps)
