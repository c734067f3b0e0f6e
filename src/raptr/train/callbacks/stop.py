"""A run that is asked to stop ends its step and saves a checkpoint."""

from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.train.ranks import world_size
from raptr.train.stop_request import Stop


class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ends training after a step, with a checkpoint, once a `Stop` has a reason, on any rank.

    Attributes:
        reason: why training was ended before its last step; None if it was not.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.reason: str | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint and for the end, unless that is there anyway."""
        reason = self._stop.reason
        if world_size() > 1:  # a signal may reach the ranks at different steps
            told = torch.tensor(reason is not None, dtype=torch.int32, device=args.device)
            dist.all_reduce(told, dist.ReduceOp.MAX)
            reason = (reason or "because another rank was to") if told.item() else None
        if reason is not None and state.global_step < state.max_steps:
            self.reason = reason
            control.should_save = control.should_training_stop = True
