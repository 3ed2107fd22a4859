"""python -m benchmarks list | run: what is claimed, and what the numbers say.

Exit status: 0 done, 1 an experiment failed (the others still ran; no results are written), 2 the
input was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, load_claims, select
from benchmarks.experiment import PROFILES, Settings
from benchmarks.results import write_results
from reference_model.command_line import Parser, exit_status
from reference_model.printing import say, warn


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> int:
        options = _parser().parse_args(arguments)
        claims = load_claims()
        if options.command == "list":
            say(_list(claims))
            return 0
        return _run(claims, options)

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description="Measure, and decide the claims.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show every claim")
    run = commands.add_parser("run", help="measure claims and write results.json")
    run.add_argument(
        "--profile",
        choices=PROFILES,
        default="quick",
        help="smoke: a minute; quick: eight minutes on two cores; full: hours or a GPU",
    )
    run.add_argument(
        "--only", metavar="ID,GLOB", help='claims to run: "cache.*,tying.saving-small"'
    )
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    run.add_argument("--seed", type=_seed, default=0, metavar="N")
    run.add_argument("--out", type=Path, required=True, metavar="RESULTS.JSON")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^32 - 1")
    return int(text)


def _run(claims: list[Claim], options: argparse.Namespace) -> int:
    from reference_model.files import check_writable  # an old commit's model, under asv, has none

    selected = select(claims, options.only)
    check_writable(options.out)
    # From here on torch is imported, which takes seconds.
    from benchmarks.experiment import all_experiments
    from benchmarks.runner import ExperimentsFailed, resolve_device, run

    settings = Settings(options.profile, resolve_device(options.device), options.seed)
    try:
        results = run(settings, claims, selected, all_experiments())
    except ExperimentsFailed as failures:
        for line in str(failures).splitlines():
            warn(f"error: {line}")
        warn(f"error: {options.out} is not written")
        return 1
    write_results(options.out, results)
    say(_verdicts(results, {claim.id for claim in selected}))
    return 0


def _list(claims: list[Claim]) -> str:
    rows = [(c.id, c.statement, "; ".join(part.text for part in c.requirements)) for c in claims]
    return _table(("claim", "what is said", "holds if"), rows, wrapped=2)


def _verdicts(results: dict[str, Any], selected: set[str]) -> str:
    shown = [claim for claim in results["claims"] if claim["id"] in selected]
    rows = [(claim["id"], claim["verdict"], _because(claim)) for claim in shown]
    decided = sum(claim["verdict"] != "open" for claim in shown)
    table = _table(("claim", "verdict", "because"), rows, wrapped=1)
    return f"{table}\n\n{decided} of {len(shown)} claims decided"


def _because(claim: dict[str, Any]) -> str:
    """The reason, and below it the scale at which the claim was tested, if it was."""
    at = f"\n(at: {claim['scale']})" if claim["measurements"] else ""
    return f"{claim['because']}{at}"


def _table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], wrapped: int) -> str:
    """A table as wide as the terminal; its last ``wrapped`` columns share what the others leave."""
    from tabulate import tabulate

    fixed = len(headers) - wrapped
    taken = sum(max(len(row[column]) for row in rows) + 2 for column in range(fixed))
    room = max(60, shutil.get_terminal_size((120, 24)).columns - taken) // wrapped - 2
    return tabulate(rows, headers, maxcolwidths=[None] * fixed + [room] * wrapped)


if __name__ == "__main__":
    sys.exit(main())
