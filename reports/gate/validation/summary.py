"""What a file of lines comes to: error rates, power and time by replay, and the real runs."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks.experiments.experiment import Settings
from benchmarks.instruments.environment import environment_stamp, usable_cores
from benchmarks.judging.stats import proportion_interval
from reference_model.errors import UserError
from reports.gate.decision import Rule
from reports.gate.pairs import CONTROL
from reports.gate.validation import lines, real
from reports.gate.validation.replay import (
    Slowed,
    binomial_range,
    replay,
    replayed_outcomes,
    scatter,
    shift,
)
from reports.gate.validation.seconds import seconds_of
from reports.gate.validation.targets import SELF, TARGETS, Target
from reports.gate.verdict import Verdict

QUIET, LOADED = "quiet", "beside a neighbour"  # in published summaries; a background load
A_HUNDRED, OF_A_HUNDRED = 100, (0.0, 0.03, 0.05)  # runs, and by what something in them is slower
Replayed = dict[str, list[dict[str, Any]]]  # a row per slowdown, by what ran beside the pairs


def summed_up(path: Path, runs: int, without: str | None = None) -> dict[str, Any]:
    """All of it, ``runs`` replayed of each block; ``without`` the benchmarks of a pattern.

    `UserError` without recorded pairs.
    """
    records = lines.read(path, kind="pair")
    if not records:
        raise UserError(f"{path} holds no recorded pairs; record some first")
    target = TARGETS[lines.target_of(path)]
    if without:
        records = [_without(record, without) for record in records]
    gates = [run for run in real.as_shipped(path) if run["case"] in target.real]
    seconds = {
        loaded: seconds_of([run for run in gates if run["neighbour"] == loaded])
        for loaded in (False, True)
    }
    by_machine = {
        "all": records,
        QUIET: [record for record in records if not record["neighbour"]],
        LOADED: [record for record in records if record["neighbour"]],
    }
    one, every = (
        {
            name: replay(chosen, Rule(), runs=runs, seconds=seconds, slowed=slowed)
            for name, chosen in by_machine.items()
            if chosen
        }
        for slowed in get_args(Slowed)
    )
    told = real.tally(path, target.injections)
    return {
        "made": made(path),
        "recorded pairs": {name: len(chosen) for name, chosen in by_machine.items()},
        "seconds": {QUIET: asdict(seconds[False]), LOADED: asdict(seconds[True])},
        "scatter": {name: scatter(chosen) for name, chosen in by_machine.items() if chosen},
        "shift": {name: shift(chosen) for name, chosen in by_machine.items() if len(chosen) > 1},
        "replay": one,
        "every slowed": every,
        "real": [row | {"agrees": agreement(row, one, every, target)} for row in told],
        "of a hundred": [
            of_a_hundred(by, gates, target, partial(replayed_outcomes, records, seconds=seconds))
            for by in OF_A_HUNDRED
        ],
    }


def _without(record: dict[str, Any], pattern: str) -> dict[str, Any]:
    """A recorded pair without the benchmarks that match; it takes as long as it took with them."""
    ratios = record["log_ratios"].items()
    kept = {id: r for id, r in ratios if id == CONTROL or not fnmatch.fnmatchcase(id, pattern)}
    return {**record, "log_ratios": kept}


def made(path: Path) -> dict[str, Any]:
    """By which command, when, of what, under which protocol, and on which machine."""
    stamp = environment_stamp(Settings("full", "cpu", 0), usable_cores())
    found = lines.read(path)
    return {
        "command": f"python -m reports.gate.validation {' '.join(sys.argv[1:])}",
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": lines.target_of(path),
        "protocol": lines.named(lines.protocol_of(path)),
        "commits": _different(record.get("commit") for record in found),
        "gates": _different(record.get("gate") for record in found),
        "machine": {key: stamp[key] for key in ("cpu", "cores", "platform", "python", "packages")},
    }


def _different(texts: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def of_a_hundred(
    slowdown: float,
    runs: list[dict[str, Any]],
    target: Target,
    replayed: Callable[[Rule, float, int], dict[str, int]],
) -> dict[str, Any]:
    """How many of a hundred gates call something slower: those that were run, the rest replayed.

    The interval (95 %) is that of independent runs, which the replayed ones are only nearly.
    """
    cases = {name for name, each in target.injections.items() if each.slowdown == slowdown}
    ran = [run["exit_status"] for run in runs if run["case"] in cases]
    rest = max(A_HUNDRED - len(ran), 0)
    of_run, of_rest = ran.count(int(Verdict.REGRESSION)), replayed(Rule(), slowdown, rest)
    called = of_run + of_rest["regression"]
    share = proportion_interval(called, len(ran) + rest)
    return {
        "slowdown": slowdown,
        "run": len(ran),
        "run, called slower": of_run,
        "replayed": rest,
        "replayed, called slower": of_rest["regression"],
        "called slower": called,
        "share called slower": {"value": share.value, "interval": list(share.interval)},
    }


def agreement(
    row: dict[str, Any], one: Replayed, every: Replayed, target: Target = SELF
) -> str | None:
    """Whether the real verdicts lie in the 95 % binomial ranges of the replayed shares.

    An injected slowdown may be of one benchmark or of most: what it leads to lies between what that
    of one benchmark and that of every one does. Nothing that is replayed ends as an error, so that
    an error never agrees.
    """
    machine = LOADED if row["neighbour"] else QUIET
    slowdown = target.injections[row["case"]].slowdown
    if row["tool"] != real.GATE or slowdown is None or machine not in one:
        return None
    replayed = [
        r for rows in (one[machine], every[machine]) for r in rows if r["slowdown"] == slowdown
    ]
    told, counted = [], 0
    for status, name in ((0, "pass"), (10, "regression"), (11, "inconclusive")):
        ranges = [binomial_range(r[name]["value"], row["runs"]) for r in replayed]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        counted += (count := row["verdicts"].get(str(status), 0))
        told.append((low <= count <= high, f"{count} {name}, {low} to {high} by replay"))
    agrees = all(agreed for agreed, _ in told) and counted == row["runs"]
    return f"{'yes' if agrees else 'no'}: {'; '.join(words for _, words in told)}"
