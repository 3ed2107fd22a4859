"""What a gate would compare, how long that takes and what it would find: before anyone waits."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.git import top_of
from reference_model.command_line import Parser
from reference_model.errors import UserError
from reference_model.printing import say, warn
from reports.gate.checkouts import Checkout, checked_out
from reports.gate.command import GRACE, answered, ask, check_system, end_after, request_of
from reports.gate.compare import BUDGET, CONTROLLED_BY, Request
from reports.gate.decision import Rule
from reports.gate.pairs import CONTROL, Pair, Pairs
from reports.gate.simulate import pairs_until_verdict, smallest_found
from reports.gate.verdict import Verdict
from reports.gate.workers import Worker, running

PAIRS = 3  # that are measured, where none are recorded: half a minute for a dozen benchmarks
# Exact numbers of each benchmark that are asked for beside its first, at most. From fewer, one that
# takes a hundred times as long as the others makes the whole look twice as long.
SAMPLED = 12
FOUND = 0.8  # share of runs that find the smallest change that is told
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """What pairs of base with itself say of this machine, or of the one they were recorded on."""

    scatter: dict[str, float]  # of a pair's log-ratio, by benchmark and of the control
    first: float  # seconds of the first pair, which starts beside nothing
    usual: float  # seconds of each other one
    source: str


@dataclass(frozen=True)
class Plan:
    """What a gate would do; seconds are estimates."""

    base: dict[str, str]  # revision, commit
    head: dict[str, str]
    exact: dict[str, int]  # how many numbers, by benchmark
    timed: list[str]
    skipped: dict[str, str]  # why it is not timed, by benchmark
    budget: float
    exact_seconds: float
    exact_asked: int  # numbers that its seconds are by
    pair_seconds: float | None  # None: nothing is timed
    most_pairs: int  # that the budget lasts for
    seconds: float  # of a run in which nothing is slower
    scatter: dict[str, float]
    smallest: float | None  # slowdown of one benchmark that `FOUND` of runs find; None: none
    source: str  # of scatter and of a pair's seconds


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""

    def act() -> int:
        from reference_model.files import check_writable, write_whole

        given = _parser().parse_args(arguments)
        check_system()
        if given.json:
            check_writable(given.json)
        request = request_of(given)
        end_after(max(request.budget, BUDGET) + GRACE)
        plan = planned(Path.cwd(), request, given.pairs, given.lines, warn)
        say(in_words(plan))
        if given.json:
            text = json.dumps(asdict(plan), indent=1, allow_nan=False) + "\n"
            write_whole(given.json.parent, {given.json.name: text.encode()})
        return int(Verdict.PASS)

    return answered(act, _failed)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate plan",
        description="Say what a gate would compare, how long it takes and what it would find.",
        example="--base HEAD~1 --head HEAD",
        statuses={
            Verdict.PASS: "planned; nothing was judged",
            Verdict.ERROR: "error: one line says why there is no plan",
            Verdict.NOT_COMPARABLE: "not comparable: the commits need different packages",
        },
    )
    ask(parser)
    told = f"pairs of base with itself that are measured (default: {PAIRS})"
    parser.add_argument("--pairs", type=_pairs, default=PAIRS, help=told)
    told = "measure none: take the pairs of this file, as the validation records them"
    parser.add_argument("--lines", type=Path, help=told)
    parser.add_argument("--json", type=Path, help="file for the plan")
    return parser


def _pairs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 2")
    return int(text)


def _failed(verdict: Verdict, reason: str) -> int:
    warn(f"{verdict.words}: {' '.join(reason.split())}")
    return int(verdict)


def planned(
    repository: Path,
    request: Request,
    pairs: int,
    recorded: Path | None,
    tell: Callable[[str], None],
) -> Plan:
    """``recorded``: a file of pairs, in whose place ``pairs`` are measured where it is None.

    `UserError` and `NotComparable` for what would keep a gate from a verdict as well.
    """
    started, rng = time.monotonic(), random.Random(request.seed)
    repository = top_of(repository)
    noise: Noise | None = None
    made = checked_out(
        repository,
        request.base,
        request.head,
        request.base_python,
        request.head_python,
        request.variables,
    )
    with made as (base, head):
        with running((base, head), request.device, rng) as (workers, _):
            # Base's own benchmarks judge as well where they are others (`rulers.py`).
            both = base.suite_differs and base.own_suite is not None
            exact, timed = _selected(workers[-1], request.select, both)
            timed, skipped = _on_both_sides(workers, timed)
            told = f"{sum(map(len, exact.values()))} exact numbers, {len(timed)} timed benchmarks"
            tell(f"{told}; timing a few of each")
            exact_seconds = time.monotonic() - started
            exact_seconds += (1 + both) * _seconds_of_exact(workers, exact)
        if timed:
            if recorded:
                noise = _recorded(recorded, timed)
            else:
                noise = _measured(base, request, timed, pairs, rng, tell)
    left = request.budget - exact_seconds
    most = _affordable(noise, left, request.rule) if noise else 0
    scatter = noise.scatter if noise else {}
    columns = np.array([scatter[name] for name in (*timed, CONTROL)]) if noise else np.empty(0)
    until = pairs_until_verdict(request.rule, columns, most) if noise else 0
    of_pairs = noise.first + (until - 1) * noise.usual if noise and until else 0.0
    return Plan(
        {"revision": request.base, "commit": base.commit},
        {"revision": request.head, "commit": head.commit},
        {name: len(ids) for name, ids in exact.items()},
        timed,
        skipped,
        request.budget,
        round(exact_seconds, 1),
        sum(1 + len(_few(ids[1:])) for ids in exact.values()),
        round(noise.usual, 2) if noise else None,
        most,
        round(exact_seconds + of_pairs, 1),
        scatter,
        smallest_found(request.rule, columns, most, FOUND) if noise else None,
        noise.source if noise else "",
    )  # fmt: skip


# ---- what is compared


def _selected(worker: Worker, pattern: str, suites: bool) -> tuple[dict[str, list[str]], list[str]]:
    """Exact ids by benchmark, and timed ids, that match. `UserError` where none does.

    Numbers of the suite's own functions are asked for where there are two ``suites``.
    """
    known = worker.ask("suite")
    timed = [id for id in known["timed"] if fnmatch.fnmatchcase(id, pattern)]
    exact: dict[str, list[str]] = {}
    for id, how in known["exact"].items():
        if fnmatch.fnmatchcase(id, pattern) and (suites or how.get("of", "model") == "model"):
            exact.setdefault(_benchmark(id), []).append(id)
    if not timed and not exact:
        raise UserError(
            f"--select {pattern!r} matches none of {len(known['timed']) + len(known['exact'])} "
            "benchmarks; such as bench_gate.Step* or '*turboquant*' would"
        )
    return exact, timed


def _benchmark(id: str) -> str:
    return id.partition("(")[0]


def _on_both_sides(
    workers: Sequence[Worker], ids: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The timed ones that both sides have, and why one of them has not the others."""
    for worker in workers:
        for id in ids:
            worker.send("prepare", id=id)
    skipped: dict[str, str] = {}
    for worker in workers:
        for id in ids:
            if reason := worker.receive().get("skipped"):
                skipped.setdefault(id, f"{worker.checkout.name}: {reason}")
    return [id for id in ids if id not in skipped], skipped


