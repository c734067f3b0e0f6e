"""The report: a run folder or a comparison folder becomes one HTML page and its PNG figures.

It reads files only. Reading order: ``read`` (files to values), ``comparison`` (methods and their seeds),
``curves`` and ``paths`` (what is drawn), ``figures`` (how it is drawn), ``page`` (the HTML), ``write`` (the files).
"""

from raptr.report.write import write_report

__all__ = ["write_report"]
