"""Where the vocabulary head of a run works: on masked positions only, where the model lets it."""

import warnings
from typing import Any

from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.model import find_head
from raptr.objectives import most_predictions


def predictions_of(config: RunConfig, model: Any) -> int | None:
    """On how many positions of a sequence the head runs; None for all of them.

    The number is that of a sequence without special tokens, the same for every one. A model whose head
    cannot be run on some positions only is trained with all of its logits, with a warning.

    Args:
        config: the run.
        model: its model, on any device.
    """
    if config.objective.name != "masked":
        return None
    try:
        find_head(model)
    except RaptrError as error:
        warnings.warn(
            f"the vocabulary head runs on all positions and not on the masked ones only, which costs more: {error}",
            stacklevel=2,
        )
        return None
    return most_predictions(config.data.sequence_length, config.objective.rate)
