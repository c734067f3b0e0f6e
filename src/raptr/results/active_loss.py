"""The validation loss of what is trained so far.

A method that grows (stacking, say) trains a part of the model until its last stage boundary, and the layers
that are still to come are as they were initialised: the full model's loss says nothing of it until then. Its
runs therefore record the loss of the trained part beside it (``eval_loss_active``), up to that boundary.
"""

import numpy as np

from raptr.results.metric_arrays import Floats
from raptr.results.run_files import Run


def trained_loss(run: Run, source: str | None = None) -> Floats:
    """The loss at each evaluation: of the trained part where that was recorded, else of the full model.

    Args:
        run: whose.
        source: a validation source; None for all together.

    Returns:
        [E], NaN where there is no number.
    """
    full, active = _losses(run, source)
    loss: Floats = np.where(np.isfinite(active), active, full)
    return loss


def full_loss(run: Run, source: str | None = None) -> Floats:
    """The loss of the full model at each evaluation, [E]."""
    return _losses(run, source)[0]


def of_part(run: Run, source: str | None = None) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which evaluations `trained_loss` takes from the trained part, [E]."""
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.isfinite(_losses(run, source)[1])
    return found


def grows(run: Run) -> bool:
    """Whether the run has recorded the loss of a trained part."""
    return bool(of_part(run).any())


def _losses(run: Run, source: str | None) -> tuple[Floats, Floats]:
    evals = run.evals
    if source is None:
        return evals.columns["eval_loss"], evals.columns["eval_loss_active"]
    full = evals.sources[source]
    return full, evals.active_sources.get(source, np.full(len(full), np.nan))
