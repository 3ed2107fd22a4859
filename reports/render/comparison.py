"""A comparison of results files as one page, in the style of the report."""

from __future__ import annotations

from reports.compare import Comparison, disagree, summary
from reports.render.page import SYMBOLS, template


def render_comparison(comparison: Comparison) -> str:
    """Every measurement of every file; claims in which something differs stand open."""
    page = template("compare.html.j2")
    return page.render(
        disagree=disagree,
        comparison=comparison,
        summary=summary(comparison, len(comparison.cases)),
        symbols=SYMBOLS,
    )
