"""One pair: a fresh process of base and one of head, alive at once, that take turns.

The process is the unit of observation, so that a pair yields one log-ratio of each benchmark. The
two step in turns, a few calls each, in an order that is drawn and then reversed: a machine that
slows down meanwhile slows both. A second process of base is the control: base against itself.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from reference_model.errors import UserError
from reports.gate.arms import Arm
from reports.gate.machine import Watch
from reports.gate.workers import Device, Worker, running

BURSTS = 4  # turns of each process, in the order b h h b b h h b or its opposite
BURST_SECONDS = 0.03
WARM_UP = 2  # calls at the beginning of each turn: the other process has just used the caches
CALLS = (3, 60)  # at least and at most, in one turn
SHORTEST = 1e-6  # seconds of a call; what is shorter does nothing
CONTROL = "control: base against base"


@dataclass(frozen=True)
class Pair:
    """The log-ratios of head to base by benchmark, the control among them."""

    log_ratios: dict[str, float]
    seconds: dict[str, list[float]]  # base's and head's medians
    took: float  # seconds of everything, starts included
    machine: dict[str, Any]
    order: str  # which arm stepped first


def measure_pair(
    arms: tuple[Arm, Arm],
    ids: Sequence[str],
    device: Device,
    rng: random.Random,
    control: str | None = None,
) -> Pair:
    """Time ``ids`` once; ``control`` is the benchmark by which base is compared with itself.

    `UserError` where a benchmark fails, is skipped or takes no time at all.
    """
    started, watch = time.monotonic(), Watch()
    base, head = arms
    fresh = [base, head] + ([base] if control else [])
    rng.shuffle(order := list(range(len(fresh))))  # of starting, too
    with running([fresh[i] for i in order], device, rng) as (shuffled, _):
        workers = [shuffled[order.index(i)] for i in range(len(fresh))]
        asked = [list(ids), list(ids)]
        if control:
            # A control that is decided is no longer among the ids, and base steps it all the same.
            asked[0] += [control] * (control not in ids)
            asked.append([control])
        for worker, prepared in zip(workers, asked, strict=True):
            for id in prepared:
                worker.send("prepare", id=id)
        for worker, prepared in zip(workers, asked, strict=True):
            for _ in prepared:
                if reason := worker.receive().get("skipped"):
                    raise UserError(f"{worker.arm.name}: a timed benchmark was skipped: {reason}")
        works = [(id, id, workers[0], workers[1]) for id in ids]
        if control:
            works.append((CONTROL, control, workers[0], workers[2]))
        rng.shuffle(works)
        processor = a_processor(rng)
        log_ratios, seconds, first = {}, {}, []
        for name, id, one, other in works:
            swapped = rng.random() < 0.5
            first.append("head" if swapped else "base")
            log_ratios[name], seconds[name] = in_turns(id, one, other, swapped, processor)
    took = time.monotonic() - started
    orders = f"{first.count('base')} base first, {first.count('head')} head first"
    return Pair(log_ratios, seconds, round(took, 3), watch.reading(), orders)


def a_processor(rng: random.Random) -> int | None:
    """Both processes of a pair step on the same one: processors need not be equally fast."""
    with suppress(AttributeError):  # not on macOS and Windows
        return rng.choice(sorted(os.sched_getaffinity(0)))
    return None


def in_turns(
    id: str, one: Worker, other: Worker, swapped: bool, processor: int | None
) -> tuple[float, list[float]]:
    """log(seconds of other / seconds of one), and the median seconds of each."""
    once = _seconds(one, id, CALLS[0], processor)
    other_once = _seconds(other, id, CALLS[0], processor)
    usual = min(statistics.median(once), statistics.median(other_once))
    if usual < SHORTEST:
        raise UserError(f"{id} measures nothing: a call takes {usual:.1g} seconds")
    calls = min(max(round(BURST_SECONDS / usual), CALLS[0]), CALLS[1])
    medians: dict[int, list[float]] = {0: [], 1: []}
    for burst in range(BURSTS):
        turn = (0, 1) if (burst % 2 == 0) != swapped else (1, 0)
        for which in turn:
            found = _seconds((one, other)[which], id, calls, processor)
            medians[which].append(statistics.median(found))
    ratios = [math.log(b / a) for a, b in zip(medians[0], medians[1], strict=True)]
    # The median of the turns: a single one may have met something else on its processor.
    return statistics.median(ratios), [statistics.median(medians[i]) for i in (0, 1)]


def _seconds(worker: Worker, id: str, calls: int, processor: int | None) -> list[float]:
    answer = worker.ask("measure", id=id, calls=calls, warmup=WARM_UP, processor=processor)
    seconds = [float(each) for each in answer["seconds"]]
    if len(seconds) != calls or not all(math.isfinite(s) and s > 0 for s in seconds):
        raise UserError(f"{worker.arm.name}: {id} measures nothing: {seconds[:3]}")
    return seconds
