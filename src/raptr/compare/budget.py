"""One budget for every method: how many steps each may take."""

from typing import Literal

from raptr.errors import RaptrError
from raptr.plan import Full, Method, plan_cost, steps_for
from raptr.train.task import Task

Budget = Literal["flops", "steps", "tokens"]


def steps_of(method: Method, task: Task, budget: Budget) -> int:
    """The number of steps of a method under a budget that is what full training spends.

    - ``flops``: the expected total training FLOPs agree with those of full training for the
      config's number of steps, to within one step;
    - ``steps``: the config's number of steps;
    - ``tokens``: as many tokens as full training sees; with one batch size for all methods and
      sequences without padding that is the same number of steps.

    Raises:
        RaptrError: the method's schedule does not fit, or no number of steps meets the budget.
    """
    if budget != "flops":
        method.plan(task.shape, task.steps)
        return task.steps
    full = Full().plan(task.shape, task.steps)
    spent = sum(stage.total for stage in plan_cost(full, task.costs))
    try:
        return steps_for(spent, lambda steps: method.plan(task.shape, steps), task.costs)
    except RaptrError as error:
        raise RaptrError(
            f"no number of steps gives {method} the FLOPs of {task.steps} steps of full training: {error} "
            "(Stage lengths given in steps fit one length of run only; give shares, e.g. lengths: [0.25, 0.75].)"
        ) from error
