"""python -m reports build results.json --out DIR, and python -m reports table results.json."""

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
        else:
            _table(given)

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(prog="python -m reports", description="Show what was measured.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write one page that opens without a network")
    build.add_argument("results", type=Path, help="what python -m benchmarks run wrote")
    build.add_argument("--out", type=Path, required=True, help="folder for index.html")
    table = commands.add_parser("table", help="print claims and verdicts as a Markdown table")
    table.add_argument("results", type=Path, help="what python -m benchmarks run wrote")
    table.add_argument("--into", type=Path, help="a text file that has a place for the table")
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


if __name__ == "__main__":
    sys.exit(main())
