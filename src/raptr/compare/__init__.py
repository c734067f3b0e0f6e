"""Several methods and seeds under one budget, and what they show."""

from raptr.compare.budget import Budget, steps_of
from raptr.compare.comparison import compare
from raptr.compare.sweep import parse_sweep

__all__ = ["Budget", "compare", "parse_sweep", "steps_of"]
