"""From a folder of runs to report.html and its PNG figures."""

import os
import tempfile
from pathlib import Path

import vl_convert

from raptr.report import theme
from raptr.report.comparison import read_folder
from raptr.report.figures.build import palette_of, png_specs
from raptr.report.figures.paths import panels_of
from raptr.report.page import render

SCALE = 2.0


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` into a comparison folder or a run folder.

    The page is one file that needs nothing else and loads nothing; runs that are not finished are shown as that.
    A report that exists is replaced, each file at once.

    Args:
        folder: ``runs/<name>`` of a comparison, or of a single run.

    Returns:
        The path of ``report.html``.

    Raises:
        RaptrError: There is no such folder, it holds no run, or one of its files is broken.
    """
    comparison = read_folder(Path(folder))
    palette, panels = palette_of(comparison), panels_of(comparison)
    page = render(comparison, palette, panels)
    light = {**theme.vega_config(dark=False, ground=theme.LIGHT["ground"]), "padding": 20, "font": "sans-serif"}
    for name, spec in png_specs(comparison, palette, panels).items():
        image = vl_convert.vegalite_to_png(spec, scale=SCALE, config=light, allowed_base_urls=[])
        _replace(comparison.folder / "figures" / name, image)
    target = comparison.folder / "report.html"
    _replace(target, page.encode())
    return target


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
