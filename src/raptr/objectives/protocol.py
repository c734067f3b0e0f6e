"""What an objective takes and gives."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from raptr.errors import RaptrError

Ints = npt.NDArray[np.integer[Any]]
Batch = dict[str, npt.NDArray[np.int64]]


class Objective(Protocol):
    """A batch of token sequences and their places -> what the model is called with.

    ``tokens`` has the shape (B, T); ``epochs`` and ``indices``, each (B,), say for every sequence in
    which pass over the data it is seen and which sequence of the data it is: the only things, beside
    a seed, that a random corruption may depend on. ``causal`` is one as it is;
    ``functools.partial(masked, seed=..., mask_id=..., vocab_size=...)`` is one, too.
    """

    def __call__(self, tokens: Ints, *, epochs: Ints, indices: Ints) -> Batch: ...


def check(tokens: Ints) -> None:
    """Refuse tokens that are not whole numbers of shape (B, T)."""
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
        raise RaptrError(
            f"tokens are an array of shape {tokens.shape} and type {tokens.dtype}; expected token ids "
            "(whole numbers) of shape (sequences, length)."
        )


def checked(tokens: Ints) -> npt.NDArray[np.int64]:
    """The tokens as a new int64 array, if they are ones."""
    check(tokens)
    return tokens.astype(np.int64)
