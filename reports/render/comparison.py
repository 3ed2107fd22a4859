"""A comparison of results files as one page, in the style of the report."""

from __future__ import annotations

from reports.compare import Comparison, summary
from reports.render.page import SYMBOLS, template


def render_comparison(comparison: Comparison) -> str:
    """Every measurement of every file; claims in which something differs stand open."""
    return template("compare.html.j2").render(
        comparison=comparison,
        summary=summary(comparison, len(comparison.cases)),
        symbols=SYMBOLS,
    )
