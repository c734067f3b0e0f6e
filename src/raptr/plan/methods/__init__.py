"""The methods, one family a file. A method is known to the command line by its key here."""

from raptr.plan.methods.full import Full, FullPlan
from raptr.plan.methods.raptr import RaPTr, RaPTrPlan

METHODS = {"full": Full, "raptr": RaPTr}

__all__ = ["METHODS", "Full", "FullPlan", "RaPTr", "RaPTrPlan"]
