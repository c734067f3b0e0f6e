"""HOW a part of a model is run. torch only.

`attach` puts a gate before every layer; the handle it returns activates the subnetwork of a step.
"""

from raptr.model.attach import AttachedModel, attach
from raptr.model.flops import CONVENTION, count_flops
from raptr.model.stacks import Blocks, Stack, find_stacks, shape_of

__all__ = ["CONVENTION", "AttachedModel", "Blocks", "Stack", "attach", "count_flops", "find_stacks", "shape_of"]
