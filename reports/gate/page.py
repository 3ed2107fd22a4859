"""A report as one page that opens from disk: the verdict, the tables, and every pair drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from reports.gate.output import exact_rows, remarks, timed_rows, timed_titles
from reports.gate.pairs import CONTROL
from reports.templating import page, templates

HERE = Path(__file__).parent
WIDTH, HEIGHT, LEFT = 560, 90, 46  # pixels of a drawing, and where its points begin
LEAST_REACH = 0.05  # of the axis, as a share

View = dict[str, Any]


def render(report: View) -> str:
    """``report`` as `compare` returns it; all of its texts are escaped."""
    view = {
        "report": report,
        "exact": exact_rows(report),
        "titles": timed_titles(report),
        "timed": timed_rows(report),
        "drawings": drawings(report),
        "remarks": remarks(report),
        "machine": _machine_rows(report),
    }
    style = (HERE / "page.css").read_text(encoding="utf-8")
    return page(templates(HERE).get_template("page.html.j2"), view, styles=[style])


def drawings(report: View) -> list[View]:
    """Of each timed benchmark: points, in the order of the pairs, on an axis of their own."""
    names = [b["id"] for b in report["timed"]] + ([CONTROL] if report["control"] else [])
    judged = {b["id"]: b for b in [*report["timed"], *filter(None, [report["control"]])]}
    return [_drawing(name, judged[name], report) for name in names]


def _drawing(name: str, judged: View, report: View) -> View:
    ratios = [
        (number, math.expm1(pair["log_ratios"][name]))
        for number, pair in enumerate(report["pairs"], start=1)
        if name in pair["log_ratios"]
    ]
    reach = max([LEAST_REACH, *(abs(ratio) for _, ratio in ratios)])
    step = (WIDTH - LEFT - 10) / max(len(report["pairs"]), 1)

    def y(ratio: float) -> float:
        return round(HEIGHT / 2 * (1 - 0.9 * max(-1.0, min(1.0, ratio / reach))), 1)

    low, high = judged["interval"]
    rule = report["rule"]
    return {
        "name": name,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "zero": y(0),
        "lines": [
            {"y": y(rule["margin"]), "is": f"+{100 * rule['margin']:g} %"},
            {"y": y(rule["slowdown"]), "is": f"+{100 * rule['slowdown']:g} %"},
        ],
        "top": f"±{100 * reach:.0f} %",
        "points": [
            {"x": round(LEFT + step * (n - 0.5), 1), "y": y(r), "is": f"pair {n}: {100 * r:+.2f} %"}
            for n, r in ratios
        ],
        "band": None if None in (low, high) else {"y": y(high - 1), "end": y(low - 1)},
    }


def _machine_rows(report: View) -> list[list[str]]:
    def told(value: float | None) -> str:
        return "not shown" if value is None else f"{value:g}"

    keys = ("stolen", "load", "megahertz", "throttled")
    return [
        [str(n), f"{pair['took']:.1f}", *(told(pair["machine"][key]) for key in keys)]
        for n, pair in enumerate(report["pairs"], start=1)
    ]
