"""How many turns a pair should take: every turn of some pairs, cut where a rule would have ended.

Compared are fixed lengths and the gate's own rule (`reports.gate.pairs.enough`). What counts is, as
for the designs, the variance of a pair times its seconds; that of equal commits is the mean square.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.gate.checkouts import Checkouts
from reports.gate.pairs import Turns, a_processor, enough, middle, settle, spent, two_turns
from reports.gate.validation import lines
from reports.gate.workers import Worker, running

RECORDED_SECONDS = 3.0  # of one benchmark's turns
FIXED = (0.3, 0.45, 0.9, 1.8)  # seconds


def record_turns(
    path: Path,
    checkouts: Checkouts,
    ids: Sequence[str],
    pairs: int,
    background_load: bool,
    tell: Callable[[str], None],
) -> None:
    """Turns of ``pairs`` pairs, appended to what the file has already.

    Stored lines have "neighbour" for a background load.
    """
    for number in range(len(lines.of_today(path, kind="turns", neighbour=background_load)), pairs):
        rng, started = random.Random(), time.monotonic()
        with running(list(checkouts), "cpu", rng) as (workers, _):
            for worker in workers:
                for id in ids:
                    worker.ask("prepare", id=id)
            setup, processor = time.monotonic() - started, a_processor(rng)
            both = (workers[0], workers[1])
            turns = {
                id: _turns(id, both, rng.random() < 0.5, processor)
                for id in rng.sample(ids, len(ids))
            }
        record = {"kind": "turns", "neighbour": background_load, "commit": checkouts[0].commit}
        lines.append(path, record | {"setup": round(setup, 3), "seconds": turns})
        tell(f"turns, pair {number + 1} of {pairs}: {time.monotonic() - started:.1f} s")


def _turns(id: str, both: tuple[Worker, Worker], swapped: bool, processor: int | None) -> Turns:
    settle(id, both, swapped, processor)
    turns: Turns = []
    end = time.monotonic() + RECORDED_SECONDS
    while time.monotonic() < end:
        turns += two_turns(id, both, swapped, processor)
    return [(round(one, 7), round(other, 7)) for one, other in turns]


def summary(path: Path) -> list[dict[str, Any]]:
    """Per rule and what ran beside: sd of a pair, seconds of its turns, variance times seconds.

    Over all benchmarks, and of the one for which each is worst.
    """
    rows = []
    for background_load in (False, True):
        records = lines.read(path, kind="turns", neighbour=background_load)
        if not records:
            continue
        setup = float(np.mean([record["setup"] for record in records]))
        for name, end in (*((f"{s:g} s", _after(s)) for s in FIXED), ("as shipped", enough)):
            ratios, seconds = [], []  # (pairs, benchmarks)
            for record in records:
                cut = [_cut(turns, end) for turns in record["seconds"].values()]
                ratios.append([_ratio(turns) for turns in cut])
                seconds.append(sum(spent(turns) for turns in cut))
            variances = np.square(ratios).mean(0)
            a_pair = setup + float(np.mean(seconds))
            rows.append(
                {
                    "turns": name,
                    "neighbour": background_load,
                    "pairs": len(records),
                    "sd": float(np.sqrt(variances.mean())),
                    "worst_sd": float(np.sqrt(variances.max())),
                    "seconds_per_pair": a_pair,
                    "variance_seconds": float(variances.mean()) * a_pair,
                    "worst_variance_seconds": float(variances.max()) * a_pair,
                }
            )
    return rows


def _after(seconds: float) -> Callable[[Turns], bool]:
    return lambda turns: len(turns) >= 4 and spent(turns) > seconds


def _cut(turns: Turns, end: Callable[[Turns], bool]) -> Turns:
    """Up to where ``end`` says so, asked after every second turn as the gate asks."""
    for taken in range(4, len(turns), 2):
        if end(turns[:taken]):
            return turns[:taken]
    return turns


def _ratio(turns: Turns) -> float:
    seconds: NDArray[np.float64] = np.array(turns)
    return middle(np.log(seconds[:, 1] / seconds[:, 0]))
