"""The lines of metrics.jsonl: one dataclass for each kind; the file holds one JSON object a line, append-only.

A field with a default is left out of a line while it has its default. A reader ignores lines of other kinds and what
a line holds beside these fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from raptr.rundir.json_record import INLINE, number, omitted


@dataclass(kw_only=True)
class Totals:
    """Running totals of a run.

    Attributes:
        tokens: tokens that were trained on.
        layer_flops: FLOPs of the layers that ran (forward and backward).
        total_flops: the same with everything besides the layers.
        seconds: wall clock of training, data loading included, validation and saving not.
    """

    tokens: int = 0
    layer_flops: float = 0.0
    total_flops: float = 0.0
    seconds: float = 0.0


COUNTERS = tuple(each.name for each in fields(Totals))
"""The names of the running totals."""


@dataclass(frozen=True, kw_only=True)
class TrainLine:
    """One training step.

    Attributes:
        step: how many steps were completed.
        stage: the number of the step's stage, from 0.
        layers: the kept layers of each stack.
        loss: training loss of this step.
        auxiliary_loss: what the model has added to its cross-entropy, such as the loss of a router; a part of ``loss``.
            None if it adds nothing.
        grad_norm: gradient norm before clipping; None if it was not measured.
        learning_rate: learning rate of this step.
        skipped_updates: how many updates were skipped so far.
        totals: up to and including this step.
        tokens_per_second: speed of this step.
        mfu: share of the devices' peak that the FLOPs of this step are; None if the peak is not known.
    """

    KIND: ClassVar = "train"

    step: int
    stage: int
    layers: tuple[tuple[int, ...], ...]
    loss: float
    auxiliary_loss: float | None = omitted(None)
    grad_norm: float | None
    learning_rate: float
    skipped_updates: int = omitted(0)
    totals: Totals = field(metadata=INLINE)
    tokens_per_second: float
    mfu: float | None = omitted(None)


@dataclass(frozen=True, kw_only=True)
class BoundaryLine:
    """Jump of the training loss at a stage boundary; see `raptr.rundir.boundary_jump`.

    Attributes:
        step: how many steps were completed when the stage began.
        stage: its number, from 0.
        window: steps of the stage that were compared with those before it.
        jump: mean loss of these steps minus the mean loss before.
        peak: highest loss of these steps minus the mean loss before.
    """

    KIND: ClassVar = "boundary"

    step: int
    stage: int
    window: int
    jump: float
    peak: float

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "BoundaryLine":
        """Return what a line says; a null is NaN.

        Raises:
            KeyError, TypeError, ValueError: the line lacks or garbles something.
        """
        step, stage, window = (int(content[name]) for name in ("step", "stage", "window"))
        return cls(step=step, stage=stage, window=window, jump=number(content["jump"]), peak=number(content["peak"]))


@dataclass(frozen=True, kw_only=True)
class EvalLine:
    """One evaluation of the full model.

    Attributes:
        step: how many steps were completed.
        stage: the number of the last step's stage, from 0.
        totals: up to and including the last step.
        eval_loss: validation loss of the full model, the mean over the validation sources.
        eval_losses: the loss of each source; None if there is one source.
        eval_loss_active: the mean loss of the part that is trained so far, of a method that grows.
        eval_losses_active: the loss of that part on each source; None if there is one source.
    """

    KIND: ClassVar = "eval"

    step: int
    stage: int
    totals: Totals = field(metadata=INLINE)
    eval_loss: float
    eval_losses: Mapping[str, float] | None = omitted(None)
    eval_loss_active: float | None = omitted(None)
    eval_losses_active: Mapping[str, float] | None = omitted(None)


Line = TrainLine | BoundaryLine | EvalLine
