"""What a plan costs, before anything is trained.

The unit is whatever the layer costs are given in: FLOPs per step (`raptr.model.count_flops`), or
1 per layer where no model is at hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

from raptr.errors import RaptrError
from raptr.plan.protocol import Plan
from raptr.plan.schedule import Stage
from raptr.plan.shape import ModelShape
from raptr.plan.subnetwork import Subnetwork


@dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """The cost of one training step, by part.

    Attributes:
        layers: the cost of each layer of each stack.
        other: what runs at every step besides the layers (embeddings, head, loss).
    """

    layers: tuple[tuple[float, ...], ...]
    other: float = 0.0

    @classmethod
    def uniform(cls, shape: ModelShape) -> "LayerCosts":
        """1 per layer, nothing besides: for shares of layer FLOPs without a model."""
        return cls(layers=tuple((1.0,) * count for count in shape.layers))

    @property
    def all_layers(self) -> float:
        """The cost of all layers."""
        return sum(map(sum, self.layers))

    @property
    def total(self) -> float:
        """The cost of a step of the full model."""
        return self.all_layers + self.other

    def of_layers(self, subnetwork: Subnetwork) -> float:
        """The cost of a subnetwork's layers.

        Raises:
            RaptrError: the subnetwork is not a part of a model with these layers.
        """
        subnetwork.check(ModelShape.of(layers=[len(costs) for costs in self.layers]))
        pairs = zip(self.layers, subnetwork.layers, strict=True)
        return sum(sum(costs[layer] for layer in path) for costs, path in pairs)

    def step(self, subnetwork: Subnetwork) -> float:
        """The cost of a step of a subnetwork, layers and the rest."""
        return self.of_layers(subnetwork) + self.other

    def scaled(self, factor: float) -> "LayerCosts":
        """The same for ``factor`` times as much work, e.g. a batch of that many sequences."""
        return LayerCosts(
            layers=tuple(tuple(cost * factor for cost in stack) for stack in self.layers),
            other=self.other * factor,
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

    A stage of T steps costs T * (sum over layers of P(layer kept) * cost of the layer + the rest).

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
        expected = sum(
            p * cost
            for kept, stack in zip(plan.keep(stage), costs.layers, strict=True)
            for p, cost in zip(kept, stack, strict=True)
        )
        layers = stage.steps * expected
        result.append(StageCost(stage=stage, layers=layers, total=layers + stage.steps * costs.other))
    return tuple(result)


def _first_run(steps: int, bind: Callable[[int], Plan]) -> int:
    """The fewest steps from ``steps`` on that the method allows; short runs may lack a step for a stage."""
    for further in range(steps, 2 * steps + 1000):
        try:
            bind(further)
        except RaptrError as error:
            problem = error
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
