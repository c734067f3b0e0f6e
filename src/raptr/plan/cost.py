"""What a plan costs, before anything is trained.

The unit is whatever the layer costs are given in: FLOPs per step (`raptr.model.count_flops`), or
1 per layer where no model is at hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raptr.errors import RaptrError
from raptr.plan.protocol import Plan, width_of
from raptr.plan.schedule import Stage
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import Subnetwork


@dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """The cost of one training step, by part.

    Attributes:
        layers: the cost of each layer of each stack.
        other: what runs at every step besides the layers (embeddings, head, loss).
        heads: of each layer, what is spent in its attention and shrinks with the kept heads; empty for unknown.
        neurons: of each layer, what is spent in its MLP and shrinks with the kept neurons; empty for unknown.
    """

    layers: tuple[tuple[float, ...], ...]
    other: float = 0.0
    heads: tuple[tuple[float, ...], ...] = ()
    neurons: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def uniform(cls, shape: ModelShape) -> "LayerCosts":
        """1 per layer, nothing besides: for shares of layer FLOPs without a model.

        Of each layer a third is its attention and two thirds its MLP, as of a transformer whose MLP is four times
        as wide as its hidden states, the scores left out.
        """
        layers = tuple((1.0,) * count for count in shape.layers)
        return cls(
            layers=layers,
            heads=tuple((1 / 3,) * count for count in shape.layers),
            neurons=tuple((2 / 3,) * count for count in shape.layers),
        )

    @property
    def all_layers(self) -> float:
        """The cost of all layers."""
        return sum(map(sum, self.layers))

    @property
    def total(self) -> float:
        """The cost of a step of the full model."""
        return self.all_layers + self.other

    def of_layers(
        self,
        subnetwork: Subnetwork,
        shape: ModelShape | None = None,
        sequences: int | None = None,
        ranks: int = 1,
    ) -> float:
        """The cost of a subnetwork's layers.

        Args:
            subnetwork: what runs.
            shape: of the model, which says what kept heads and neurons are a share of; not needed without such.
            sequences: how many a rank's micro-batch has, where layers run on some of them: the cost is then that of
                those which the ranks keep. Without it, the cost is that of the share of a large batch.
            ranks: how many there are.

        Raises:
            RaptrError: the subnetwork is not a part of a model of this shape.
        """
        shape = shape or ModelShape.of(layers=[len(costs) for costs in self.layers])
        subnetwork.check(shape)
        if not subnetwork.parts:
            pairs = zip(self.layers, subnetwork.layers, strict=True)
            return sum(sum(costs[layer] for layer in path) for costs, path in pairs)
        total = 0.0
        for i, stack in enumerate(shape.stacks):
            needed = {layer for layer, _ in stack.required}  # run on the whole batch for what they make
            for layer, part in subnetwork.kept(i):
                width = (
                    1.0 if part.heads is None else len(part.heads) / (stack.heads or 1),
                    1.0 if part.neurons is None else len(part.neurons) / (stack.neurons or 1),
                )
                batch = 1.0 if layer in needed else part.share
                if layer not in needed and part.sequences is not None and sequences is not None:
                    kept = sum(len(part.rows(layer, sequences, rank)) for rank in range(ranks))
                    batch = kept / (sequences * ranks)
                total += batch * self.of_layer(i, layer, width)
        return total

    def of_layer(self, stack: int, layer: int, width: tuple[float, float] = (1.0, 1.0)) -> float:
        """The cost of one layer with a share of its heads and one of its neurons.

        Raises:
            RaptrError: a share is below 1, and what shrinks with it is not known.
        """
        whole = self.layers[stack][layer]
        if width == (1.0, 1.0):
            return whole
        if not self.heads or not self.neurons:
            raise RaptrError(
                "what a part of a layer's heads and neurons costs is not known for these costs; "
                "use the costs of a model of which it is (`raptr.model.count_flops`)."
            )
        heads, neurons = width
        return whole - (1 - heads) * self.heads[stack][layer] - (1 - neurons) * self.neurons[stack][layer]

    def step(self, subnetwork: Subnetwork, shape: ModelShape | None = None, sequences: int | None = None) -> float:
        """The cost of a step of a subnetwork, layers and the rest; see `of_layers`."""
        return self.of_layers(subnetwork, shape, sequences) + self.other

    def scaled(self, factor: float) -> "LayerCosts":
        """The same for ``factor`` times as much work, e.g. a batch of that many sequences."""

        def times(costs: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(cost * factor for cost in stack) for stack in costs)

        return LayerCosts(
            layers=times(self.layers), other=self.other * factor, heads=times(self.heads), neurons=times(self.neurons)
        )


def mean_costs(costs: Sequence[LayerCosts], weights: Sequence[float]) -> LayerCosts:
    """The expected cost of a step that is of one kind or another.

    Args:
        costs: of each kind, of the same layers.
        weights: how often each kind is met, summing to 1.

    Example:
        >>> short, long = (LayerCosts(layers=((cost,),), other=1.0) for cost in (2.0, 4.0))
        >>> mean_costs([short, long], [0.75, 0.25])
        LayerCosts(layers=((2.5,),), other=1.0, heads=(), neurons=())
    """

    def mean(parts: Sequence[tuple[tuple[float, ...], ...]]) -> tuple[tuple[float, ...], ...]:
        by_stack = zip(*parts, strict=True)
        return tuple(tuple(map(weighted, zip(*stack, strict=True))) for stack in by_stack)

    def weighted(values: Sequence[float]) -> float:
        return sum(weight * value for weight, value in zip(weights, values, strict=True))

    return LayerCosts(
        layers=mean([cost.layers for cost in costs]),
        other=weighted([cost.other for cost in costs]),
        heads=mean([cost.heads for cost in costs]),
        neurons=mean([cost.neurons for cost in costs]),
    )


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The expected cost of a stage, in the unit of the layer costs.

    Attributes:
        stage: the stage.
        layers: the expected cost of its kept layers, over all its steps.
        total: the same with everything besides the layers.
    """

    stage: Stage
    layers: float
    total: float


