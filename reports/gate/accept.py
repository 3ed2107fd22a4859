"""python -m reports.gate accept REPORT --reason TEXT: accept what a gate has found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.data.git import top_of
from benchmarks.data.json_files import read_json
from reference_model.command_line import Parser
from reference_model.errors import UserError
from reference_model.files import write_whole
from reference_model.printing import say, warn
from reports.gate import acceptances
from reports.gate.verdict import Verdict


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""

    try:
        return _accept(arguments)
    except UserError as error:
        warn(f"{Verdict.ERROR.words}: {error}")
        return int(Verdict.ERROR)


def _accept(arguments: Sequence[str]) -> int:
    """Append a line for each thing that failed to the file."""
    given = _parser().parse_args(arguments)
    try:
        report = read_json(given.report)
        lines = acceptances.lines_for(report, given.reason, given.days)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{given.report} is no report of a gate ({error}); write one with --json"
        ) from None
    if report.get("variables"):
        asked = ", ".join(f"{name}={value}" for name, value in report["variables"].items())
        raise UserError(
            f"{given.report} is of another model or dtype ({asked}), and what is accepted is of "
            "the suite's own; gate without --model and --dtype"
        )
    lines = [line for line in lines if fnmatchcase(line.benchmark, given.only)]
    if not lines:
        raise UserError(f"--only {given.only!r} fits nothing that failed")
    path = top_of(Path.cwd()) / acceptances.FILE
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    text = f"{before}{acceptances.as_csv(lines, heading=not before)}"
    acceptances.parse(text)
    write_whole(path.parent, {path.name: text.encode()})
    for line in lines:
        say(f"accepted until {line.expires}: {line.told}")
    say(f"commit {path.name}, so that it is reviewed")
    return int(Verdict.PASS)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate accept",
        description="Accept what a gate has found: write it down, with the reason.",
        example="gate.json --reason 'the norm is computed in float32 now'",
        statuses={Verdict.PASS: "written", Verdict.ERROR: "error: nothing was written"},
    )
    parser.add_argument("report", type=Path, help="what a gate wrote with --json")
    parser.add_argument("--reason", required=True, help="why this change is wanted")
    parser.add_argument("--only", default="*", help="accept only these benchmarks, by a pattern")
    told = f"how long the lines count (default: {acceptances.DAYS})"
    parser.add_argument("--days", type=_days, default=acceptances.DAYS, help=told)
    return parser


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 3650:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 3650")
    return int(text)
