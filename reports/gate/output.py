"""A report as a table for the terminal, a summary for a pull request, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from reference_model.printing import clean
from reports import markdown as md
from reports.gate.decision import UNSTABLE

Report = dict[str, Any]
SYMBOLS = {"pass": "✓", "regression": "✗", "inconclusive": "○"}
MOST_ROWS = 30  # of differences in a summary


def terminal(report: Report) -> str:
    """Each text of a commit on one line, so that none of them looks like a verdict."""
    parts = []
    if rows := exact_rows(report):
        parts.append(tabulate(_cleaned(rows), headers=["exact number", "", "base", "head"]))
    if rows := timed_rows(report):
        parts.append(tabulate(_cleaned(rows), headers=timed_titles(report), disable_numparse=True))
    parts.append(headline(report))
    return "\n\n".join(parts)


def headline(report: Report) -> str:
    compared = report["exact"]["compared"]
    counted = f"{compared} exact numbers, {len(report['exact']['differences'])} differ"
    return "\n".join(
        [
            f"{report['verdict'].upper()}: {clean(report['reason'])}",
            f"({counted}; {len(report['pairs'])} pairs; {report['seconds']:.0f} s)",
            *map(clean, remarks(report)),
        ]
    )


def _cleaned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[clean(cell) for cell in row] for row in rows]


def remarks(report: Report) -> list[str]:
    """What was not compared, on what, and what the machine did beside the work."""
    found = []
    if _same(report, "model") and not _same(report, "commit"):
        found.append("base and head have the same model")
    base, head = report.get("versions") or ({}, {})
    if differ := [
        f"{name} {base[name]} and {head[name]}" for name in base if base[name] != head[name]
    ]:
        found.append(f"base and head ran on different versions: {', '.join(differ)}")
    for reason in dict.fromkeys(report["skipped"].values()):
        ids = [id for id, why in report["skipped"].items() if why == reason]
        names = ", ".join(dict.fromkeys(id.partition("(")[0] for id in ids))
        found.append(f"{len(ids)} skipped on both sides, of {names}: {reason}")
    found += report["notes"]
    if troubles := report["troubles"]:
        found.append(f"the machine: {', '.join(troubles)}")
    return found


def _same(report: Report, what: str) -> bool:
    one, other = (report[side][what] for side in ("base", "head"))
    return one is not None and one == other


def markdown(report: Report) -> str:
    """Escaped: names of revisions and errors are written by others."""
    cell = md.text
    lines = [f"### Gate: {cell(report['verdict'])}", "", cell(report["reason"]), ""]
    lines += [f"{md.code(_name(report['base']))} → {md.code(_name(report['head']))}", ""]
    if rows := timed_rows(report):
        lines += [_table(timed_titles(report), [[cell(c) for c in row] for row in rows]), ""]
    if rows := exact_rows(report):
        shown = [[cell(c) for c in row] for row in rows[:MOST_ROWS]]
        lines += [_table(["exact number", "", "base", "head"], shown), ""]
        if len(rows) > MOST_ROWS:
            lines += [f"… and {len(rows) - MOST_ROWS} more.", ""]
    rule = report["rule"]
    lines.append(
        f"{report['exact']['compared']} exact numbers, {len(report['pairs'])} pairs of processes, "
        f"{report['seconds']:.0f} s. A regression is slower than {100 * rule['margin']:g} %; a "
        f"pass excludes {100 * rule['slowdown']:g} %."
    )
    lines += [f"{cell(remark)}." for remark in remarks(report)]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> str:
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def exact_rows(report: Report) -> list[list[str]]:
    return [
        [d["id"], _kind(d), _value(d["base"]), _value(d["head"])]
        for d in report["exact"]["differences"]
    ]


def _kind(difference: dict[str, Any]) -> str:
    """With what has to be known of it, but for why one side lacks it, which remarks tell."""
    one_sided = difference["base"] is None or difference["head"] is None
    because = "" if one_sided else difference["because"]
    return f"{difference['kind']} ({because})" if because else difference["kind"]


def timed_titles(report: Report) -> list[str]:
    share = 100 * (1 - 2 * report["rule"]["false_pass"])  # either bound errs at the level of a pass
    return ["timed", "", "head over base", f"{share:g} % interval", "pairs", "sd of a pair"]


def timed_rows(report: Report) -> list[list[str]]:
    judged = [*report["timed"], *([report["control"]] if report["control"] else [])]
    return [
        [
            b["id"],
            _told(b, report),
            percent(b["effect"]),
            interval(b["interval"]),
            str(b["pairs"]),
            "" if b["scatter"] is None else f"{100 * b['scatter']:.1f} %",
        ]
        for b in judged
    ]


def _told(benchmark: dict[str, Any], report: Report) -> str:
    """An improvement by more than the margin is told, though a gate does not ask for it.

    A control that is faster than itself is none.
    """
    if benchmark is report["control"] and report["reason"].startswith(UNSTABLE):
        return "✗ differs"
    outcome, high = benchmark["outcome"], benchmark["interval"][1]
    margin = report["rule"]["margin"]
    faster = outcome == "pass" and high is not None and high < 1 / (1 + margin)
    return f"{SYMBOLS[outcome]} {'faster' if faster else outcome}"


def percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{100 * (ratio - 1):+.1f} %"


def interval(bounds: Sequence[float | None]) -> str:
    low, high = (percent(bound) or "unbounded" for bound in bounds)
    return f"{low} to {high}"


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _name(side: dict[str, Any]) -> str:
    return f"{side['revision']} {(side['commit'] or '')[:12]}".strip()


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
