"""Layer dropping: each layer is kept with a probability of its own, for a whole step or for each sequence."""

import math
from dataclasses import dataclass
from typing import Literal

from raptr.plan.fields import check_fields, check_share
from raptr.plan.methods.rate_plan import Depths, RatePlan, bind_rates
from raptr.plan.methods.spec_parts import Inverse, Redraw
from raptr.plan.shape import ModelShape


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
    scaling: Inverse = "none"
    redraw: Redraw = "step"
    seed: int = 0
    name = "layerdrop"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_share("rate", self.rate, one=False)
        check_fields(self)

    def __str__(self) -> str:
        return f"LayerDrop {self.rate:g}"

    def depths(self, layers: int) -> Depths:
        """The same for every layer."""
        return (1.0,) * layers

    def scaled(self, layers: int) -> Depths:
        """As dropped, or not at all."""
        return self.depths(layers) if self.scaling == "inverse" else (0.0,) * layers

    def rate_at(self, step: int, steps: int) -> float:
        """The same at every step."""
        return self.rate

    def mean_rate(self, steps: int) -> float:
        """That too."""
        return self.rate

    def plan(self, shape: ModelShape, steps: int) -> RatePlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        return bind_rates(self, self.fixed, shape, steps)


@dataclass(frozen=True, kw_only=True)
class StochasticDepth:
    """Each layer is dropped by itself, deeper ones more often: layer l of L, from 1, keeps 1 - (l / L) * (1 - last).

    Args:
        last: the probability of the last layer to be kept, from 1e-06 to 1.
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
    scaling: Inverse = "inverse"
    redraw: Redraw = "step"
    seed: int = 0
    name = "stochastic_depth"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_share("last", self.last, least=1e-6)
        check_fields(self)

    def __str__(self) -> str:
        return f"Stochastic depth {self.last:g}"

    def depths(self, layers: int) -> Depths:
        """l / L."""
        return tuple(layer / layers for layer in range(1, layers + 1))

    def scaled(self, layers: int) -> Depths:
        """As dropped, or not at all."""
        return self.depths(layers) if self.scaling == "inverse" else (0.0,) * layers

    def rate_at(self, step: int, steps: int) -> float:
        """1 - last at every step."""
        return 1 - self.last

    def mean_rate(self, steps: int) -> float:
        """That too."""
        return 1 - self.last

    def plan(self, shape: ModelShape, steps: int) -> RatePlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        return bind_rates(self, self.fixed, shape, steps)


Variant = Literal["paper", "deepspeed"]


@dataclass(frozen=True, kw_only=True)
class ProgressiveLayerDropping:
    """PLD: stochastic depth whose kept share *falls* during training.

    With theta(t) = (1 - theta) * exp(-gamma * t) + theta at step t, layer i of L, from 1, is kept with

    - ``variant="paper"``: p_i = 1 - (i / L) * (1 - theta(t)), and its residual update is divided by p_i;
    - ``variant="deepspeed"``, as in the only public implementation: 1 - ((i - 1) / L) * (1 - theta(t)), so that the
      first layer is always kept, and its update is divided by the probability of the *next* layer, the paper's p_i.

    Args:
        theta: the limit of theta(t), from 1e-06 to 1.
        gamma: how fast it falls, per step, from 1e-12 to 1.
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
    scaling: Inverse = "inverse"
    redraw: Redraw = "step"
    seed: int = 0
    name = "pld"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_share("theta", self.theta, least=1e-6)
        check_share("gamma", self.gamma, least=1e-12)
        check_fields(self)

    def __str__(self) -> str:
        return f"PLD {self.theta:g}" + (" (DeepSpeed)" if self.variant == "deepspeed" else "")

    def depths(self, layers: int) -> Depths:
        """i / L, or (i - 1) / L."""
        first = 0 if self.variant == "deepspeed" else 1
        return tuple((first + layer) / layers for layer in range(layers))

    def scaled(self, layers: int) -> Depths:
        """The paper's i / L in either variant, or nothing."""
        return tuple((1 + layer) / layers * (self.scaling == "inverse") for layer in range(layers))

    def rate_at(self, step: int, steps: int) -> float:
        """1 - theta(t)."""
        return (1 - self.theta) * -math.expm1(-self.gamma * step)

    def mean_rate(self, steps: int) -> float:
        """The same, of the mean of theta(t): a geometric series."""
        mean = math.expm1(-self.gamma * steps) / (steps * math.expm1(-self.gamma))
        return (1 - self.theta) * (1 - mean)

    def plan(self, shape: ModelShape, steps: int) -> RatePlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        return bind_rates(self, self.fixed, shape, steps)


@dataclass(frozen=True, kw_only=True)
class SequenceLayerDropout:
    """Each sequence skips each layer by itself, deeper layers more often, and less and less during training.

    At step t of T, layer l of L, from 0, is skipped with probability d = rate * l / (L - 1) * (1 - t / (T - 1)). On
    every rank at least one sequence runs through each layer, so that all ranks run the same layers; they draw different
    sequences. Of B sequences in a rank's micro-batch, each therefore runs with probability q = 1 - d + d**B / B
    (`raptr.plan.layer_part.run_probability`), and its residual update is divided by q. A layer runs on its sequences
    only, so that the saving is real: with many sequences rate / 4 of the layers' FLOPs, over a run. One sequence would
    skip nothing, and is rejected: when a run is set up, or at the first step of a model attached by hand.

    Args:
        rate: the probability of the last layer to be skipped at the beginning, from 0 to below 1.
        fixed: layers that every sequence runs through, negative from the end; in every stack. The first does anyway.
        scaling: "inverse" as published, on the layer's whole residual update (docs/deviations.md), or "none".
        redraw: "step" draws once for an optimizer step, "micro_step" for each micro-step, where the batches differ.
        seed: of the masks.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if a fixed layer is out of range, at
            `raptr.plan.for_rows` if a micro-batch has one sequence.

    Example:
        >>> plan = SequenceLayerDropout(rate=0.6).plan(ModelShape.of(layers=5), steps=101)
        >>> [round(p, 3) for p in plan.keep(plan.stages[0])[0]]
        [1.0, 0.925, 0.85, 0.775, 0.7]

    Reference:
        "Don't Drop Dropout", arXiv 2609.05275.
    """

    rate: float = 0.6
    fixed: tuple[int, ...] = ()
    scaling: Inverse = "inverse"
    redraw: Redraw = "micro_step"
    seed: int = 0
    name = "sequence_layer_dropout"
    skips = ("sequences",)

    def __post_init__(self) -> None:
        check_share("rate", self.rate, one=False)
        check_fields(self)

    def __str__(self) -> str:
        return f"Sequence layer dropout {self.rate:g}"

    def depths(self, layers: int) -> Depths:
        """l / (L - 1); one layer alone is the first, and every sequence runs through it."""
        return tuple(layer / max(layers - 1, 1) for layer in range(layers))

    def scaled(self, layers: int) -> Depths:
        """As skipped, or not at all."""
        return self.depths(layers) if self.scaling == "inverse" else (0.0,) * layers

    def rate_at(self, step: int, steps: int) -> float:
        """Down to 0 at the last step; the rate itself, where there is one step."""
        return self.rate * (1 - step / max(steps - 1, 1))

    def mean_rate(self, steps: int) -> float:
        """Half of the rate."""
        return self.rate / 2 if steps > 1 else self.rate

    def plan(self, shape: ModelShape, steps: int) -> RatePlan:
        """Bind to a model's shape and a run of ``steps`` steps."""
        return bind_rates(self, self.fixed, shape, steps, sequences=True)
