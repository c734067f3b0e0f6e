"""The HTML page: one comparison, or several with an overview."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from raptr.report import embed, theme
from raptr.report.figures.build import Spec, page_specs, spec_of
from raptr.report.figures.common import Data, Palette
from raptr.report.figures.path_panels import panels_of
from raptr.report.notes import READING
from raptr.report.overview import overview_chart, overview_table
from raptr.report.section import section_of
from raptr.results.folder import Comparison


def shared_palette(comparisons: Sequence[Comparison]) -> Palette:
    """Returns the colours of all methods by key: a method has the same one in every comparison.

    Grey is the baseline of the first comparison.
    """
    keys = list(dict.fromkeys(method.key for one in comparisons for method in one.methods))
    baseline = comparisons[0].baseline
    return Palette.of(keys, keys.index(baseline) if baseline in keys else None)


def own_palette(shared: Palette, comparison: Comparison) -> Palette:
    """Returns the colours of a comparison's methods, under the names that are shown there."""
    indices = [shared.names.index(method.key) for method in comparison.methods]
    return shared.part(indices, [method.name for method in comparison.methods])


def render(comparisons: Sequence[Comparison], target: Path) -> str:
    """Returns the whole page; text from the folders is escaped, wherever it comes from.

    Args:
        comparisons: one, or several with an overview.
        target: the folder of the page; links to the runs' files are relative to it.
    """
    shared, data = shared_palette(comparisons), Data()
    charts: dict[str, Spec] = {}
    sections = []
    for number, comparison in enumerate(comparisons):
        palette, panels = own_palette(shared, comparison), panels_of(comparison)
        specs = page_specs(data, comparison, palette, panels)
        charts |= {f"{number}/{name}": spec for name, spec in specs.items()}
        sections.append(section_of(comparison, panels, specs, target, number))
    overview = None
    if len(comparisons) > 1:
        chart = overview_chart(data, comparisons, shared)
        charts |= {"overview": spec_of(chart)} if chart else {}
        overview = {"table": overview_table(comparisons), "chart": chart is not None}
    bundle, script = embed.bundle(), Markup(embed.asset("page.js"))
    figures = {
        "sections": [[[method.key, method.name] for method in one.methods] for one in comparisons],
        "light": theme.vega_config(dark=False),
        "dark": theme.vega_config(dark=True),
        "data": data.rows,
        "charts": {name: {**spec, "datasets": list(data.used_by(spec))} for name, spec in charts.items()},
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(embed.asset("report.html.j2")).render(
        title=comparisons[0].name if len(comparisons) == 1 else f"{len(comparisons)} comparisons",
        overview=overview,
        sections=sections,
        keys=_keys(shared),
        reading=READING,
        figures=embed.script_json(figures),
        style=Markup(_style()),
        bundle=bundle,
        script=script,
        policy=embed.policy(bundle, script),
    )


def _style() -> str:
    css = embed.asset("page.css").replace("FONT", theme.FONT)
    return css.replace("RAMP_LIGHT", ", ".join(theme.RAMP_LIGHT)).replace("RAMP_DARK", ", ".join(theme.RAMP_DARK))


def _keys(shared: Palette) -> dict[str, tuple[str, str]]:
    """Colour and dash pattern by method, as SVG has them."""
    return {
        name: (colour, "" if tuple(dashes) == theme.DASHES[0] else " ".join(str(one) for one in dashes))
        for name, colour, dashes in zip(shared.names, shared.colours, shared.dashes, strict=True)
    }
