"""The methods. A file defines one family; a method is known to configs and the command line by its ``name``.

Three kinds of plans serve most of them: ``path_plan``, ``rate_plan`` and ``growth_plan``. ``spec_parts`` holds what
several specs share.
"""

from typing import TYPE_CHECKING, Any

# One line for each method, in the order in which they are listed. It is all that a new method needs here:
# `METHODS` and `__all__` follow from these lines (docs/extending.md).
# isort: off
from raptr.plan.methods.full import Full as Full
from raptr.plan.methods.raptr import RaPTr as RaPTr
from raptr.plan.methods.width import WidthRaPTr as WidthRaPTr
from raptr.plan.methods.width import DepthWidthRaPTr as DepthWidthRaPTr
from raptr.plan.methods.controls import ConstantSize as ConstantSize
from raptr.plan.methods.controls import Reversed as Reversed
from raptr.plan.methods.dropping import LayerDrop as LayerDrop
from raptr.plan.methods.dropping import StochasticDepth as StochasticDepth
from raptr.plan.methods.dropping import ProgressiveLayerDropping as ProgressiveLayerDropping
from raptr.plan.methods.dropping import SequenceLayerDropout as SequenceLayerDropout
from raptr.plan.methods.stacking import GradualStacking as GradualStacking
from raptr.plan.methods.stacking import ProgressiveStacking as ProgressiveStacking
from raptr.plan.methods.stacking import MIDAS as MIDAS
from raptr.plan.methods.stacking import GStack as GStack
from raptr.plan.methods.expansion import LateExpansion as LateExpansion
# isort: on

_imported: list[Any] = list(vars().values())
METHODS: dict[str, type[Any]] = {found.name: found for found in _imported if hasattr(found, "plan")}
"""Every method by its key, which is its ``name``."""

if not TYPE_CHECKING:  # type checkers read what is exported from the imports above
    __all__ = ["METHODS", *sorted(method.__name__ for method in METHODS.values())]
