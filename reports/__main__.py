"""python -m reports build results.json --out DIR, and python -m reports table results.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from reference_model.errors import UserError


class Parser(argparse.ArgumentParser):
    """Wrong arguments are told like any other wrong input: in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help explains")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        given = _parser().parse_args(arguments)
        if given.command == "build":
            _build(given.results, given.out)
        else:
            _table(given.results)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m reports", description="Show what was measured.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write one page that opens without a network")
    build.add_argument("results", type=Path, help="what python -m benchmarks run wrote")
    build.add_argument("--out", type=Path, required=True, help="folder for index.html")
    table = commands.add_parser("table", help="print claims and verdicts as a Markdown table")
    table.add_argument("results", type=Path, help="what python -m benchmarks run wrote")
    return parser


def _build(results: Path, out: Path) -> None:
    from reports.render.site import build_site

    print(build_site(results, out))


def _table(results: Path) -> None:
    from benchmarks.results import read_results
    from reports.table import verdict_table

    print(verdict_table(read_results(results)))


if __name__ == "__main__":
    sys.exit(main())
