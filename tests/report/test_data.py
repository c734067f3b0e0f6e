"""What the figures draw, against counts and formulas written out by hand."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from helpers.synthetic_runs import METHODS, write_comparison, write_run
from raptr import units
from raptr.report import theme
from raptr.report.curves import axis_of, mean_curve, place_of, smooth
from raptr.report.figures.build import palette_of
from raptr.report.figures.loss import LossRows, clamped, loss_rows
from raptr.report.figures.path_panels import panels_of
from raptr.report.path_map import path_map
from raptr.results.folder import read_folder
from raptr.results.run_files import read_run


def counted(folder: Path, width: int) -> dict[int, list[float]]:
    """The path map once more, from the file with plain loops."""
    trained: dict[int, list[float]] = {}
    steps: dict[int, int] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            column = (record["step"] - 1) // width * width
            steps[column] = steps.get(column, 0) + 1
            row = trained.setdefault(column, [0.0] * 12)
            for layer in record["layers"][0]:
                row[layer] += 1
    return {column: [value / steps[column] for value in row] for column, row in trained.items()}


@pytest.mark.parametrize(("columns", "width"), [(240, 1), (50, 3), (10, 14)])
def test_path_map_is_what_the_metrics_say(tmp_path: Path, columns: int, width: int) -> None:
    folder = write_run(tmp_path / "run", steps=133)
    run = read_run(folder)
    found = path_map(run.train.step, run.train.kept[0], run.steps, columns)
    expected = counted(folder, width)
    assert len(found.start) <= columns
    assert found.start.tolist() == sorted(expected)
    assert found.stop.tolist() == [min(start + width, 133) for start in sorted(expected)]
    np.testing.assert_allclose(found.share, [expected[start] for start in sorted(expected)])


def test_path_map_comparison_notices_one_changed_step(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=133)
    run = read_run(folder)
    kept = run.train.kept[0].copy()
    kept[60, 4] = ~kept[60, 4]
    found = path_map(run.train.step, kept, run.steps, 50)
    expected = counted(folder, 3)
    wrong = [s for s, share in zip(found.start.tolist(), found.share, strict=True) if list(share) != expected[s]]
    assert wrong == [60]


def test_path_map_typed_by_hand() -> None:
    kept = np.array([[1, 0], [1, 1], [1, 0], [1, 0], [0, 1]], dtype=bool)
    found = path_map(np.array([1, 2, 3, 4, 5]), kept, steps=8, columns=4)
    assert found.start.tolist() == [0, 2, 4]
    assert found.stop.tolist() == [2, 4, 5], "the last column ends with the last record"
    assert found.share.tolist() == [[1, 0.5], [1, 0], [0, 1]]
    sparse = path_map(np.array([10, 20, 30]), kept[:3], steps=30, columns=240)
    assert (sparse.start.tolist(), sparse.stop.tolist()) == ([9, 19, 29], [10, 20, 30])
    many = path_map(np.array([1, 2, 4, 6, 8]), kept, steps=8, columns=2)
    assert (many.start.tolist(), many.stop.tolist()) == ([0, 5], [4, 8]), "from the first known step to the last"
    assert many.share.tolist() == [[1, 1 / 3], [0.5, 0.5]]
    mixed = path_map(np.array([1, 2, 4, 5]), kept[:4], steps=6, columns=3)
    assert (mixed.start.tolist(), mixed.stop.tolist()) == ([0, 3, 4], [2, 4, 5])
    assert path_map(np.array([], dtype=np.int64), kept[:0], steps=8).share.shape == (0, 2)


def test_merged_panel_columns_cover_the_same_steps(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=133)
    (panel,) = panels_of(read_folder(folder))
    expected = counted(folder, 1)
    assert len(panel.rows) < 133  # the last stage is one colour
    for row in panel.rows:
        for step in range(row["a"], row["b"]):
            assert row["v"] == expected[step]
    assert [row["k"] for row in panel.stages] == ["6 layers", "8 layers", "10 layers", "12 layers"]


def test_band_is_the_t_interval(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c")
    method = read_folder(folder).methods[1]
    axis = axis_of("total_flops", method.runs)
    curve = mean_curve(method.runs, axis)
    losses = [run.evals.columns["eval_loss"][-1] for run in method.runs]
    mean = sum(losses) / 3
    deviation = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / 2)
    half = 4.302653 * deviation / math.sqrt(3)  # t(0.975, 2)
    assert (curve.mean[-1], curve.low[-1], curve.high[-1]) == pytest.approx((mean, mean - half, mean + half))
    assert curve.x[-1] * axis.factor == pytest.approx(method.runs[0].train.columns["total_flops"][-1])
    assert axis.title == "Total training compute (TFLOP)"


@pytest.mark.parametrize("methods", [2, 7])
def test_bands_of_many_methods_do_not_stretch_the_axis(tmp_path: Path, methods: int) -> None:
    keys = ["full", *(f"m{number}" for number in range(methods - 1))]
    options = {key: {"label": key, "sizes": (12,), "steps": 40} for key in keys}
    comparison = read_folder(write_comparison(tmp_path / "c", methods=options, seeds=2))
    rows = loss_rows(comparison, (axis_of("tokens", comparison.runs),))
    late = LossRows(mean=[row for row in rows.mean if row["s"] > 30], seeds=[], boundaries=[])
    values = [row["y"] for row in late.mean]
    drawn = [row[end] for row in clamped(late) for end in ("blo", "bhi")]
    beyond = min(drawn) < min(values) or max(drawn) > max(values)
    assert beyond == (methods == 2)  # a 95 % band of two seeds is 13 standard errors wide


def test_a_mean_is_drawn_only_where_every_seed_has_a_number(tmp_path: Path) -> None:
    runs = tuple(
        read_run(write_run(tmp_path / str(seed), steps=60, seed=seed, nan_from=45 if seed else None))
        for seed in range(2)
    )
    curve = mean_curve(runs, axis_of("tokens", runs))
    assert curve.step.tolist() == [0, 15, 30, 45, 60]
    assert np.isfinite(curve.mean).tolist() == [True, True, True, False, False]


def test_a_diverged_run_has_no_boundaries_after_its_end(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=120, nan_from=75)
    comparison = read_folder(folder)
    rows = loss_rows(comparison, (axis_of("tokens", comparison.runs),))
    assert [row["s"] for row in rows.boundaries] == [30, 60]


def test_a_seed_that_has_measured_nothing_does_not_hide_the_others(tmp_path: Path) -> None:
    method = {"label": "F", "sizes": (12,), "steps": 40, "done": 20}
    folder = write_comparison(tmp_path / "c", methods={"full": method})
    (folder / "full-seed1" / "metrics.jsonl").unlink()
    comparison = read_folder(folder)
    rows = loss_rows(comparison, (axis_of("tokens", comparison.runs),))
    assert {row["n"] for row in rows.mean} == {2}


def test_boundaries_are_where_the_stages_begin(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=120)
    run = read_run(folder)
    axis = axis_of("tokens", (run,))
    assert [place_of(run, axis, stage.start) for stage in run.stages] == [
        pytest.approx(step * 4096 / axis.factor) for step in (0, 30, 60, 90)
    ]
    assert place_of(run, axis, 121) is None
    rows = loss_rows(read_folder(folder), (axis,))
    assert [row["k"] for row in rows.boundaries] == ["8", "10", "12"]


def test_smoothing_keeps_constants_and_gaps() -> None:
    values = np.full(400, 2.5)
    values[300:] = np.nan
    found = smooth(values)
    np.testing.assert_allclose(found[:300], 2.5)
    assert np.isnan(found[300:]).all()
    ramp = np.arange(400.0)
    np.testing.assert_allclose(smooth(ramp)[20:-20], ramp[20:-20])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.quantity(1.234e15, "FLOP"), "1.23 PFLOP"),
        (units.quantity(4_600_000), "4.60 M"),
        (units.quantity(999), "999"),
        (units.quantity(None), "–"),
        (units.quantity(12_345), "12.3 k"),
        (units.duration(74.4), "74 s"),
        (units.duration(744), "12.4 min"),
        (units.duration(36000), "10.00 h"),
        (units.count(12345.0), "12,345"),
        (units.decimal(-0.03123, signed=True), "−0.0312"),
        (units.decimal(float("nan")), "–"),
        (units.interval((-0.1, 0.25), signed=True), "−0.1000 to +0.2500"),
        (units.share_interval((-0.163, 0.379)), "−16.3 to 37.9 %"),
        (units.share_interval((-0.163, None)), "−16.3 % or more"),
    ],
)
def test_units(text: str, expected: str) -> None:
    assert text == expected


def linear(colour: str) -> np.ndarray:
    """The linear RGB of an sRGB colour."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    """WCAG relative luminance."""
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [theme.BASELINE, *theme.PALETTE])
def test_method_colours_show_on_light_and_dark(colour: str) -> None:
    assert contrast(colour, theme.LIGHT["ground"]) >= 3
    assert contrast(colour, theme.DARK["ground"]) >= 3


# Machado, Oliveira and Fernandes 2009, severity 1: how a colour-blind reader sees linear RGB.
SIGHT = {
    "ordinary": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson's OKLab of linear RGB."""
    cones = [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696]]
    cones.append([0.08830246, 0.28171884, 0.6299787])
    lab = [[0.21045426, 0.79361779, -0.00407205], [1.9779985, -2.42859221, 0.45059371]]
    lab.append([0.02590404, 0.78277177, -0.80867577])
    return np.array(lab) @ np.cbrt(np.array(cones) @ np.clip(rgb, 0, 1))


