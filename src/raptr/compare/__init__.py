"""Several methods and seeds under one budget, and what they show.

Reading order: ``request`` (what is asked for), ``budget``, ``comparison``, ``workers`` (several runs at a time).
"""

from raptr.compare.budget import Budget, steps_of
from raptr.compare.comparison import compare
from raptr.compare.sweep import parse_sweep

__all__ = ["Budget", "compare", "parse_sweep", "steps_of"]
