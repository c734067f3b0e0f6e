"""One ordinary report for all tests that only look at it."""

from pathlib import Path

import pytest

from helpers.synthetic_runs import write_comparison
from raptr.report import write_report


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two methods with three seeds, and its report."""
    folder = write_comparison(tmp_path_factory.mktemp("runs") / "demo")
    assert write_report(folder) == folder / "report.html"
    return folder
