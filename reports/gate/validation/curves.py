"""The proof as a page: curves of level, power, inconclusive share and time, and the real runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.gate.validation.replay import METRICS
from reports.gate.validation.summary import LOADED
from reports.gate.verdict import Verdict
from reports.render.drawing import static_svg
from reports.render.marks import Measurement, Panel, curve
from reports.templating import page, templates

HERE = Path(__file__).parent
WIDTH = 640  # pixels
TITLES = {
    "regression": ("called a regression", "share of runs"),
    "pass": ("passed", "share of runs"),
    "inconclusive": ("inconclusive", "share of runs"),
    "pairs": ("pairs until the verdict, median", "pairs"),
    "seconds": ("seconds until the verdict, median", "seconds"),
}


def render(summary: dict[str, Any]) -> str:
    """What `replay` and `real` found, as the validation sums it up; every text is escaped."""
    drawn = [panel(summary["replay"], metric) for metric in METRICS]
    view = {
        "panels": [
            {
                "title": each.title,
                "legend": each.legend,
                "svg": static_svg(each, f"curve-{number}", WIDTH),
            }
            for number, each in enumerate(drawn)
        ],
        "rows": list(_rows(summary["replay"])),
        "hundred": [_of_a_hundred(row) for row in summary["of a hundred"]],
        "shifts": list(_shifts(summary["shift"])),
        "real": [_told(row) for row in summary["real"]],
        "made": summary["made"],
    }
    style = (HERE / "curves.css").read_text(encoding="utf-8")
    return page(templates(HERE).get_template("curves.html.j2"), view, styles=[style])


def panel(replayed: dict[str, Any], metric: str) -> Panel:
    title, y_title = TITLES[metric]
    points: list[Measurement] = [
        {
            "metric": metric,
            "option": _beside(pairs),
            "parameters": {"slowdown": 100 * row["slowdown"]},
            "value": row[metric]["value"],
            "interval": row[metric]["interval"],
            "n": row["stretches"],  # blocks of pairs, as published summaries call them
            "unit": "1",
            "source": "replay",
        }
        for pairs, rows in replayed.items()
        for row in rows
    ]
    return curve(
        title, points, "slowdown", x_title="slowdown of one benchmark, percent", y_title=y_title
    )


def _beside(pairs: str) -> str:
    """What ran beside pairs, in words: summaries have an older name for a background load."""
    return "under background load" if pairs == LOADED else pairs


def _rows(replayed: dict[str, Any]) -> Sequence[list[str]]:
    return [
        [
            _beside(pairs),
            f"+{100 * row['slowdown']:g} %",
            *(_cell(row[metric]) for metric in METRICS),
        ]
        for pairs, rows in replayed.items()
        for row in rows
    ]


def _shifts(shifted: dict[str, Any]) -> Sequence[list[str]]:
    return [
        [_beside(pairs), name, f"{100 * found['mean']:.2f} ± {100 * found['standard_error']:.2f} %"]
        for pairs, of_names in shifted.items()
        for name, found in of_names.items()
    ]


def _of_a_hundred(row: dict[str, Any]) -> list[str]:
    low, high = row["share called slower"]["interval"]
    runs = row["run"] + row["replayed"]
    return [
        f"+{100 * row['slowdown']:g} %" if row["slowdown"] else "nothing",
        f"{row['run, called slower']} of {row['run']}",
        f"{row['replayed, called slower']} of {row['replayed']}",
        f"{row['called slower']} of {runs}",
        f"{100 * low:.1f} to {100 * high:.1f} %",
    ]


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the real runs in words, by column."""
    low, high = row["share as deserved"]
    verdicts = (f"{count} {_words(int(status))}" for status, count in row["verdicts"].items())
    return {
        "tool": row["tool"],
        "change": row["case"],
        # As stored lines call a background load.
        "beside": "background load" if row["neighbour"] else "nothing",
        "deserved": row["deserved"],
        "said": ", ".join(verdicts),
        "right, 95 %": f"{100 * low:.0f} to {100 * high:.0f} %",
        "seconds, median": row["median seconds"],
        "at most": row["most seconds"],
        "exact differences": row["exact differences"],
        "their seconds, at most": row["most exact seconds"],
        "agrees with the replay": row["agrees"],
    }


def _words(status: int) -> str:
    """Of a verdict; what was killed has none."""
    return Verdict(status).words if status in list(Verdict) else f"exit status {status}"


def _cell(found: dict[str, Any]) -> str:
    if found["interval"] is None:
        return f"{found['value']:.3g}"
    low, high = found["interval"]
    return f"{found['value']:.3g} ({low:.3g} to {high:.3g})"
