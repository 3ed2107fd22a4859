"""How often `find` names the right commit: searches replayed on recorded pairs.

python -m reports.gate.validation.searches --out searches.json

One commit of a range, drawn for each search, makes one benchmark slower; the others change nothing.
Each gate of a search is replayed on that benchmark and the control, beginning at a drawn pair of a
drawn block. What it takes is counted as if all benchmarks were measured, which is too much.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.judging.stats import proportion_interval
from reference_model.command_line import Parser, exit_status
from reference_model.errors import UserError
from reference_model.files import check_writable, write_whole
from reference_model.printing import say
from reports.gate.compare import BUDGET
from reports.gate.decision import Rule
from reports.gate.find import LONGER
from reports.gate.pairs import CONTROL
from reports.gate.search import suspects
from reports.gate.validation import lines
from reports.gate.validation.replay import AS_RECORDED, METRICS, blocks, one_block
from reports.gate.validation.targets import SELF

COMMITS, SLOWDOWN, SEARCHES = 16, 0.05, 200


def searched(
    records: Sequence[dict[str, Any]],
    commits: int = COMMITS,
    slowdown: float = SLOWDOWN,
    searches: int = SEARCHES,
    seed: int = 0,
) -> dict[str, Any]:
    """Shares of searches that named the right commit, a wrong one, or none alone."""
    parts = list(blocks(records).values())
    if not parts:
        raise UserError("there are no recorded pairs; record some first")
    ids = [id for id in parts[0][0]["log_ratios"] if id != CONTROL]
    draws, rule = np.random.default_rng(seed), Rule()
    ended = {"right": 0, "wrong": 0, "open": 0}
    gates: list[int] = []
    seconds: list[float] = []
    for _ in range(searches):
        of_search: list[float] = []
        id, culprit = ids[draws.integers(len(ids))], int(draws.integers(commits))

        def worse(is_slower: bool, id: str = id, spent: list[float] = of_search) -> bool | None:
            """As `find` asks: for longer, while nothing is decided."""
            for times in LONGER:
                pairs = parts[draws.integers(len(parts))]
                found, _ = one_block(
                    pairs,
                    [id],
                    rule,
                    slowdown if is_slower else 0.0,
                    1,
                    draws,
                    AS_RECORDED[False],
                    "one",
                    BUDGET * times,
                )
                spent.append(found[-1])
                regression, passed, *_ = found
                if regression or passed:
                    return bool(regression)
            return None

        ended[_ending(commits, culprit, worse)] += 1
        gates.append(len(of_search))
        seconds.append(sum(of_search))
    assert METRICS[-1] == "seconds"
    return {
        "commits": commits,
        "slowdown": slowdown,
        "searches": searches,
        **{
            name: {
                "value": count / searches,
                "interval": list(proportion_interval(count, searches).interval),
            }
            for name, count in ended.items()
        },
        "gates, median": median(gates),
        "seconds, median": median(seconds),
    }


def _ending(commits: int, culprit: int, worse: Any) -> str:
    if not worse(True):  # head against base
        return "open"
    names = [str(number) for number in range(commits)]
    left = suspects(names, lambda name: worse(int(name) >= culprit))
    if len(left) > 1:
        return "open"
    # The commit that was found, against the one before it.
    if not worse(int(left[0]) == culprit):
        return "open"
    return "right" if int(left[0]) == culprit else "wrong"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return exit_status(lambda: _run(_parser().parse_args(arguments)))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate.validation.searches",
        description="Replay searches for the commit that made a benchmark slower.",
        example="--searches 20 --out searches.json",
    )
    told = f"file of recorded pairs (default: {SELF.lines})"
    parser.add_argument("--lines", type=Path, default=SELF.lines, help=told)
    told = f"how many (default: {SEARCHES})"
    parser.add_argument("--searches", type=int, default=SEARCHES, help=told)
    parser.add_argument("--out", type=Path, help="JSON file for what was found")
    return parser


def _run(given: argparse.Namespace) -> None:
    if given.out:
        check_writable(given.out)
    found = searched(lines.read(given.lines, kind="pair"), searches=given.searches)
    text = json.dumps(found, indent=1) + "\n"
    if given.out:
        write_whole(given.out.parent, {given.out.name: text.encode()})
    say(text, end="")


if __name__ == "__main__":
    sys.exit(main())
