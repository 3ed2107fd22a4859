"""`validation faults`: what gate and tests find of the faults that are put into this project."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reference_model.command_line import about
from reference_model.files import write_whole
from reference_model.printing import say, warn
from reports.gate.validation.fault_runs import Judge, run_changes
from reports.gate.validation.fault_table import markdown, summary
from reports.gate.validation.faults.catalogue import GROUPS, chosen
from reports.gate.validation.same_gate import check_gate

LINES = Path("runs/gate_faults.jsonl")  # ignored by git, as pairs are


def add_to(commands: Any) -> None:
    """The subcommand, for the validation's parser."""
    parser = commands.add_parser(
        "faults",
        **about("commit known faults and harmless rewrites, and count which of them are found"),
        example="--group speed --only '*cache*' --out faults.json",
    )
    parser.add_argument("--group", choices=GROUPS, help="only this group")
    parser.add_argument("--only", help="only changes of these names, by a pattern")
    told = "ask the project's tests, too: of all changes, or of those that the gate missed"
    parser.add_argument("--tests", nargs="?", const="all", choices=("all", "missed"), help=told)
    told = "file of what was found (default: %(default)s); more is appended"
    parser.add_argument("--lines", type=Path, default=LINES, help=told)
    parser.add_argument("--out", type=Path, help="JSON file for the summary")
    parser.add_argument(
        "--markdown", type=Path, help="file for the tables (default: the standard output)"
    )


def run(given: argparse.Namespace, made: Callable[[Path], dict[str, Any]]) -> None:
    """Ask about what is missing, then sum up all that the file has.

    ``made`` says by which command, when and where what the file has was summed up.
    """
    changes = chosen(given.group, given.only)
    check_gate(given.lines, Path.cwd())
    judges: tuple[Judge, ...] = ("gate", "tests") if given.tests else ("gate",)
    run_changes(given.lines, Path.cwd(), changes, judges, warn, given.tests == "missed")
    found = summary(given.lines)
    if given.out:
        text = json.dumps({"made": made(given.lines), **found}, indent=1, allow_nan=False) + "\n"
        write_whole(given.out.parent, {given.out.name: text.encode()})
    if given.markdown:
        write_whole(given.markdown.parent, {given.markdown.name: markdown(found).encode()})
    else:
        say(markdown(found), end="")
