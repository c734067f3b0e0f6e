"""The methods, one family a file. A method is known to configs and the command line by its key here."""

from raptr.plan.methods.controls import ConstantSize, Reversed
from raptr.plan.methods.dropping import LayerDrop, ProgressiveLayerDropping, StochasticDepth
from raptr.plan.methods.expansion import LateExpansion
from raptr.plan.methods.full import Full
from raptr.plan.methods.raptr import RaPTr
from raptr.plan.methods.sequences import SequenceLayerDropout
from raptr.plan.methods.stacking import MIDAS, GradualStacking, GStack, ProgressiveStacking
from raptr.plan.methods.width import DepthWidthRaPTr, WidthRaPTr

METHODS = {
    "full": Full,
    "raptr": RaPTr,
    "width_raptr": WidthRaPTr,
    "depth_width_raptr": DepthWidthRaPTr,
    "constant_size": ConstantSize,
    "reversed": Reversed,
    "layerdrop": LayerDrop,
    "stochastic_depth": StochasticDepth,
    "pld": ProgressiveLayerDropping,
    "sequence_layer_dropout": SequenceLayerDropout,
    "gradual_stacking": GradualStacking,
    "progressive_stacking": ProgressiveStacking,
    "midas": MIDAS,
    "gstack": GStack,
    "late_expansion": LateExpansion,
}
"""Every method by its key, which is also its ``name``: a new one is a file and a line here (docs/extending.md)."""

__all__ = [
    "METHODS",
    "MIDAS",
    "ConstantSize",
    "DepthWidthRaPTr",
    "Full",
    "GStack",
    "GradualStacking",
    "LateExpansion",
    "LayerDrop",
    "ProgressiveLayerDropping",
    "ProgressiveStacking",
    "RaPTr",
    "Reversed",
    "SequenceLayerDropout",
    "StochasticDepth",
    "WidthRaPTr",
]
