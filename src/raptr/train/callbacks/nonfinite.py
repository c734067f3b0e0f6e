"""Numbers that go wrong: an update whose loss or gradient norm is not finite is not made."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.errors import RaptrError
from raptr.model.rank_check import alone
from raptr.plan import Subnetwork
from raptr.train.run import Run


class Diverged(RaptrError):
    """So many updates in a row could not be made that the run has stopped."""


@dataclass
class Skipped:
    """Updates that were not made.

    Attributes:
        total: in the whole run.
        in_a_row: up to now, without one that was made.
    """

    total: int = 0
    in_a_row: int = 0


class FiniteCallback(TrainerCallback):  # type: ignore[misc]
    """Leaves weights and the optimizer's state as they are where a step's loss or gradient norm is not finite.

    The Trainer says what it found, by `saw_loss` and `saw_norm`; before the optimizer steps, all gradients are taken
    away if one of them was not finite, on any rank. The step counts as one, and so does its learning rate. Where a
    gradient scaler (fp16) left out the optimizer's step because of such gradients, that is counted as well.

    Args:
        run: the run, whose config says at how many missing updates in a row it stops.

    Attributes:
        skipped: what was skipped so far; a checkpoint keeps it.

    Raises:
        Diverged: at the end of the step at which too many in a row were missing.
    """

    def __init__(self, run: Run) -> None:
        self.skipped = Skipped()
        self._run = run
        self._limit = run.task.config.stability.max_skipped_updates
        self._norm: float | torch.Tensor | None = None
        self._losses: list[torch.Tensor] = []
        self._hook: Any = None
        self._asked = False

    def saw_loss(self, loss: torch.Tensor) -> None:
        """The loss of a micro-step."""
        self._losses.append(loss.detach())

    def saw_norm(self, norm: float | torch.Tensor | None) -> None:
        """The norm of the gradients of a step."""
        whole = getattr(norm, "full_tensor", None)
        self._norm = norm if whole is None else whole()

    def snapshot(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return asdict(self.skipped)

    def restore(self, snapshot: dict[str, int]) -> None:
        """Go on from a checkpoint's snapshot."""
        self.skipped = Skipped(**snapshot)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Be the last to be asked before the optimizer steps."""
        self._losses, self._norm, self._asked = [], None, False  # of a trial
        optimizer = kwargs["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate's wrapper holds the real one
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop where too many were skipped."""
        if not self._asked:  # a gradient scaler did not call the optimizer
            self._losses, self._norm = [], None
            self._count()
        self._asked = False
        if self.skipped.in_a_row >= self._limit:
            raise Diverged(self._told(state.global_step - 1))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the optimizer alone from now on."""
        if self._hook is not None:
            self._hook.remove()

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._asked = True
        if self._all_finite():
            self.skipped.in_a_row = 0
            return
        self._count()
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    def _count(self) -> None:
        self.skipped.in_a_row += 1
        self.skipped.total += 1

    def _all_finite(self) -> bool:
        """Whether all that was seen since the last step was finite, on every rank."""
        found = [*self._losses, *([] if self._norm is None else [torch.as_tensor(self._norm)])]
        self._losses, self._norm = [], None
        if not found:
            return True
        finite = torch.stack([torch.isfinite(value).all().to(found[0].device) for value in found]).all()
        if not alone():
            told = finite.to(torch.int32)
            dist.all_reduce(told, dist.ReduceOp.MIN)
            finite = told > 0
        return bool(finite)

    def _told(self, step: int) -> str:
        plan, stage = self._run.plan, self._run.stage_number(step + 1)
        return (
            f"{self._limit} updates in a row were not made, because the loss or the gradient norm was not finite, the "
            f"last at step {step + 1}, in stage {stage + 1} of {len(plan.stages)}, with the layers "
            f"{_named(plan.subnetwork(step))}. Weights are those of the last good update, and the newest checkpoint is "
            "kept. Lower training.learning_rate, set training.max_grad_norm, or look at the data."
        )


def _named(part: Subnetwork) -> str:
    return "; ".join(", ".join(map(str, layers)) or "none" for layers in part.layers)