def plan_cost(plan: Plan, costs: LayerCosts | None = None) -> tuple[StageCost, ...]:
    """The expected cost of every stage of a plan.

    A stage of T steps costs T * (sum over layers of P(layer kept) * cost of the layer + the rest). With kept
    heads and neurons, the layer's cost is that of these shares of it. Where sequences skip layers by themselves, the
    probabilities depend on the size of a micro-batch: pass the plan of `raptr.plan.for_rows`.

    Args:
        plan: any plan of raptr.
        costs: per step; 1 per layer if not given.

    Returns:
        One `StageCost` per stage; their sums are the cost of the run.

    Example:
        >>> from raptr.plan.methods import RaPTr
        >>> plan = RaPTr("6-8-10-12").plan(ModelShape.of(layers=12), steps=400)
        >>> 400 * 12 / sum(cost.layers for cost in plan_cost(plan))  # the paper's 1.33x
        1.3333333333333333
    """
    costs = costs or LayerCosts.uniform(plan.shape)
    result = []
    for stage in plan.stages:
        widths = width_of(plan, stage)
        expected = sum(
            p * costs.of_layer(i, layer, widths[i])
            for i, kept in enumerate(plan.keep(stage))
            for layer, p in enumerate(kept)
        )
        layers = stage.steps * expected
        result.append(StageCost(stage=stage, layers=layers, total=layers + stage.steps * costs.other))
    return tuple(result)


def layer_share(plan: Plan, costs: LayerCosts | None = None) -> float:
    """The expected cost of a plan's layers, as a share of full training's for as many steps.

    Example:
        >>> from raptr.plan.methods import RaPTr
        >>> layer_share(RaPTr("6-8-10-12").plan(ModelShape.of(layers=12), steps=400))
        0.75
    """
    costs = costs or LayerCosts.uniform(plan.shape)
    return sum(stage.layers for stage in plan_cost(plan, costs)) / (plan.stages[-1].stop * costs.all_layers)


def _first_run(steps: int, bind: Callable[[int], Plan]) -> int:
    """The fewest steps from ``steps`` on that the method allows; short runs may lack a step for a stage."""
    said = ""
    for further in range(steps, 2 * steps + 1000):
        try:
            bind(further)
        except RaptrError as error:
            problem = error
            if str(error) == said:  # it has nothing to do with the number of steps
                break
            said = str(error)
        else:
            return further
    raise problem


def steps_for(budget: float, bind: Callable[[int], Plan], costs: LayerCosts) -> int:
    """The number of steps whose expected total cost is nearest to a budget.

    Args:
        budget: in the unit of ``costs``.
        bind: makes the plan of a number of steps, e.g. ``lambda n: method.plan(shape, n)``.
        costs: per step.

    Returns:
        The number of steps. Its cost differs from the budget by no more than one step's.

    Raises:
        RaptrError: the shortest run that the method allows costs more than the budget by over a step.
    """

    def total(steps: int) -> float:
        return sum(stage.total for stage in plan_cost(bind(steps), costs))

    # A run of n steps costs at most n full steps, so too few steps are easy to name. Every further
    # step adds between the cheapest and the dearest step, so the cost rises and bisection finds it.
    if not 0 < budget < float("inf"):
        raise RaptrError(f"a budget of {budget} meets no run; give a number above 0.")
    low = _first_run(max(1, int(budget / costs.total)), bind)
    high = low
    while total(high) < budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) < budget else (low, middle)
    best = min((low, high), key=lambda steps: abs(total(steps) - budget))
    if abs(total(best) - budget) > costs.total:
        raise RaptrError(
            f"no number of steps meets the budget of {budget:.4g}: {best} steps cost {total(best):.4g}; "
            "raise the budget."
        )
    return best
