"""Stage boundaries: each plan is checked when it is first activated, and its copies are made once."""

from collections.abc import Sequence

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.copies import check_copies, copy_layers
from raptr.model.discovery.layers import Layers
from raptr.model.plan_check import check_plan
from raptr.plan import Copy, Trainable


class Boundaries:
    """What the boundaries of plans have done to a model so far.

    Copies belong to a plan *object*: another one, even if it says the same, makes its own. A run that goes back to an
    earlier step (from a checkpoint, in the same process) therefore binds its method anew.
    """

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        self._model, self._layers = model, layers
        self._checked: Trainable | None = None
        self._made: dict[int, tuple[Trainable, set[int]]] = {}

    def due(self, plan: Trainable, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> tuple[Copy, ...]:
        """The copies of a step that are not made yet, checked; with a plan that is new, all of it is checked.

        Raises:
            RaptrError: the plan cannot be trained to its end, the step's copies cannot be made, or there are some and
                no optimizer.
        """
        if plan is not self._checked:
            check_plan(plan, self._layers)
            self._checked = plan
        copies = plan.transition(step)
        if not copies or step in self._made.get(id(plan), (plan, set[int]()))[1]:
            return ()
        if not optimizers:
            raise RaptrError(
                f"step {step} copies layers, whose optimizer state must move with them, but no optimizer is known; "
                "call net.prepare(optimizer) before training."
            )
        check_copies(self._layers, copies)
        return copies

    def make(
        self, plan: Trainable, step: int, copies: Sequence[Copy], optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        """Make the copies of a step, and remember it."""
        if copies:
            copy_layers(self._model, self._layers, optimizers, copies)
            self._made.setdefault(id(plan), (plan, set()))[1].add(step)
