"""What stands above a chart: one of a claim says its finding, each other how far it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reference_model.printing import clean
from reports.render.formats import sentence
from reports.render.marks import Panel

View = dict[str, Any]


def told(claim: View) -> str:
    """The finding without the verdict that it begins with, for places that show it beside."""
    return sentence(claim["finding"].removeprefix(f"{claim['verdict'].capitalize()}: "))


def titled(panels: Sequence[Panel], claim: View, own: Sequence[View]) -> list[Panel]:
    """The charts of ``claim``, each with a title that says what it found.

    The finding stands above the first chart of what decides the claim. Where no chart draws that,
    because it is a number computed from what they draw, it stands above the first of all; what is
    drawn then begins the note. Every other chart says what is drawn, and its lowest and highest.
    """
    if not panels:
        return []
    deciding = _deciding(claim, own)
    first = next((i for i, p in enumerate(panels) if not p.drawn.isdisjoint(deciding)), 0)
    return [_finding(p, claim) if i == first else _reach(p) for i, p in enumerate(panels)]


def _deciding(claim: View, own: Sequence[View]) -> set[str]:
    metrics = {
        requirement["metric"]
        for requirement in claim["requirements"]
        if requirement["verdict"] == claim["verdict"] and requirement["role"] == "claim"
    }
    rests_on = set(claim["measurements"])
    return {m["id"] for m in own if m["id"] in rests_on and m["metric"] in metrics}


def _finding(panel: Panel, claim: View) -> Panel:
    note = f"{sentence(panel.title)} {panel.note}".strip()
    return replace(panel, title=clean(told(claim)), note=note)


def _reach(panel: Panel) -> Panel:
    return replace(panel, title=f"{panel.title}: {panel.reach}") if panel.reach else panel
