"""Tokens -> inputs and labels. numpy only; nothing is drawn that is not a function of its place."""

from raptr.objectives.causal import causal
from raptr.objectives.masked import masked, most_predictions
from raptr.objectives.protocol import Objective

__all__ = ["Objective", "causal", "masked", "most_predictions"]
