"""A panel as an inline SVG for the first paint, and as the specification that replaces it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

import vl_convert

from reports.render.marks import INK, Panel
from reports.render.slim import slimmed

# These three are as wide as each other, here and wherever the page is read: no label is cut off.
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
TEXT = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12}
FAINT = {"gridColor": INK, "gridOpacity": 0.12, "tickColor": INK, "tickOpacity": 0.4}
SLIDE_WIDTH, SLIDE_LETTERS = 640, 80
LEGEND = {"title": None, "orient": "bottom", "columns": 2, "symbolOpacity": 1, "labelFontSize": 12}
# The page's own colours: the first block of its style sheet is the light mode's.
STYLE = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
LIGHT = dict(re.findall(r"(--(?:ink|series-\d)): (#\w+);", STYLE.partition("}")[0]))

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
    svg = slimmed(vl_convert.vegalite_to_svg(spec), panel.title)
    svg = re.sub(r'\bid="(clip\d+|gradient_\d+)"', rf'id="{name}-\1"', svg)
    return re.sub(r"url\(#(clip\d+|gradient_\d+)\)", rf"url(#{name}-\1)", svg)


def standalone_svg(panel: Panel) -> str:
    """SVG for a slide: the page's light colours, with title, note and legend drawn in."""
    spec = _static(panel) | {"width": SLIDE_WIDTH, "background": "white"}
    title = wrap(f"{panel.title[:1].upper()}{panel.title[1:]}", SLIDE_LETTERS)
    spec["title"] = {"text": title, "anchor": "start", "fontSize": 15, "offset": 14}
    if panel.note:
        spec["title"] |= {"subtitle": wrap(panel.note, SLIDE_LETTERS), "subtitlePadding": 6}
    if panel.series:
        _show_legend(spec)
    painted = json.dumps(spec).replace(f'"{INK}"', f'"{LIGHT["--ink"]}"')
    for name, colour in LIGHT.items():
        painted = painted.replace(f'"var({name})"', f'"{colour}"')
    return str(vl_convert.vegalite_to_svg(painted))


def _show_legend(part: Any) -> None:
    """Take back that colours and shapes have no legend, as on the page, which has its own."""
    if isinstance(part, dict):
        for channel in ("color", "shape"):
            encoded = part.get(channel)
            if isinstance(encoded, dict) and "legend" in encoded:
                encoded["legend"] = LEGEND
    for value in part.values() if isinstance(part, dict) else part:
        if isinstance(value, dict | list):
            _show_legend(value)


@cache
def script_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network."""
    return f"(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}}})();"


def _static(panel: Panel) -> dict[str, Any]:
    return panel.declared | {"config": THEME, "description": panel.title}
