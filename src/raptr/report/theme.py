"""Colours and Vega configuration, light and dark.

A method has one colour in every figure and in the page, the same on light and dark ground: all of them keep a
contrast of at least 3 to 1 with both. They are apart for colour-blind readers too (checked in the tests); from the
eighth method on the dashes tell apart what shares a colour.
"""

from collections.abc import Sequence
from typing import Any

BASELINE = "#808791"
PALETTE = ("#2277cc", "#ff5511", "#00aa55", "#cc1133", "#885599", "#007755", "#dd00ff")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))

LIGHT = {"ground": "#ffffff", "text": "#1c2430", "soft": "#5c6675", "line": "#dfe3e8"}
DARK = {"ground": "#171b22", "text": "#e8ecf1", "soft": "#9aa5b4", "line": "#303742"}

# From "never trained" to "trained in every step": away from the ground colour.
RAMP_LIGHT = ("#eef2f4", "#bfe0dc", "#6fbcc1", "#2b87a8", "#235a92", "#17306a")
RAMP_DARK = ("#232a34", "#1f4558", "#1f6679", "#2c8d92", "#62b9a3", "#a6dcb8")

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def colours(methods: int, baseline: int | None) -> tuple[str, ...]:
    """Returns a colour for each method, grey for the baseline at index ``baseline``."""
    others = iter(range(methods))
    return tuple(BASELINE if index == baseline else PALETTE[next(others) % len(PALETTE)] for index in range(methods))


def dashes(methods: int, baseline: int | None) -> tuple[Sequence[int], ...]:
    """Returns a dash pattern for each method: solid for the first that has its colour."""
    others = iter(range(methods))
    return tuple(
        DASHES[0] if index == baseline else DASHES[next(others) // len(PALETTE) % len(DASHES)]
        for index in range(methods)
    )


def vega_config(dark: bool, ground: str | None = None) -> dict[str, Any]:
    """Returns the Vega-Lite configuration of the figures; the ground is transparent unless it is given."""
    tone = DARK if dark else LIGHT
    return {
        "background": ground or "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": tone["soft"],
            "titleColor": tone["soft"],
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "gridColor": tone["line"],
            "gridOpacity": 0.8,
            "domain": False,
            "tickColor": tone["line"],
            "tickSize": 4,
            "labelPadding": 4,
        },
        "legend": {
            "labelColor": tone["text"],
            "titleColor": tone["soft"],
            "labelFontSize": 12,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "labelLimit": 260,
            "symbolSize": 160,
            "symbolStrokeWidth": 3,
        },
        "title": {"color": tone["text"], "fontSize": 14, "fontWeight": 600, "anchor": "start", "offset": 10},
        "range": {name: list(RAMP_DARK if dark else RAMP_LIGHT) for name in ("heatmap", "ramp")},
        "style": {
            "label": {"color": tone["soft"], "fontSize": 11},
            "name": {"color": tone["text"], "fontSize": 12},
            "seam": {"color": tone["ground"], "strokeWidth": 3},
            "segment": {"stroke": tone["ground"], "strokeWidth": 1.5},
            "zero": {"color": tone["soft"], "strokeWidth": 1},
            "halo": {"color": tone["ground"], "stroke": tone["ground"], "strokeWidth": 4, "fontSize": 12},
            "outlined": {"stroke": tone["ground"], "strokeWidth": 1.5},
        },
    }
