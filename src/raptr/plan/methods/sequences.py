"""Layer dropout by sequence: every layer runs at every step, on some of the batch's sequences."""

from dataclasses import dataclass

from raptr.plan.fields import check_fields, check_share
from raptr.plan.methods.checks import Inverse, Redraw
from raptr.plan.methods.rate_plan import Depths, RatePlan, bind_rates
from raptr.plan.shape import ModelShape


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
