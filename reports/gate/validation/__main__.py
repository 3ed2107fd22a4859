"""How often the gate is wrong, and which faults it finds: all of it, or one part of it.

Everything is appended to one file of JSON lines, and taken up again where it stopped.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from reference_model.command_line import Parser, about, exit_status
from reference_model.files import check_writable, write_whole
from reference_model.printing import say, warn
from reports.gate.checkouts import checked_out
from reports.gate.compare import timed_ids
from reports.gate.validation import (
    designs,
    fault_command,
    lines,
    peers,
    real,
    reorderings,
    turns,
    whole,
)
from reports.gate.validation.background_load import beside
from reports.gate.validation.recording import record_pairs
from reports.gate.validation.summary import made, summed_up
from reports.gate.validation.targets import RUNS, SELF, TARGETS, TOY
from reports.gate.validation.whole import OTHERS

DESIGN_PAIRS = 40
OF_PEERS = {"nothing": 20, "slower by 3 %": 5, "slower by 5 %": 5, "slower by 10 %": 5}
RENAMED = {"rivals": "peers"}  # commands by the names that they had before, which are still taken
OF_TARGETS = ("record", "real", "all")  # commands that gate what --target names


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    signal.signal(signal.SIGTERM, _interrupted)  # so that checkouts are removed

    def command() -> None:
        asked = list(sys.argv[1:] if arguments is None else arguments)
        given = _parser().parse_args([RENAMED.get(each, each) for each in asked[:1]] + asked[1:])
        if "target" in given:
            given.target = TARGETS[given.target]
            given.lines = given.lines or given.target.lines
        _check_places(given)
        {
            "designs": _designs,
            "turns": _turns,
            "record": _record,
            "replay": _replay,
            "real": _real,
            "reorderings": _reorderings,
            "peers": _peers,
            "faults": lambda given: fault_command.run(given, made),
            "all": _all,
        }[given.command](given)

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate.validation",
        description="Measure how often the gate is wrong, and how long it takes.",
        example="replay --lines reports/published/gate_pairs.jsonl --runs-replayed 100",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told, example in (
        ("designs", "measure the scatter of a pair, by how it is measured", "--pairs 4"),
        ("turns", "measure the scatter of a pair, by how many turns it takes", "--pairs 4"),
        (
            "record",
            "record pairs of a commit with itself",
            "--target toy --block monday --pairs 4",
        ),
        (
            "replay",
            "decide recorded pairs anew: error rates, power and time",
            "--lines reports/published/gate_pairs.jsonl --runs-replayed 100",
        ),
        ("real", "run the gate with and without injected changes", "--case nothing --runs 1"),
        (
            "reorderings",
            "show what another order of the same sums does to exact numbers",
            "--out reorderings.json",
        ),
        (
            "peers",
            "ask asv continuous and --benchmark-compare-fail about the same cases",
            "--case nothing --runs 1",
        ),
        ("all", "do all of it, in hours", "--target toy --out gate.json --html gate.html"),
    ):
        each = commands.add_parser(name, **about(told), example=example)
        if name != "reorderings":
            told = "file of recorded pairs"
            if name != "replay":
                told += "; new ones are appended"
            known = TOY.lines if name == "replay" else None if name in OF_TARGETS else SELF.lines
            told += f" (default: {known or f'one of the target in {RUNS}/'})"
            each.add_argument("--lines", type=Path, default=known, help=told)
        if name in OF_TARGETS:
            told = "gate the commits of a toy, made for it, or of this project (default: toy)"
            each.add_argument("--target", choices=TARGETS, default=TOY.name, help=told)
        if name not in ("replay", "peers", "all"):
            told = "exact numbers" if name == "reorderings" else "timed benchmarks"
            each.add_argument("--select", default="*", help=f"only these {told}, by a pattern")
        if name in ("designs", "turns", "record"):
            told = "how many to measure (default: 40)"
            each.add_argument("--pairs", type=_count, default=40, help=told)
        if name == "record":
            each.add_argument("--block", required=True, help="name for this block of pairs")
            each.also_as("--stretch", "--block")
        if name in ("turns", "record", "real"):
            told = "run beside a process that computes and copies now and then"
            each.add_argument("--background-load", action="store_true", help=told)
            each.also_as("--neighbour", "--background-load")
        if name in ("real", "peers"):
            each.add_argument(
                "--case", action="append", default=[], help="only this case (default: all)"
            )
            default = OTHERS if name == "real" else None  # of peers: as OF_PEERS has it
            each.add_argument("--runs", type=_count, default=default, help="of each case")
        if name == "real":
            each.add_argument("--budget", help="seconds for each gate")
        if name in ("designs", "turns", "reorderings", "replay", "real", "peers", "all"):
            each.add_argument("--out", type=Path, help="JSON file for the summary")
        if name in ("replay", "all"):
            each.add_argument("--runs-replayed", type=_count, default=1000, help="of each block")
            each.add_argument("--html", type=Path, help="file for a page with the curves")
        if name == "replay":
            each.add_argument("--without", help="leave out these benchmarks, by a pattern")
    fault_command.add_to(commands)
    return parser


def _check_places(given: argparse.Namespace) -> None:
    """Before hours of measuring, not after."""
    names = ("out", "html") if given.command == "replay" else ("lines", "out", "html", "markdown")
    for place in (getattr(given, name, None) for name in names):
        if place:
            check_writable(place)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _designs(given: argparse.Namespace) -> None:
    _record_designs(given.lines, given.select, given.pairs)
    _show(designs.summary(given.lines), given.out)


def _record_designs(path: Path, select: str, pairs: int) -> None:
    lines.check_target(path, SELF.name)
    with checked_out(Path.cwd(), "HEAD", "HEAD") as checkouts:
        designs.record_designs(path, checkouts, timed_ids(checkouts, select), pairs, warn)


def _turns(given: argparse.Namespace) -> None:
    lines.check_target(given.lines, SELF.name)
    with (
        checked_out(Path.cwd(), "HEAD", "HEAD") as checkouts,
        beside(given.background_load, seed=0) as other,
    ):
        ids = timed_ids(checkouts, given.select)
        turns.record_turns(given.lines, checkouts, ids, given.pairs, given.background_load, warn)
        other.check()
    _show(turns.summary(given.lines), given.out)


def _record(given: argparse.Namespace) -> None:
    lines.check_target(given.lines, given.target.name)
    record_pairs(
        given.lines,
        given.target,
        given.block,
        given.pairs,
        given.background_load,
        warn,
        given.select,
    )


def _replay(given: argparse.Namespace) -> None:
    _sum_up(given, given.without)


def _sum_up(given: argparse.Namespace, without: str | None = None) -> None:
    summary = summed_up(given.lines, given.runs_replayed, without)
    if given.html:
        from reports.gate.validation.curves import render

        write_whole(given.html.parent, {given.html.name: render(summary).encode()})
    _show(summary, given.out)


def _real(given: argparse.Namespace) -> None:
    lines.check_target(given.lines, given.target.name)
    asked = {"--select": None if given.select == "*" else given.select, "--budget": given.budget}
    options = tuple(f"{name}={value}" for name, value in asked.items() if value)
    with given.target.repository() as repository:
        for case in given.case or given.target.injections:
            real.real_runs(
                given.lines,
                repository,
                case,
                given.runs,
                warn,
                given.background_load,
                options,
                given.target,
            )
    _show(real.tally(given.lines, given.target.injections), given.out)


def _reorderings(given: argparse.Namespace) -> None:
    _show(_reordered(given.select), given.out)


def _reordered(select: str) -> list[dict[str, Any]]:
    with checked_out(Path.cwd(), "HEAD", "HEAD") as checkouts:
        return reorderings.reorderings(checkouts[1], select)


def _peers(given: argparse.Namespace) -> None:
    _record_peers(given.lines, given.case, given.runs)
    _show(real.tally(given.lines), given.out)


def _record_peers(path: Path, cases: Sequence[str], runs: int | None) -> None:
    lines.check_target(path, SELF.name)
    for case in cases or OF_PEERS:
        for tool in peers.PEERS:
            upto = runs or OF_PEERS.get(case, OTHERS)
            peers.peer_runs(path, Path.cwd(), tool, case, upto, warn)


def _all(given: argparse.Namespace) -> None:
    """Whatever is missing of the whole proof; other tools and designs are asked about ourselves."""
    lines.check_target(given.lines, given.target.name)
    ours = given.target.name == SELF.name
    if ours:
        _record_designs(given.lines, "*", DESIGN_PAIRS)
    whole.measure(given.lines, given.target, warn)
    if not ours:
        _sum_up(given)
        return
    _record_peers(given.lines, [], None)
    reordered = _reordered("*")
    _sum_up(given)
    for name, summary in (("designs", designs.summary(given.lines)), ("reorderings", reordered)):
        _show(summary, given.out and given.out.with_name(f"gate_{name}.json"))


def _show(summary: Any, out: Path | None) -> None:
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    if out is None:
        say(text, end="")
    else:
        write_whole(out.parent, {out.name: text.encode()})


if __name__ == "__main__":
    sys.exit(main())
