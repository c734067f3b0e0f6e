"""What runs have left behind, as checked values, and what it says: means, differences, savings at equal loss.

It reads files only, and of them only what the runs themselves wrote, so every figure can be made again.
Reading order: ``metrics`` and ``run`` (one run), ``trained`` (whose loss it is), ``folder`` (a comparison),
``statistics``, ``equal_loss``, ``outcome`` (a method's numbers), ``boundaries`` and ``speed`` (a run by stage),
``agreement``, ``summary``.
"""

from raptr.results.folder import read_folder
from raptr.results.run import read_run
from raptr.results.summary import summarise

__all__ = ["read_folder", "read_run", "summarise"]