# ---- how long it takes, and how much pairs scatter


def _few(ids: Sequence[str]) -> Sequence[str]:
    return ids[:: math.ceil(len(ids) / SAMPLED) or 1]


def _seconds_of_exact(workers: Sequence[Worker], exact: Mapping[str, Sequence[str]]) -> float:
    """By a few numbers of each benchmark, both sides at work at once, as in a gate.

    The first stands for itself, since it may set up what the others share.
    """
    seconds = 0.0
    for first, *others in exact.values():
        seconds += _asked(workers, [first])
        if few := _few(others):
            seconds += _asked(workers, few) * len(others) / len(few)
    return seconds


def _asked(workers: Sequence[Worker], ids: Sequence[str]) -> float:
    """Seconds until all of them have answered."""
    started = time.monotonic()
    for worker in workers:
        worker.send("exact", ids=list(ids))
    for worker in workers:
        worker.receive()
    return time.monotonic() - started


def _measured(
    base: Checkout,
    request: Request,
    timed: Sequence[str],
    count: int,
    rng: random.Random,
    tell: Callable[[str], None],
) -> Noise:
    """``count`` pairs of base with itself, now."""
    control = CONTROLLED_BY if CONTROLLED_BY in timed else timed[0]
    pairs: list[Pair] = []
    with Pairs((base, base), request.device, rng, control) as each:
        for number in range(1, count + 1):
            pairs.append(each.measure(timed, more_to_come=number < count))
            tell(f"pair {number} of {count}: {pairs[-1].took:.1f} s")
    # So few pairs tell a scatter of all, around the nothing that equal commits differ by.
    ratios = [ratio for pair in pairs for ratio in pair.log_ratios.values()]
    scatter = float(np.sqrt(np.mean(np.square(ratios))))
    usual = statistics.fmean(pair.took for pair in pairs[1:])
    return Noise(
        dict.fromkeys((*timed, CONTROL), scatter),
        max(pairs[0].took, usual),
        usual,
        f"{count} pairs of base with itself, measured now",
    )


