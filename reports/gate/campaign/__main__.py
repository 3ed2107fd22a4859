"""How often the gate is wrong, and which faults it finds: all of it, or one part of it.

Everything is appended to one file of JSON lines, and taken up again where it stopped.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, get_args

from benchmarks.experiment import Settings
from benchmarks.instruments.environment import environment_stamp, usable_cores
from reference_model.command_line import Parser, about, exit_status
from reference_model.errors import UserError
from reference_model.files import check_writable, write_whole
from reference_model.printing import say, warn
from reports.gate.arms import checkouts
from reports.gate.campaign import designs, fault_command, lines, real, reorderings, rivals, turns
from reports.gate.campaign.injections import INJECTIONS, names
from reports.gate.campaign.neighbour import beside
from reports.gate.campaign.replay import Slowed, binomial_range, replay, scatter, shift
from reports.gate.campaign.seconds import seconds_of
from reports.gate.compare import CONTROLLED_BY, timed_ids
from reports.gate.decision import Rule
from reports.gate.pairs import CONTROL, Pairs

# Ignored by git: what is measured is a commit, and files beside it would be changes to it.
LINES = Path("runs/gate_pairs.jsonl")
# Of `all`: a third of the stretches beside a noisy neighbour.
STRETCHES, PAIRS_OF_STRETCH, DESIGN_PAIRS = 6, 100, 40
REAL = {"nothing": 60, "slower by 3 %": 20, "slower by 5 %": 20}
OF_RIVALS = {"nothing": 20, "slower by 3 %": 5, "slower by 5 %": 5, "slower by 10 %": 5}
OTHERS = 3  # runs of each other injection
QUIET, NEIGHBOUR = "quiet", "beside a neighbour"
Replayed = dict[str, list[dict[str, Any]]]  # a row per slowdown, by what ran beside the pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    signal.signal(signal.SIGTERM, _interrupted)  # so that checkouts are removed

    def command() -> None:
        given = _parser().parse_args(arguments)
        _check_places(given)
        {
            "designs": _designs,
            "turns": _turns,
            "record": _record,
            "replay": _replay,
            "real": _real,
            "reorderings": _reorderings,
            "rivals": _rivals,
            "faults": lambda given: fault_command.run(given, _made),
            "all": _all,
        }[given.command](given)

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate.campaign",
        description="Measure how often the gate is wrong, and how long it takes.",
        example="replay --lines reports/published/gate_pairs.jsonl --runs-replayed 100",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told, example in (
        ("designs", "measure the scatter of a pair, by how it is measured", "--pairs 4"),
        ("turns", "measure the scatter of a pair, by how many turns it takes", "--pairs 4"),
        ("record", "record pairs of a commit with itself", "--stretch monday --pairs 4"),
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
            "rivals",
            "ask asv continuous and --benchmark-compare-fail about the same cases",
            "--case nothing --runs 1",
        ),
        ("all", "do all of it, in five to eight hours", "--out gate.json --html gate.html"),
    ):
        each = commands.add_parser(name, **about(told), example=example)
        if name != "reorderings":
            told = "file of recorded pairs"
            if name != "replay":
                told += "; new ones are appended"
            each.add_argument("--lines", type=Path, default=LINES, help=told)
        if name not in ("replay", "rivals", "all"):
            told = "exact numbers" if name == "reorderings" else "timed benchmarks"
            each.add_argument("--select", default="*", help=f"only these {told}, by a pattern")
        if name in ("designs", "turns", "record"):
            told = "how many to measure (default: 40)"
            each.add_argument("--pairs", type=_count, default=40, help=told)
        if name == "record":
            each.add_argument("--stretch", required=True, help="name for this block of pairs")
        if name in ("turns", "record", "real"):
            each.add_argument("--neighbour", action="store_true", help="run beside a noisy process")
        if name in ("real", "rivals"):
            each.add_argument(
                "--case", action="append", default=[], help="only this case (default: all)"
            )
            default = OTHERS if name == "real" else None  # of rivals: as OF_RIVALS has it
            each.add_argument("--runs", type=_count, default=default, help="of each case")
        if name == "real":
            each.add_argument("--budget", help="seconds for each gate")
        if name in ("designs", "turns", "reorderings", "replay", "real", "rivals", "all"):
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
    lines.check_gate(path, Path.cwd())
    with checkouts(Path.cwd(), "HEAD", "HEAD") as arms:
        designs.record_designs(path, arms, timed_ids(arms, select), pairs, warn)


def _turns(given: argparse.Namespace) -> None:
    lines.check_gate(given.lines, Path.cwd())
    with checkouts(Path.cwd(), "HEAD", "HEAD") as arms, beside(given.neighbour, seed=0) as other:
        ids = timed_ids(arms, given.select)
        turns.record_turns(given.lines, arms, ids, given.pairs, given.neighbour, warn)
        other.check()
    _show(turns.summary(given.lines), given.out)


def _record(given: argparse.Namespace) -> None:
    """A/A pairs of one stretch of time, as the gate measures them, the control included."""
    lines.check_gate(given.lines, Path.cwd())
    done = len(lines.read(given.lines, kind="pair", stretch=given.stretch))
    with ExitStack() as stack:
        arms = stack.enter_context(checkouts(Path.cwd(), "HEAD", "HEAD"))
        neighbour = stack.enter_context(beside(given.neighbour, seed=done))
        ids = timed_ids(arms, given.select)
        for earlier in lines.read(given.lines, kind="pair")[:1]:
            if earlier["log_ratios"].keys() != {*ids, CONTROL}:
                raise UserError(
                    f"{given.lines} holds pairs of other benchmarks; use their --select"
                )
        control = CONTROLLED_BY if CONTROLLED_BY in ids else ids[0]
        pairs = stack.enter_context(Pairs(arms, "cpu", random.Random(), control))
        for number in range(done, given.pairs):
            pair = pairs.measure(ids)
            neighbour.check()
            record = {
                "kind": "pair",
                "stretch": given.stretch,
                "neighbour": given.neighbour,
                "commit": arms[0].commit,
                "utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "log_ratios": {id: round(ratio, 6) for id, ratio in pair.log_ratios.items()},
                "took": pair.took,
                "machine": pair.machine,
            }
            lines.append(given.lines, record)
            warn(f"{given.stretch}, pair {number + 1} of {given.pairs}: {pair.took:.1f} s")


def _replay(given: argparse.Namespace) -> None:
    records = lines.read(given.lines, kind="pair")
    if not records:
        raise UserError(f"{given.lines} holds no recorded pairs; record some first")
    lines.measured_gate(given.lines, Path.cwd())
    if given.without:
        records = [_without(record, given.without) for record in records]
    gates = [run for run in real.as_shipped(given.lines) if run["case"] in REAL]
    seconds = {
        neighbour: seconds_of([run for run in gates if run["neighbour"] == neighbour])
        for neighbour in (False, True)
    }
    count = given.runs_replayed
    by_machine = {
        "all": records,
        QUIET: [record for record in records if not record["neighbour"]],
        NEIGHBOUR: [record for record in records if record["neighbour"]],
    }
    one, every = (
        {
            name: replay(chosen, Rule(), runs=count, seconds=seconds, slowed=slowed)
            for name, chosen in by_machine.items()
            if chosen
        }
        for slowed in get_args(Slowed)
    )
    known = [row | {"agrees": agreement(row, one, every)} for row in real.tally(given.lines)]
    counted = {name: len(chosen) for name, chosen in by_machine.items()}
    scattered = {name: scatter(chosen) for name, chosen in by_machine.items() if chosen}
    shifted = {name: shift(chosen) for name, chosen in by_machine.items() if len(chosen) > 1}
    summary = {
        "made": _made(given.lines),
        "recorded pairs": counted,
        "seconds": {QUIET: asdict(seconds[False]), NEIGHBOUR: asdict(seconds[True])},
        "scatter": scattered,
        "shift": shifted,
        "replay": one,
        "every slowed": every,
        "real": known,
    }
    if given.html:
        from reports.gate.campaign.curves import render

        write_whole(given.html.parent, {given.html.name: render(summary).encode()})
    _show(summary, given.out)


def _without(record: dict[str, Any], pattern: str) -> dict[str, Any]:
    """A recorded pair without the benchmarks that match; it takes as long as it took with them."""
    ratios = record["log_ratios"].items()
    kept = {id: r for id, r in ratios if id == CONTROL or not fnmatch.fnmatchcase(id, pattern)}
    return {**record, "log_ratios": kept}


def _made(path: Path) -> dict[str, Any]:
    """By which command, when, of which commits, and on which machine it was summed up."""
    stamp = environment_stamp(Settings("full", "cpu", 0), usable_cores())
    return {
        "command": f"python -m reports.gate.campaign {' '.join(sys.argv[1:])}",
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": list(dict.fromkeys(record["commit"] for record in lines.read(path))),
        "machine": {key: stamp[key] for key in ("cpu", "cores", "platform", "python", "packages")},
    }


def agreement(row: dict[str, Any], one: Replayed, every: Replayed) -> str | None:
    """Whether the real verdicts lie in the 95 % binomial ranges of the replayed shares.

    An injected slowdown is of the model's forward, which most benchmarks are, but not all: what it
    leads to lies between what that of one benchmark and that of every one does. Nothing that is
    replayed ends as an error, so that an error never agrees.
    """
    slowdowns = {
        "nothing": 0.0,
        "slower by 3 %": 0.03,
        "slower by 5 %": 0.05,
        "slower by 10 %": 0.1,
    }
    machine = NEIGHBOUR if row["neighbour"] else QUIET
    if row["tool"] != real.GATE or row["case"] not in slowdowns or machine not in one:
        return None
    replayed = [
        r
        for rows in (one[machine], every[machine])
        for r in rows
        if r["slowdown"] == slowdowns[row["case"]]
    ]
    told, counted = [], 0
    for status, name in ((0, "pass"), (10, "regression"), (11, "inconclusive")):
        ranges = [binomial_range(r[name]["value"], row["runs"]) for r in replayed]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        counted += (count := row["verdicts"].get(str(status), 0))
        told.append((low <= count <= high, f"{count} {name}, {low} to {high} by replay"))
    agrees = all(agreed for agreed, _ in told) and counted == row["runs"]
    return f"{'yes' if agrees else 'no'}: {'; '.join(words for _, words in told)}"


def _real(given: argparse.Namespace) -> None:
    lines.check_gate(given.lines, Path.cwd())
    asked = {"--select": None if given.select == "*" else given.select, "--budget": given.budget}
    arguments = tuple(f"{name}={value}" for name, value in asked.items() if value)
    for name in names(given.case):
        real.real_runs(given.lines, Path.cwd(), name, given.runs, warn, given.neighbour, arguments)
    _show(real.tally(given.lines), given.out)


def _reorderings(given: argparse.Namespace) -> None:
    _show(_reordered(given.select), given.out)


def _reordered(select: str) -> list[dict[str, Any]]:
    with checkouts(Path.cwd(), "HEAD", "HEAD") as arms:
        return reorderings.reorderings(arms[1], select)


def _rivals(given: argparse.Namespace) -> None:
    _record_rivals(given.lines, given.case, given.runs)
    _show(real.tally(given.lines), given.out)


def _record_rivals(path: Path, cases: Sequence[str], runs: int | None) -> None:
    lines.check_gate(path, Path.cwd())
    for case in cases or OF_RIVALS:
        for tool in rivals.RIVALS:
            upto = runs or OF_RIVALS.get(case, OTHERS)
            rivals.rival_runs(path, Path.cwd(), tool, case, upto, warn)


def _all(given: argparse.Namespace) -> None:
    """Whatever is missing of the whole proof."""
    lines.check_gate(given.lines, Path.cwd())
    _record_designs(given.lines, "*", DESIGN_PAIRS)
    for stretch in range(STRETCHES):
        label, neighbour = f"stretch {stretch + 1}", has_neighbour(stretch)
        if missing := missing_pairs(given.lines, stretch):
            pairs = len(lines.read(given.lines, kind="pair", stretch=label)) + missing
            wanted = {"lines": given.lines, "select": "*", "neighbour": neighbour}
            _record(argparse.Namespace(**wanted, stretch=label, pairs=pairs))
        # Real runs between the stretches, so that these lie apart in time.
        for name, runs in REAL.items():
            upto = runs_by(stretch, runs)
            real.real_runs(given.lines, Path.cwd(), name, upto, warn, neighbour)
    for name in (name for name in INJECTIONS if name not in REAL):
        real.real_runs(given.lines, Path.cwd(), name, OTHERS, warn)
    _record_rivals(given.lines, [], None)
    reordered = _reordered("*")
    _replay(argparse.Namespace(**vars(given), without=None))
    for name, summary in (("designs", designs.summary(given.lines)), ("reorderings", reordered)):
        _show(summary, given.out and given.out.with_name(f"gate_{name}.json"))


def has_neighbour(stretch: int) -> bool:
    return stretch % 3 == 2


def missing_pairs(path: Path, stretch: int) -> int:
    """Of those due when a stretch ends, beside a neighbour or not as it, by whatever stretches."""
    neighbour = has_neighbour(stretch)
    alike = sum(has_neighbour(other) == neighbour for other in range(stretch + 1))
    recorded = len(lines.read(path, kind="pair", neighbour=neighbour))
    return max(PAIRS_OF_STRETCH * alike - recorded, 0)


def runs_by(stretch: int, runs: int) -> int:
    """Of ``runs`` in all, those that are due when a stretch ends, beside a neighbour or not as it.

    A third of them have a neighbour, as a third of the stretches.
    """
    alike = [has_neighbour(other) == has_neighbour(stretch) for other in range(STRETCHES)]
    quota = runs // 3 if has_neighbour(stretch) else runs - runs // 3
    return math.ceil(quota * sum(alike[: stretch + 1]) / sum(alike))


def _show(summary: Any, out: Path | None) -> None:
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    if out is None:
        say(text, end="")
    else:
        write_whole(out.parent, {out.name: text.encode()})


if __name__ == "__main__":
    sys.exit(main())
