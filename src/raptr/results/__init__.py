"""What runs have left behind, as checked values, and what it says: means, differences, savings at equal loss.

It reads files only, and of them only what the runs themselves wrote, so every figure can be made again.
Reading order: ``metric_arrays`` and ``run_files`` (one run), ``active_loss`` (whose loss it is), ``statistics`` and
``equal_loss``, ``outcome`` (a method's numbers), ``folder`` (a comparison), ``summary``. Beside them ``boundaries`` and
``speed`` (a run by stage), ``comparability`` (of a comparison's runs) and ``sweep_record`` (how values were chosen).
"""

from raptr.results.folder import read_folder
from raptr.results.run_files import read_run
from raptr.results.summary import summarise

__all__ = ["read_folder", "read_run", "summarise"]
