"""python -m reports build | table | measurements results.json: show what was measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reference_model.command_line import Parser, exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> None:
        given = _parser().parse_args(arguments)
        if given.command == "build":
            _build(given)
        elif given.command == "table":
            _table(given)
        else:
            _measurements(given)

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(prog="python -m reports", description="Show what was measured.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write one page that opens without a network")
    build.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="what python -m benchmarks run wrote; of a claim that several files measured, the "
        "later file on the command line counts, and the page says which run that was; a file that "
        "cannot be read is named and skipped, unless none can",
    )
    build.add_argument("--out", type=Path, required=True, help="folder for index.html")
    table = commands.add_parser("table", help="print claims and verdicts as a Markdown table")
    table.add_argument("results", type=Path, help="what python -m benchmarks run wrote")
    table.add_argument("--into", type=Path, help="a text file that has a place for the table")
    rows = commands.add_parser("measurements", help="print a claim's numbers as a Markdown table")
    rows.add_argument("results", type=Path, help="what python -m benchmarks run wrote")
    rows.add_argument("claim", help="such as turboquant.zero-loss")
    rows.add_argument("metrics", nargs="+", help="one column each")
    return parser


def _build(given: argparse.Namespace) -> None:
    from reports.render.site import build_site

    print(build_site(given.results, given.out))


def _table(given: argparse.Namespace) -> None:
    from benchmarks.results import read_results
    from reports.table import put_into, verdict_table

    table = verdict_table(read_results(given.results))
    if given.into:
        put_into(given.into, table)
    else:
        print(table)


def _measurements(given: argparse.Namespace) -> None:
    from benchmarks.results import read_results
    from reports.table import measurement_table

    print(measurement_table(read_results(given.results), given.claim, given.metrics))


if __name__ == "__main__":
    sys.exit(main())
