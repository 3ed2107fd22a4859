"""A panel as an inline SVG for the first paint, and as the specification that replaces it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import vl_convert

from reports.render.marks import INK, Panel

# These three are as wide as each other, here and wherever the page is read: no label is cut off.
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
TEXT = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12}
FAINT = {"gridColor": INK, "gridOpacity": 0.12, "tickColor": INK, "tickOpacity": 0.4}

# Text and axes take the colour of the text around them, so that a chart follows the page into
# dark mode; nothing of it is painted behind the marks.
THEME: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axisX": {"titleAnchor": "end"},
    "axis": {
        **TEXT,
        **FAINT,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "domainColor": INK,
        "domainOpacity": 0.4,
        "labelPadding": 5,
    },
}


def specification(panel: Panel) -> dict[str, Any]:
    """Vega-Lite that takes the width of the element it is embedded in."""
    spec = _static(panel)
    spec["width"] = "container"
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def static_svg(panel: Panel, name: str, width: int) -> str:
    """SVG without scripts or outside references, ``width`` pixels wide as it is.

    ``name`` keeps its ids apart from those of other drawings on the page.
    """
    spec = _static(panel) | {"width": width}
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    svg = vl_convert.vegalite_to_svg(spec)
    svg = re.sub(r'\bid="(clip\d+|gradient_\d+)"', rf'id="{name}-\1"', svg)
    return re.sub(r"url\(#(clip\d+|gradient_\d+)\)", rf"url(#{name}-\1)", svg)


@cache
def script_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _static(panel: Panel) -> dict[str, Any]:
    return panel.declared | {"config": THEME, "description": panel.title}
