"""Several methods and seeds under one budget, and what they show."""

from raptr.compare.budget import Budget, steps_of
from raptr.compare.comparison import compare

__all__ = ["Budget", "compare", "steps_of"]
