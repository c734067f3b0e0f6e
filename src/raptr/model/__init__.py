"""HOW a part of a model is run. torch only.

`attach` puts a gate before every layer; the handle it returns activates the subnetwork of a step.
Folders: ``discovery`` finds the layers and verifies that they can be skipped, ``gate`` skips them, ``width`` runs a
part of their heads and neurons. ``optimizer`` freezes skipped layers, ``boundary_copies`` copies old layers onto new.
"""

from raptr.model.attach import AttachedModel, attach
from raptr.model.discovery.layers import Layers, find_layers
from raptr.model.flops import CONVENTION, count_flops
from raptr.model.inspect import Inspection, inspect_model
from raptr.model.masked_head import AttachedHead, attach_head, find_head
from raptr.model.plan_check import check_plan
from raptr.model.stacks import Blocks, Stack, find_stacks, shape_of

__all__ = [
    "CONVENTION",
    "AttachedHead",
    "AttachedModel",
    "Blocks",
    "Inspection",
    "Layers",
    "Stack",
    "attach",
    "attach_head",
    "check_plan",
    "count_flops",
    "find_head",
    "find_layers",
    "find_stacks",
    "inspect_model",
    "shape_of",
]
