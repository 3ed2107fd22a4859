"""python -m benchmarks.exact_cases README.md: write this folder's page, the table of all cases."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.exact_cases import tables
from benchmarks.exact_cases.calls import CALLS
from benchmarks.exact_cases.timed import WAYS
from reference_model.files import write_whole

HEAD = """# What the gate's exact layer runs

`make readme` writes this page from the tables in this folder.

Each case becomes one number. Two commits are compared by these numbers, and nothing is timed.
A result becomes its fingerprint: one number that moves by about as much as the result does,
relative to its size. `bench_exact.py` runs the cases, and `gate_suite.py` says how near two
fingerprints have to be. A new case is a row in one of the tables.

The suite's own cases are run where two commits have different benchmarks. Experiments are run in
miniature: from their cells to a verdict, with a model of 2 layers, made-up texts, and a clock that
counts FLOPs. So are the benchmarks that other commands time: here it is counted what they time.
"""
ROOMS = {
    "Results in float64": tables.DOUBLE,
    "Results in float32": tables.SINGLE,
    "Results that are rounded on the way": tables.ROUNDED,
    "Results in half precision": tables.HALF,
    "Formulas and rules": tables.NUMBERS,
    "The suite's own statistics, instruments and verdicts": tables.KNOWN,
    "The suite's own instruments, through numbers that are rounded": tables.KNOWN_ROUNDED,
    "What one call costs, and what it leaves behind": CALLS,
}
OF_TIMED = "What the benchmarks do that are timed elsewhere"


def page() -> str:
    """The whole page, in Markdown."""
    told = {
        title: [(case.name, case.sizes, case.dtype, case.against) for case in table]
        for title, table in ROOMS.items()
    }
    against = "a benchmark of something else"
    told[OF_TIMED] = [(way, "2 layers, 256 wide", "as there", against) for way in WAYS]
    parts = [HEAD]
    for title, cells in told.items():
        rows = [f"| {' | '.join(each)} |" for each in cells]
        heading = ["| case | sizes | dtype | is there for |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", *heading, *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_whole(path.parent, {path.name: page().encode()})
