"""python -m benchmarks record list | show | results | prune | merge: finished cells, for people."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.judging.claims import Claim, select
from benchmarks.record.store import Key, Line, Record
from reference_model.errors import UserError
from reference_model.printing import say

AddWhat = Callable[[argparse.ArgumentParser], None]


def add_to(commands: Any, add_what: AddWhat) -> None:
    """Add the command to a parser's ``commands``; ``add_what`` adds --profile, --only and such."""
    from reference_model.command_line import about  # an old commit's model has none

    parser = commands.add_parser(
        "record", **about("read, clean or merge the record of finished cells"), example="list"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name, told, example in (
        ("list", "count the cells by claim, profile and version of the code", "--only 'cache.*'"),
        ("show", "print each cell with its seconds and its machine", "--only 'cache.*'"),
        (
            "results",
            "write results.json from the record, and measure nothing",
            "--profile full --out results.json",
        ),
        ("prune", "delete failed cells, and those that a later one replaces", ""),
        ("merge", "add the cells of other records", "--record all.sqlite 1.sqlite 2.sqlite"),
    ):
        action = actions.add_parser(name, **about(told), example=example)
        add_what(action)
        if name == "results":
            action.add_argument(
                "--out", type=Path, required=True, metavar="RESULTS.JSON", help="file to write"
            )
            action.add_argument(
                "--accept-code",
                action="store_true",
                help="take cells that other code measured; the results mark their claims as stale",
            )
        if name == "merge":
            action.add_argument(
                "files", type=Path, nargs="+", metavar="FILE", help="records to read"
            )


def run(options: argparse.Namespace, claims: list[Claim]) -> int:
    names = [claim.id for claim in select(claims, options.only)]
    if options.action != "merge" and not options.record.exists():
        raise UserError(f"there is no record {options.record}; python -m benchmarks run writes one")
    with closing(Record(options.record)) as record:
        if options.action == "list":
            say(_listed(list(record.lines(names))))
        elif options.action == "show":
            say(_shown(list(record.lines(names))))
        elif options.action == "prune":
            say(f"{prune(record, names)} lines deleted")
        elif options.action == "merge":
            say(f"{merge(record, options.files)} cells added")
        else:
            return _results(record, claims, options)
    return 0


def _listed(lines: Sequence[Line]) -> str:
    from tabulate import tabulate

    groups: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines:
        commit = str(line.environment["commit"])[:10]
        groups[line.key.claim, line.key.profile, line.key.code, commit].append(line)
    rows = [
        (
            *key,
            sum(line.outcome == "done" for line in of_key),
            sum(line.outcome == "failed" for line in of_key),
            f"{sum(line.seconds for line in of_key):.1f}",
            of_key[-1].utc,
        )
        for key, of_key in groups.items()
    ]
    names = ("claim", "profile", "code", "commit", "done", "failed", "seconds", "last")
    return tabulate(rows, names, disable_numparse=True)


def _shown(lines: Sequence[Line]) -> str:
    from tabulate import tabulate

    rows = [
        (
            line.number,
            line.key.claim,
            line.key.parameters,
            line.key.profile,
            line.outcome if line.outcome == "done" else f"failed: {line.found}",
            f"{line.seconds:.1f}",
            f"{line.environment['cpu']}, {line.key.threads} threads",
            str(line.environment["commit"])[:10],
            line.utc,
        )
        for line in lines
    ]
    names = ("line", "claim", "cell", "profile", "outcome", "seconds", "on", "commit", "ended")
    widths = [None, None, 60, None, 60, None, 40, None, None]
    return tabulate(rows, names, disable_numparse=True, maxcolwidths=widths)


def prune(record: Record, claims: Sequence[str]) -> int:
    """Delete failed lines, and those that a later one of the same key replaces; how many."""
    last: dict[Key, int] = {}
    lines = list(record.lines(claims))
    for line in lines:
        if line.outcome == "done":
            last[line.key] = line.number
    gone = [line.number for line in lines if last.get(line.key) != line.number]
    record.forget(gone)
    return len(gone)


def merge(record: Record, files: Sequence[Path]) -> int:
    """Add the lines of ``files`` that ``record`` does not have; how many they are.

    UserError, before anything is added, where one of them is not there.
    """
    for path in files:
        if not path.is_file():
            raise UserError(
                f"there is no record {path}; name a file that python -m benchmarks run wrote"
            )
    have = {(line.key, line.utc, line.outcome) for line in record.lines()}
    added = 0
    for path in files:
        other = Record(path)
        for line in other.lines():
            if (line.key, line.utc, line.outcome) not in have:
                have.add((line.key, line.utc, line.outcome))
                record.add(line)
                added += 1
        other.close()
    return added


def _results(record: Record, claims: list[Claim], options: argparse.Namespace) -> int:
    from benchmarks.experiments.catalogue import all_experiments
    from benchmarks.instruments.environment import run_stamp
    from benchmarks.record.results import write_results
    from benchmarks.running.assembling import results_of
    from benchmarks.running.plan import plan
    from benchmarks.running.runner import Rules, known, settings_of

    settings = settings_of(options)
    environment = run_stamp(settings)
    selected = select(claims, options.only)
    planned = plan(settings, claims, selected, all_experiments(), environment)
    state = known(planned, record, Rules(accept_code=options.accept_code, any_machine=True))
    write_results(options.out, results_of(state.planned, state, settings, environment))
    cells = sum(len(each.cells) for each in state.planned)
    say(f"{len(state.lines)} of {cells} cells are in {options.out}")
    return 0
