"""Layer dropout by sequence: every layer runs at every step, on some of the batch's sequences."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from raptr.plan.methods.dropping import Probabilities, mean_keep
from raptr.plan.methods.spec import Redraw, always_kept, as_layers, check_choice, check_drawn, check_share
from raptr.plan.protocol import Keep
from raptr.plan.schedule import Stage, check_steps, stage_at
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import WHOLE, Copy, LayerPart, SequenceMask, Subnetwork


@dataclass(frozen=True, kw_only=True)
class SequenceLayerDropout:
    """Each sequence skips each layer by itself, deeper layers more often, and less and less during training.

    At step t of T, layer l of L, from 0, is skipped with probability rate * l / (L - 1) * (1 - t / (T - 1)); the
    residual update of the sequences that run is divided by the probability to run. A layer runs on its sequences
    only, so that the saving is real: rate / 4 of the layers' FLOPs, over a run. On every rank at least one sequence
    runs through each layer, so that all ranks run the same layers; they draw different sequences.

    Args:
        rate: the probability of the last layer to be skipped at the beginning, from 0 to below 1.
        fixed: layers that every sequence runs through, negative from the end; in every stack. The first does anyway.
        scaling: "inverse" as published, on the layer's whole residual update (docs/deviations.md), or "none".
        redraw: "step" draws once for an optimizer step, "micro_step" for each micro-step, where the batches differ.
        seed: of the masks.

    Raises:
        RaptrError: here if a value cannot be right for any model, at `plan` if a fixed layer is out of range.

    Example:
        >>> plan = SequenceLayerDropout(rate=0.6).plan(ModelShape.of(layers=5), steps=101)
        >>> [round(p, 3) for p in plan.keep(plan.stages[0])[0]]
        [1.0, 0.925, 0.85, 0.775, 0.7]

    Reference:
        "Don't Drop Dropout", arXiv 2609.05275.
    """

    rate: float = 0.6
    fixed: tuple[int, ...] = ()
    scaling: Literal["none", "inverse"] = "inverse"
    redraw: Redraw = "micro_step"
    seed: int = 0
    name = "sequence_layer_dropout"

    def __post_init__(self) -> None:
        check_share("rate", self.rate, one=False)
        object.__setattr__(self, "fixed", as_layers(self.fixed))
        check_choice("scaling", self.scaling, ("none", "inverse"))
        check_drawn(self)

    def __str__(self) -> str:
        return f"Sequence layer dropout {self.rate:g}"

    def keep(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """1 minus the probability to be skipped."""
        depth = np.arange(layers) / max(layers - 1, 1)
        found: Probabilities = 1 - self.rate * depth * (1 - t / max(steps - 1, 1))
        return found

    def scales(self, layers: int, t: Probabilities, steps: int) -> Probabilities:
        """1 / keep, or 1."""
        keep = self.keep(layers, t, steps)
        return np.ones_like(keep) if self.scaling == "none" else 1 / keep

    def plan(self, shape: ModelShape, steps: int) -> "SequencePlan":
        """Bind to a model's shape and a run of ``steps`` steps."""
        check_steps(steps)
        always = always_kept(self.fixed, shape)
        sizes = tuple(round(sum(stack), 6) for stack in mean_keep(self, shape, steps, always))
        return SequencePlan(shape=shape, stages=(Stage(start=0, stop=steps, sizes=sizes),), rule=self, fixed=always)


@dataclass(frozen=True, kw_only=True)
class SequencePlan:
    """`SequenceLayerDropout`, bound to a shape and a number of steps: one stage; its size is the mean over the run."""

    shape: ModelShape
    stages: tuple[Stage, ...]
    rule: SequenceLayerDropout
    fixed: tuple[tuple[int, ...], ...]

    def stage(self, step: int) -> Stage:
        """The stage of a step: there is one."""
        return stage_at(self.stages, step)

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """Every layer, each with a mask of its own: a function of (seed, step, micro-step, rank, stack, layer)."""
        self.stage(step)
        at, steps = np.array([[float(step)]]), self.stages[-1].stop
        micro = micro if self.rule.redraw == "micro_step" else 0
        parts = []
        for i, (count, always) in enumerate(zip(self.shape.layers, self.fixed, strict=True)):
            (keep,), (scales,) = self.rule.keep(count, at, steps), self.rule.scales(count, at, steps)
            parts.append(
                tuple(
                    WHOLE
                    if layer in always or keep[layer] >= 1
                    else LayerPart(
                        scale=float(scales[layer]),
                        sequences=SequenceMask(
                            keep=float(keep[layer]),
                            seed=self.rule.seed,
                            step=step,
                            micro=micro,
                            stack=i,
                            layer=layer,
                        ),
                    )
                    for layer in range(count)
                )
            )
        return Subnetwork(Subnetwork.full(self.shape).layers, tuple(parts))

    def transition(self, step: int) -> tuple[Copy, ...]:
        """Nothing is copied."""
        return ()

    def keep(self, stage: Stage) -> Keep:
        """The mean share of the sequences that run through each layer."""
        return self._mean

    @cached_property
    def _mean(self) -> Keep:
        return mean_keep(self.rule, self.shape, self.stages[-1].stop, self.fixed)
