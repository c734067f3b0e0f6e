"""Savings that are bounds: in the sentence, in the table and in the figure."""

import dataclasses
import json
from pathlib import Path

import pytest

from helpers.synthetic_runs import METHODS, write_comparison
from raptr.report.figures.build import palette_of
from raptr.report.figures.common import Data
from raptr.report.figures.intervals import interval_chart, saving_points
from raptr.report.notes import saving_note
from raptr.report.table import saving_table
from raptr.report.verdict import verdict_sentence
from raptr.results.equal_loss import Ends
from raptr.results.folder import Comparison, read_folder
from raptr.results.statistics import Decision
from raptr.results.summary import summary_of

SHORT = {key: {**options, "steps": 40} for key, options in METHODS.items()}


def comparison_with(folder: Path, saving: float, *, reached: bool, at_least: bool, interval: Ends | None) -> Comparison:
    """A decided comparison in which the saving is what is given."""
    methods = {**SHORT, "raptr": {**SHORT["raptr"], "offset": -0.3 if reached else 0.3}}
    found = read_folder(write_comparison(folder, methods=methods))
    full, raptr = found.methods
    assert raptr.outcome.decision is (Decision.BETTER if reached else Decision.WORSE)
    given = {"saving": saving, "reached": reached, "at_least": at_least, "interval": interval}
    savings = {name: dataclasses.replace(one, **given) for name, one in raptr.outcome.savings.items()}  # type: ignore[arg-type]
    outcome = dataclasses.replace(raptr.outcome, savings=savings)
    return dataclasses.replace(found, methods=(full, dataclasses.replace(raptr, outcome=outcome)))


@pytest.mark.parametrize(
    ("saving", "reached", "at_least", "interval", "said"),
    [
        (0.2, True, False, (0.1, 0.3), "final loss with 20% fewer FLOPs (saved: 10.0 to 30.0 % over seeds)."),
        (0.38, True, True, (-0.163, None), "with at least 38% fewer FLOPs (saved: −16.3 % or more over seeds)."),
        (-0.1, True, False, None, "final loss with 10% more FLOPs."),
        (-0.38, False, False, None, "For its own final loss it spends 38% more FLOPs than Full."),
        (-0.38, False, True, None, "For its own final loss it spends at most 38% more FLOPs than Full."),
        (0.09, False, True, None, "For its own final loss it spends at least 9% fewer FLOPs than Full."),
    ],
)
def test_the_sentence_says_which_side_is_bounded(
    tmp_path: Path, saving: float, reached: bool, at_least: bool, interval: Ends | None, said: str
) -> None:
    comparison = comparison_with(tmp_path / "c", saving, reached=reached, at_least=at_least, interval=interval)
    assert verdict_sentence(comparison).endswith(said)


@pytest.mark.parametrize("high", [0.379, None])
def test_an_open_end_is_told_in_table_note_summary_and_figure(tmp_path: Path, high: float | None) -> None:
    interval = (-0.163, high)
    comparison = comparison_with(tmp_path / "c", 0.379, reached=True, at_least=True, interval=interval)
    table = saving_table(comparison)
    assert table is not None
    cell = table.rows[0].cells["FLOPs saved"]
    told = "−16.3 % or more" if high is None else "−16.3 to 37.9 %"
    assert (cell.text, cell.note) == ("≥ 37.9 %", told)
    assert ("A bar that runs to the edge has no upper end" in saving_note(comparison)) == (high is None)
    summary = json.loads(json.dumps(summary_of(comparison), allow_nan=False))
    assert summary["methods"]["raptr"]["savings"]["total_flops"]["interval"] == [-0.163, high]
    data, points = Data(), saving_points(comparison, "total_flops")
    spec = interval_chart(data, points, palette_of(comparison), title="Saved", form=".0%").to_dict(validate=True)
    ends = [one["encoding"]["x2"] for one in spec["layer"] if "x2" in one["encoding"]]
    assert ends == [{"value": "width"} if high is None else {"field": "hi"}]
    assert told in [row["ci"] for rows in data.rows.values() for row in rows if "ci" in row]
