"""The page's cards: for each lesson what to choose, the number behind it, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.judging.rounding import number

View = dict[str, Any]
UNDECIDED = "open"


def cards(
    texts: Mapping[str, Any], claims: Sequence[View], measurements: Mapping[str, View]
) -> list[View]:
    """A card for each lesson that has advice for one of these claims.

    ``texts`` are those of lessons.toml, ``claims`` the page's views of them.
    """
    known = {claim["id"]: claim for claim in claims}
    found = []
    for lesson in texts["lesson"]:
        own = [c for c in lesson["choose"] if c["claim"] in known]
        if own:
            advice = [_advice(c, known[c["claim"]], texts, measurements) for c in own]
            found.append({"id": lesson["id"], "title": lesson["title"], "advice": advice})
    return found


def _advice(
    choice: Mapping[str, str],
    claim: View,
    texts: Mapping[str, Any],
    measurements: Mapping[str, View],
) -> View:
    if not claim["measured"]:
        text = texts["advice_unmeasured"]
    elif claim["verdict"] == UNDECIDED:
        text = texts["advice_open"]
    else:
        text = choice[claim["verdict"]]
    rests_on = [measurements[name] for name in claim["measurements"] if name in measurements]
    return {"text": text, "claim": claim, "sure": how_sure(rests_on)}


def how_sure(measurements: Sequence[View]) -> str:
    """What kind of number a verdict rests on: counts, or intervals over so many observations."""
    if not measurements:
        return "not measured"
    sizes = [m["n"] for m in measurements if m["interval"] is not None and m["n"] is not None]
    if not sizes:
        return "exact numbers, which need no interval"
    least, most = number(min(sizes)), number(max(sizes))
    over = least if least == most else f"{least} to {most}"
    return f"95 % intervals over {over} independent observations"
