"""From folders of runs to report.html and its PNG figures."""

from pathlib import Path

import vl_convert

from raptr.report import theme
from raptr.report.figures.build import Spec, palette_of, png_specs, spec_of
from raptr.report.figures.common import Data
from raptr.report.figures.path_panels import panels_of
from raptr.report.overview import overview_chart
from raptr.report.page import render, shared_palette
from raptr.results.folder import Comparison, read_folder
from raptr.results.summary import summary_of
from raptr.rundir.paths import FIGURES, REPORT, SUMMARY, write_bytes, write_json, write_text

SCALE = 2.0
SEVERAL = Path("runs/report")


def write_report(*folders: Path, output: Path | None = None) -> Path:
    """Writes ``report.html`` and ``figures/*.png``.

    The page is one file that needs nothing else and loads nothing; runs that are not finished are shown as that.
    All numbers are made again from the runs' own files; that of a finished comparison which is drawn in its own
    folder also renews its ``summary.json``. A report that exists is replaced, each file at once.

    Args:
        folders: ``runs/<name>`` of comparisons or of single runs; several make one page with an overview.
        output: the folder to write to. Default: the folder itself, or ``runs/report`` for several.

    Returns:
        The path of ``report.html``.

    Raises:
        RaptrError: There is no such folder, it holds no run, or one of its files is broken.
    """
    comparisons = [read_folder(Path(folder)) for folder in folders]
    alone = comparisons[0] if len(comparisons) == 1 else None
    target = output or (alone.folder if alone else SEVERAL)
    page = render(comparisons, target)
    (target / FIGURES).mkdir(parents=True, exist_ok=True)
    for name, spec in _figures(comparisons, alone).items():
        write_bytes(target / FIGURES / name, png_of(spec))
    if alone and output is None and not alone.single and not alone.unfinished:
        write_json(alone.folder / SUMMARY, summary_of(alone))
    write_text(target / REPORT, page)
    return target / REPORT


def png_of(spec: Spec) -> bytes:
    """Returns a figure as a PNG file on a light ground; nothing is loaded for it."""
    light = {**theme.vega_config(dark=False, ground=theme.LIGHT["ground"]), "padding": 20, "font": "sans-serif"}
    image: bytes = vl_convert.vegalite_to_png(spec, scale=SCALE, config=light, allowed_base_urls=[])
    return image


def _figures(comparisons: list[Comparison], alone: Comparison | None) -> dict[str, Spec]:
    """Those of one comparison; of several, that of the overview: each has its own in its own report."""
    if alone is not None:
        return png_specs(alone, palette_of(alone), panels_of(alone))
    data = Data()
    chart = overview_chart(data, comparisons, shared_palette(comparisons), width=720)
    if chart is None:
        return {}
    spec = spec_of(chart)
    return {"overview.png": {**spec, "datasets": data.used_by(spec)}}