def nearest_pair(colours: list[str], sight: str) -> float:
    """The OKLab distance of the two colours that are hardest to tell apart."""
    seen = [oklab(np.array(SIGHT[sight]) @ linear(colour)) for colour in colours]
    return min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2))


@pytest.mark.parametrize("sight", SIGHT)
def test_method_colours_are_apart_for_every_reader(sight: str) -> None:
    assert nearest_pair([theme.BASELINE, *theme.PALETTE], sight) > 0.05


def test_the_search_for_similar_colours_finds_some() -> None:
    pair = ["#d95f02", "#b08a00"]
    assert nearest_pair(pair, "ordinary") > 0.1
    assert nearest_pair(pair, "deutan") < 0.03


def test_every_method_has_its_own_colour_and_dash() -> None:
    pairs = list(zip(theme.colours(15, 0), theme.dashes(15, 0), strict=True))
    assert len({(colour, tuple(dash)) for colour, dash in pairs}) == 15
    assert pairs[0] == (theme.BASELINE, (1, 0))


def test_the_baseline_is_grey_wherever_the_comparison_names_it(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", seeds=1, methods=dict(reversed(METHODS.items())))
    palette = palette_of(read_folder(folder))
    assert dict(zip(palette.names, palette.colours, strict=True)) == {
        "Full": theme.BASELINE,
        "RaPTr 6-8-10-12": theme.PALETTE[0],
    }
