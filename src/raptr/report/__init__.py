"""The report: a run folder or a comparison folder becomes one HTML page and its PNG figures.

It reads files only, through `raptr.results`. Reading order: ``write`` (from folders to files), ``page`` and
``section`` (the HTML), ``table``, ``verdict`` and ``notes`` (its words and numbers), ``curves``, ``recorded_paths`` and
``path_map`` (what is drawn), ``figures`` (how it is drawn).
"""

from raptr.report.write import write_report

__all__ = ["write_report"]
