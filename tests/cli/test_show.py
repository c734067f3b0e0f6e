"""What `raptr compare` and `raptr train` print at the end."""

import io
from pathlib import Path

from rich.console import Console

from helpers.synthetic_runs import METHODS, write_comparison
from raptr.cli.show import show_result, show_summary
from raptr.results import summarise
from raptr.rundir.run_record import Result

SHORT = {key: {**options, "steps": options["steps"] // 9} for key, options in METHODS.items()}


def test_a_summary_fits_100_columns_and_says_what_is_undecided(tmp_path: Path) -> None:
    methods = {
        **SHORT,
        "equal": {**SHORT["full"], "label": "Much like full training", "offset": 0.001, "sizes": (8, 12)},
        "wild": {**SHORT["raptr"], "label": "Wild", "nan_from": 10},
    }
    summary = summarise(write_comparison(tmp_path / "c", methods=methods))
    written = io.StringIO()
    show_summary(Console(file=written, width=100), summary)
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in written.getvalue()
    for entry in summary["methods"].values():
        (line,) = [line for line in lines if entry["label"].split()[0] in line and entry["verdict"] in line]
        if entry["savings"]:
            flops = f"{entry['savings']['total_flops']['saving']:.0%}".replace("%", " %").replace("-", "−")
            undecided = entry["decision"] == "undecided"
            assert (f"({flops} /" in line, f" {flops} /" in line) == (undecided, not undecided)
    assert {entry["decision"] for entry in summary["methods"].values()} >= {"undecided", "diverged"}


def test_a_run_tells_the_loss_of_each_of_several_sources() -> None:
    result = {"steps": 20, "tokens": 1e4, "epochs": 0.5, "layer_flops": 1e9, "total_flops": 2e9, "seconds": 3.0}
    written = {}
    for losses in ({"data": 2.5}, {"wiki": 2.0, "books": 3.0}):
        console = Console(file=io.StringIO(), width=100)
        show_result(console, Result.of({**result, "eval_loss": 2.5, "eval_losses": losses}))
        written[len(losses)] = console.file.getvalue()  # type: ignore[attr-defined]
    told = [line.split() for line in written[2].splitlines()[-2:]]
    assert told == [
        ["on", "wiki", "2.0000"],
        ["on", "books", "3.0000"],
    ]
    assert " on " not in written[1]
