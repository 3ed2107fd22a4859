"""A comparison of results files as one page, in the style of the report."""

from __future__ import annotations

from reports.compare import Comparison, disagree, summary
from reports.render.page import SYMBOLS, source, template
from reports.templating import page


def render_comparison(comparison: Comparison) -> str:
    """Every measurement of every file; claims in which something differs stand open."""
    view = {
        "disagree": disagree,
        "comparison": comparison,
        "summary": summary(comparison, len(comparison.cases)),
        "symbols": SYMBOLS,
    }
    return page(
        template("compare.html.j2"),
        view,
        styles=[source("style.css")],
        scripts=[source("tables.js")],
    )
