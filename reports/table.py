"""Claims and verdicts as the Markdown table of the README."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate


def verdict_table(results: dict[str, Any]) -> str:
    """A row per claim that was measured; those not measured are left to the page."""
    rows = [
        [f"`{claim['id']}`", claim["verdict"], _cell(claim["because"])]
        for claim in results["claims"]
        if claim["measurements"]
    ]
    return tabulate(rows, headers=["claim", "verdict", "because"], tablefmt="github")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
