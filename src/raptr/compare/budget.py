"""One budget for every method: how many steps each may take."""

from typing import Literal

from raptr.errors import RaptrError
from raptr.plan import Full, LayerCosts, Method, plan_cost, steps_for
from raptr.train.task import Task

Budget = Literal["flops", "steps", "tokens", "seconds"]

NOTES: dict[Budget, str] = {
    "flops": "Budget: every method is given the steps whose expected total FLOPs are those of full training, to within "
    "one step; where layers are drawn one by one, what ran differs a little. The FLOPs of validation are not counted.",
    "steps": "Budget: every method takes the same number of steps, so methods that skip layers spend fewer FLOPs.",
    "tokens": "Budget: every method sees the same number of tokens, so methods that skip layers spend fewer FLOPs.",
    "seconds": "Budget: every method is given the training time that full training is predicted to take, from "
    "steps timed on the machine that began the comparison; what each really took is in the table.",
}


def spent_by_full(task: Task, costs: LayerCosts) -> float:
    """Return the total cost of full training of a task: its FLOPs or its seconds, as the costs of one step are."""
    return sum(stage.total for stage in plan_cost(Full().plan(task.shape, task.steps), costs))


def steps_of(method: Method, task: Task, budget: Budget, costs: LayerCosts, spent: float | None = None) -> int:
    """The number of steps of a method under a budget that is what full training spends.

    - ``flops``: the expected total training FLOPs agree with those of full training for the
      config's number of steps, to within one step;
    - ``seconds``: the same of the predicted training time;
    - ``steps``: the config's number of steps;
    - ``tokens``: as many tokens as full training sees; with one batch size for all methods and
      sequences without padding that is the same number of steps.

    Args:
        method: whose steps are asked for.
        task: of the model that the method trains; its steps are those of full training.
        budget: what is held equal.
        costs: of one step, in FLOPs or in seconds (`raptr.compare.step_timing.Clock.costs`).
        spent: what full training of the comparison's model spends; by default that of the task's model.

    Raises:
        RaptrError: the method's schedule does not fit, or no number of steps meets the budget.
    """
    task.plan(method)
    if budget in ("steps", "tokens"):
        return task.steps
    spent = spent_by_full(task, costs) if spent is None else spent
    try:
        return steps_for(spent, lambda steps: task.plan(method, steps), costs)
    except RaptrError as error:
        raise RaptrError(
            f"no number of steps gives {method} the {budget} of {task.steps} steps of full training: {error} "
            "(Stage lengths given in steps fit one length of run only; give shares, e.g. lengths: [0.25, 0.75].)"
        ) from error