def _recorded(path: Path, timed: Sequence[str]) -> Noise:
    """By the pairs of a file; `UserError` where they are not of these benchmarks."""
    from reports.gate.validation import lines, real
    from reports.gate.validation.replay import scatter
    from reports.gate.validation.seconds import seconds_of

    records = lines.read(path, kind="pair")
    found = scatter(records)
    if missing := [id for id in (*timed, CONTROL) if id not in found]:
        raise UserError(
            f"{path} holds no two pairs of {missing[0]} in one block; leave --lines out, so that "
            "pairs are measured"
        )
    known = seconds_of(real.as_shipped(path))
    of_all = statistics.median(record["took"] for record in records)
    share = len(timed) / (len(found) - 1)
    usual = of_all * (1 - known.of_benchmarks * (1 - share))
    days = sorted(record["utc"][:10] for record in records if "utc" in record)
    dated = f", {days[0]} to {days[-1]}" if days else ""
    return Noise(
        {id: found[id] for id in (*timed, CONTROL)},
        usual + max(known.first, 0.0),
        usual,
        f"{len(records)} pairs of {path}{dated}, on whatever machine they were recorded",
    )


def _affordable(noise: Noise, seconds: float, rule: Rule) -> int:
    """Pairs that begin where the longest so far would still fit, as `run_pairs` begins them."""
    spent, pairs = 0.0, 0
    while pairs < rule.most_pairs and spent + (noise.first if pairs else 0.0) <= seconds:
        spent += noise.usual if pairs else noise.first
        pairs += 1
    return pairs


# ---- what is told


def in_words(plan: Plan) -> str:
    numbers = sum(plan.exact.values())
    lines = [
        f"base {_named(plan.base)}, head {_named(plan.head)}",
        f"{numbers} exact numbers, about {plan.exact_seconds:.0f} s with the start, by "
        f"{plan.exact_asked} of them:",
        *(f"  {name}: {count}" for name, count in plan.exact.items()),
    ]
    if plan.timed:
        lines += [
            f"{len(plan.timed)} timed benchmarks, about {plan.pair_seconds:.1f} s a pair:",
            *(f"  {id}" for id in plan.timed),
        ]
    lines += [f"not timed: {id}: {why}" for id, why in plan.skipped.items()]
    if not plan.timed:
        return "\n".join([*lines, f"about {plan.seconds:.0f} s in all; nothing is timed"])
    lines += [
        f"about {plan.seconds:.0f} s where nothing is slower, and {plan.budget:.0f} s at most: the "
        f"budget lasts for {_counted(plan.most_pairs)}",
        _smallest(plan),
        f"by {plan.source}; a pair scatters by {_scatter(plan.scatter)}",
    ]
    return "\n".join(lines)


def _smallest(plan: Plan) -> str:
    if plan.smallest is None:
        early = plan.most_pairs < (first := Rule().looks[0])
        why = f"the rule first looks after {first}" if early else "they scatter too much"
        return (
            f"{_counted(plan.most_pairs)} would find next to nothing: {why}; lend more time with "
            "--budget, --select fewer, or quieten the machine"
        )
    return (
        f"{100 * FOUND:.0f} % of runs find a slowdown of {100 * plan.smallest:.1f} % of one "
        "benchmark; a smaller one is found more rarely"
    )


def _counted(pairs: int) -> str:
    return f"{pairs} pair{'' if pairs == 1 else 's'}"


def _scatter(scatter: Mapping[str, float]) -> str:
    low, high = (100 * bound for bound in (min(scatter.values()), max(scatter.values())))
    return f"{low:.1f} %" if high - low < 0.05 else f"{low:.1f} to {high:.1f} %"


def _named(side: Mapping[str, str]) -> str:
    return f"{side['revision']} {side['commit'][:12]}"
