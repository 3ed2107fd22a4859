"""How many faults were found, by whom, and how many rewrites failed: as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judging.stats import proportion_interval
from reports import markdown as md
from reports.gate.validation.fault_runs import Judge, Key, Record, finds, key_of, recorded
from reports.gate.validation.faults.catalogue import ALL
from reports.gate.validation.faults.change import FAULTY, HARMLESS, Change

Row = dict[str, Any]
JUDGES: tuple[Judge, ...] = ("gate", "tests")
EITHER = "either"


def summary(path: Path) -> dict[str, Any]:
    """Of what the file has of the changes as they are now.

    A share has the interval of Clopper and Pearson at 95 %, over faults as if they were drawn.
    """
    known = recorded(path)
    rows = [_row(known, change) for change in ALL]
    faults = [row for row in rows if row["group"] in FAULTY]
    harmless = [row for row in rows if row["group"] == HARMLESS]
    return {
        "groups": [
            {"group": group, **_shares([row for row in faults if row["group"] == group])}
            for group in FAULTY
        ],
        "all": _shares(faults),
        "rewrites": _shares(harmless),
        "changes": rows,
    }


def _row(known: Mapping[Key, Record], change: Change) -> Row:
    """``gate`` and ``tests``: whether they found it; None where they were not asked."""
    records = {judge: known.get(key_of(judge, change)) for judge in JUDGES}
    gate, tests = records["gate"], records["tests"]
    found: dict[str, bool | None] = {
        judge: None if record is None else finds(record) for judge, record in records.items()
    }
    return {
        "group": change.group,
        "name": change.name,
        "what": change.what,
        **found,
        "exit_status": gate and gate["exit_status"],
        "seconds": gate and gate["seconds"],
        "differences": gate and len(gate["differences"]),
        "failing tests": tests and tests["failing"],
    }


def _shares(rows: Sequence[Row]) -> Row:
    """Of one group: found by the gate, by the tests, and by either.

    What the gate found the tests need not be asked about, to know that somebody finds it. Nothing
    is said of either while what one of them missed waits for the other.
    """
    waiting = any({None, False} <= set(_said(row)) for row in rows)
    known = [] if waiting else [row for row in rows if set(_said(row)) != {None}]
    shares: dict[str, Row] = {
        judge: _share([row[judge] for row in rows if row[judge] is not None]) for judge in JUDGES
    }
    either = _share([any(_said(row)) for row in known])
    neither = sum(not any(_said(row)) for row in known)
    return {"changes": len(rows), **shares, EITHER: either, "neither": neither}


def _said(row: Row) -> tuple[bool | None, ...]:
    return tuple(row[judge] for judge in JUDGES)


def _share(found: Sequence[bool]) -> Row:
    """Without a value where nobody was asked."""
    counted = {"found": sum(found), "asked": len(found)}
    if not found:
        return {**counted, "value": None, "interval": None}
    share = proportion_interval(sum(found), len(found))
    return {**counted, "value": share.value, "interval": list(share.interval)}


# ---- as Markdown

HEADS = ("name", "what", "gate", "tests")
WORDS = {True: "found", False: "not found", None: ""}
OF_REWRITES = {True: "failed", False: "passed", None: ""}


def markdown(found: dict[str, Any]) -> str:
    """A table of the groups, then one of each group's changes."""
    counted = [(row["group"], row) for row in found["groups"]]
    counted += [("all faults", found["all"])]
    rewrites = found["rewrites"]
    heads = ("", "changes", "by the gate", "by the tests", "by neither")
    parts = ["# Seeded faults", "", "Found by the exact layer of the gate, and by the tests.", ""]
    rows = [(*_counted(name, row), _neither(row)) for name, row in counted]
    rows += [(*_counted("rewrites, failed", rewrites), "")]  # which nobody should find
    parts += [_table(heads, rows), ""]
    for group in (*FAULTY, HARMLESS):
        words = OF_REWRITES if group == HARMLESS else WORDS
        rows = [
            (row["name"], row["what"], words[row["gate"]], words[row["tests"]])
            for row in found["changes"]
            if row["group"] == group
        ]
        parts += [f"## {group.capitalize()}", "", _table(HEADS, rows), ""]
    return "\n".join(parts)


def _counted(name: str, row: Row) -> tuple[str, ...]:
    return name, str(row["changes"]), *(_told(row[judge]) for judge in JUDGES)


def _neither(row: Row) -> str:
    return f"{row['neither']} of {row[EITHER]['asked']}" if row[EITHER]["asked"] else ""


def _told(share: Row) -> str:
    """As in "12 of 20, 60 % (36–81)"; empty where nobody was asked."""
    if not share["asked"]:
        return ""
    low, high = (f"{100 * end:.0f}" for end in share["interval"])
    return f"{share['found']} of {share['asked']}, {100 * share['value']:.0f} % ({low}–{high})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *([md.text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
