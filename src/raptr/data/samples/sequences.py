"""Tokens -> sequences of one length.

A sequence is ``length`` tokens in a row: documents follow one another and nothing is padding.
"""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raptr.data.tokens.store import Tokens
from raptr.errors import RaptrError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """A stream of tokens as sequences of ``length``; the remainder at its end is dropped.

    Args:
        tokens: one-dimensional, like ``TokenStore.train``.
        length: tokens a sequence.

    Raises:
        RaptrError: there are not enough tokens for one sequence.

    Example:
        >>> Sequences(np.arange(10, dtype=np.uint16), 4).rows([1, 0])
        array([[4, 5, 6, 7],
               [0, 1, 2, 3]])
    """

    tokens: Tokens
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise RaptrError(f"the sequence length is {self.length}; expected at least 1.")
        if len(self.tokens) < self.length:
            raise RaptrError(
                f"the text has {len(self.tokens)} tokens and one sequence needs {self.length}; give more text or "
                "shorter sequences."
            )

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def rows(self, indices: npt.ArrayLike) -> Ints:
        """The sequences of these numbers, int64 of shape (B, length)."""
        tokens = np.asarray(self.tokens)  # parts of a memmap are slow to make
        grid = tokens[: len(self) * self.length].reshape(len(self), self.length)
        return grid[np.asarray(indices, dtype=np.int64)].astype(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a worker process the name of a memory-mapped file, not the tokens in it."""
        tokens = self.tokens
        if isinstance(tokens, np.memmap) and isinstance(tokens.base, mmap.mmap):  # not a part of one
            return _reopened, (tokens.filename, tokens.dtype.str, tokens.offset, tokens.shape, self.length)
        return Sequences, (tokens, self.length)


def _reopened(name: str, dtype: str, offset: int, shape: tuple[int], length: int) -> Sequences:
    return Sequences(np.memmap(name, dtype=dtype, mode="r", offset=offset, shape=shape), length)
