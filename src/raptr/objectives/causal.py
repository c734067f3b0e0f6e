"""Causal language modelling: every token is predicted from those before it."""

from raptr.objectives.protocol import Batch, Ints, checked


def causal(tokens: Ints, *, epochs: Ints | None = None, indices: Ints | None = None) -> Batch:
    """Inputs and labels of causal language modelling.

    labels[b, t] = input_ids[b, t]. Nothing is shifted here: Hugging Face's causal models compare
    the output at t with the label at t + 1 themselves.

    Args:
        tokens: token ids, shape (B, T), any integer type.
        epochs: not used, nothing is drawn; taken so that every objective is called alike.
        indices: not used, for the same reason.

    Returns:
        ``input_ids`` and ``labels``, each int64 of shape (B, T), in memory of their own.

    Raises:
        RaptrError: ``tokens`` is not a two-dimensional array of whole numbers.

    Example:
        >>> import numpy as np
        >>> causal(np.array([[5, 3, 8]], dtype=np.uint16))["labels"]
        array([[5, 3, 8]])

    Source:
        Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018).
    """
    return {"input_ids": checked(tokens), "labels": checked(tokens)}
