"""How a pair should be measured: the scatter of a pair, and what a pair costs, for five designs.

- sequential: two fresh processes, one after the other, on the same processor
- bursts: two fresh processes, alive at once, that step in turns of 30 ms, each after a warm-up
- calls: the same in turns of a single call
- ahead: the same, while those of the next pair start on the other processor (what the gate does)
- copies: two copies of each step in one process, in turns; they cannot be two commits, and show
  what is left of the scatter once process and layout are shared

Both checkouts are of the same commit. What counts is the variance of a mean after a second of
machine time: the variance of a pair times its seconds.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from reports.gate.checkouts import Checkout, Checkouts
from reports.gate.pairs import Pairs, a_processor, in_turns
from reports.gate.validation import lines
from reports.gate.workers import Worker, running

Ratios = dict[str, float]
BURSTS, BURST_SECONDS, WARM_UP = 4, 0.03, 2  # turns of each process, seconds and calls of each
ALONE_SECONDS = 0.23  # of a process that has no other to take turns with
CALLS = (3, 60)  # at least and at most, in one burst


def sequential(checkouts: Checkouts, ids: Sequence[str], rng: random.Random) -> Ratios:
    order, processor = list(checkouts), a_processor(rng)
    rng.shuffle(order)
    seconds = [_alone(checkout, ids, rng, processor) for checkout in order]
    sign = 1 if order[0] is checkouts[0] else -1
    return {id: sign * math.log(seconds[1][id] / seconds[0][id]) for id in ids}


def _alone(
    checkout: Checkout, ids: Sequence[str], rng: random.Random, processor: int | None
) -> dict[str, float]:
    found = {}
    with running([checkout], "cpu", rng) as ((worker,), _):
        for id in rng.sample(list(ids), len(ids)):
            worker.ask("prepare", id=id)
            few = _medians(worker, id, CALLS[0], processor)
            many = max(round(ALONE_SECONDS / few), CALLS[0])
            found[id] = _medians(worker, id, many, processor)
    return found


def _medians(worker: Worker, id: str, calls: int, processor: int | None) -> float:
    answer = worker.ask("measure", id=id, calls=calls, warmup=WARM_UP, processor=processor)
    return statistics.median(answer["seconds"])


def bursts(checkouts: Checkouts, ids: Sequence[str], rng: random.Random) -> Ratios:
    found, processor = {}, a_processor(rng)
    with running(list(checkouts), "cpu", rng) as (workers, _):
        for id in rng.sample(list(ids), len(ids)):
            for worker in workers:
                worker.ask("prepare", id=id)
            usual = min(_medians(worker, id, CALLS[0], processor) for worker in workers)
            few = min(max(round(BURST_SECONDS / usual), CALLS[0]), CALLS[1])
            ratios, order = [], rng.sample((0, 1), 2)
            for _ in range(BURSTS):
                seconds = {at: _medians(workers[at], id, few, processor) for at in order}
                ratios.append(math.log(seconds[1] / seconds[0]))
                order.reverse()
            found[id] = statistics.median(ratios)
    return found


def calls(checkouts: Checkouts, ids: Sequence[str], rng: random.Random) -> Ratios:
    with Pairs(checkouts, "cpu", rng) as pairs:
        return pairs.measure(ids, more_to_come=False).log_ratios


def ahead(checkouts: Checkouts, ids: Sequence[str], rng: random.Random) -> tuple[Ratios, float]:
    """The second of two pairs, whose processes started beside the first, and its seconds."""
    with Pairs(checkouts, "cpu", rng) as pairs:
        pairs.measure(ids)
        pair = pairs.measure(ids)
    return pair.log_ratios, pair.took


class _Copy:
    """A worker's second copy of each step, asked for as if it were a process of its own."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self.checkout = worker, worker.checkout

    def ask(self, do: str, id: str, **arguments: Any) -> dict[str, Any]:
        return self._worker.ask(do, id=f"{id} again", **arguments)


def copies(checkouts: Checkouts, ids: Sequence[str], rng: random.Random) -> Ratios:
    with running([checkouts[0]], "cpu", rng) as ((worker,), _):
        found, processor = {}, a_processor(rng)
        for id in rng.sample(list(ids), len(ids)):
            worker.ask("prepare", id=id)
            worker.ask("prepare", id=id, name=f"{id} again")
            swapped, copy = rng.random() < 0.5, cast(Worker, _Copy(worker))
            found[id], _ = in_turns(id, worker, copy, swapped, processor)
    return found


Design = Callable[[Checkouts, Sequence[str], random.Random], Ratios]


def timed(design: Design) -> Callable[..., tuple[Ratios, float]]:
    """With the seconds that it takes."""

    def run(checkouts: Checkouts, ids: Sequence[str], rng: random.Random) -> tuple[Ratios, float]:
        started = time.monotonic()
        ratios = design(checkouts, ids, rng)
        return ratios, time.monotonic() - started

    return run


DESIGNS: dict[str, Callable[..., tuple[Ratios, float]]] = {
    "sequential": timed(sequential),
    "bursts": timed(bursts),
    "calls": timed(calls),
    "ahead": ahead,
    "copies": timed(copies),
}


def record_designs(
    path: Path,
    checkouts: Checkouts,
    ids: Sequence[str],
    pairs: int,
    tell: Callable[[str], None],
) -> None:
    """``pairs`` of each design, in turns, appended to what the file has already."""
    for number in range(pairs):
        for name, design in DESIGNS.items():
            if len(lines.of_today(path, kind="design", design=name)) > number:
                continue
            ratios, seconds = design(checkouts, ids, random.Random())
            took = round(seconds, 3)
            record = {"kind": "design", "design": name, "log_ratios": ratios, "took": took}
            lines.append(path, record | {"commit": checkouts[0].commit})
            tell(f"{name}, pair {number + 1} of {pairs}: {took:.1f} s")


def summary(path: Path) -> list[dict[str, Any]]:
    """Per design and benchmark: sd of a pair, lag-1 correlation, variance times seconds."""
    rows = []
    for name in DESIGNS:
        records = lines.read(path, kind="design", design=name)
        if len(records) < 3:
            continue
        took = statistics.fmean(record["took"] for record in records)
        for id in records[0]["log_ratios"]:
            x = np.array([r["log_ratios"][id] for r in records if id in r["log_ratios"]])
            # From the quartiles: a pair that met something else shall not decide the comparison.
            low, high = np.quantile(x, (0.25, 0.75))
            robust = float(high - low) / 1.349
            rows.append(
                {
                    "design": name,
                    "benchmark": id,
                    "pairs": len(x),
                    "sd": float(x.std(ddof=1)),
                    "sd_by_quartiles": robust,
                    "lag_1": float(np.corrcoef(x[:-1], x[1:])[0, 1]) if len(x) > 3 else None,
                    "seconds_per_pair": took,
                    "variance_seconds": float(x.var(ddof=1)) * took,
                    "variance_seconds_by_quartiles": robust**2 * took,
                }
            )
    return rows
