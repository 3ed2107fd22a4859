"""One pair: a fresh process of base and one of head, alive at once, that take turns.

The process is the unit of observation, so that a pair yields one log-ratio of each benchmark. The
two take turns call by call, in the order b h h b, b h h b or its opposite: whatever slows the
machine down for longer than a call slows both. A second process of base is the control: base
against itself. To start three processes takes about as long as their turns do, so that those of the
next pair start beside the turns of this one.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reference_model.errors import UserError
from reports.gate.checkouts import Checkouts
from reports.gate.machine import Watch
from reports.gate.workers import Device, Processes, Worker

# Single calls in turns scatter a quarter as much as bursts of 30 ms in turns (12 pairs of each,
# reports/published/gate_designs.json): what disturbs a machine lasts as long as such a burst.
LEAST_SECONDS, MOST_SECONDS = 0.3, 2.7  # of one benchmark's turns, both processes together
MOST_TURNS = 400
# Turns that are not counted: what runs for the first time finds no caches, and the side that was
# warmed up before the other would come out slower (README.md has by how much).
SETTLING = 4
# Turns end where their scatter leaves an error of their middle that is no larger than what two
# fresh processes of the same code differ by however long they take turns (1.2 %). From fewer turns
# than that the error is not known; a head that is several times slower is.
SMALL, TURNS_TO_KNOW = 0.012, 24
SEVERAL_TIMES, TURNS_TO_SEE = math.log(3), 4
ASKING = 3e-4  # seconds to ask a process for a call
# Seconds of a call; what is shorter does nothing. To call nothing takes up to half of it: the
# other process has just emptied the caches.
SHORTEST = 1e-5
Floats = NDArray[np.float64]
Turns = list[tuple[float, float]]  # seconds of a call of one and of one of the other
CONTROL = "control: base against base"


class OutOfTime(Exception):
    """The deadline passed before a pair was complete: it is no observation."""


@dataclass(frozen=True)
class Pair:
    """The log-ratios of head to base by benchmark, the control among them."""

    log_ratios: dict[str, float]
    seconds: dict[str, list[float]]  # base's and head's medians
    took: float  # seconds of everything, starts included
    machine: dict[str, Any]
    order: str  # which side stepped first


class Pairs:
    """One pair after another of ``checkouts``, base's and head's, on ``device``.

    While a pair steps on one processor, the processes of the next one start on the others: a load
    there changes little of what the turns of single threads scatter by (README.md has by how much).
    Steps on several threads come last, when that is over. On a GPU, which everybody shares, and on
    a single processor a pair starts when the one before has ended.

    ``control``: the benchmark by which base is compared with itself.
    """

    def __init__(
        self,
        checkouts: Checkouts,
        device: Device,
        rng: random.Random,
        control: str | None = None,
    ) -> None:
        self._checkouts = (*checkouts, checkouts[0]) if control else checkouts
        self._device, self._rng, self.control = device, rng, control
        self._next: Processes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._next:
            self._next.close()

    def measure(
        self, ids: Sequence[str], deadline: float = math.inf, more_to_come: bool = True
    ) -> Pair:
        """Time ``ids`` once.

        `UserError` where a benchmark fails, is skipped or takes no time at all; `OutOfTime` where
        one would begin after ``deadline``, by the monotonic clock.
        """
        started, watch = time.monotonic(), Watch()
        log_ratios: dict[str, float] = {}
        seconds: dict[str, list[float]] = {}
        first: list[str] = []
        # All hold the same, whatever they step: a control with one benchmark alone was 2 % faster
        # than base. A control that is decided is no longer among the ids.
        held = list(dict.fromkeys([*ids, *([self.control] if self.control else [])]))
        with ExitStack() as ending:
            now = self._started(held)
            ending.callback(now.close)
            now.ready()
            base, head, *second = now.workers
            works = [(id, id, base, head) for id in ids]
            works += [(CONTROL, str(self.control), base, other) for other in second]
            self._rng.shuffle(works)
            works.sort(key=lambda work: now.threads[work[1]] > 1)
            processor = a_processor(self._rng)
            if more_to_come and (free := self._others(processor)):
                self._next = Processes(self._checkouts, self._device, self._rng, held, free)
            for name, id, one, other in works:
                if now.threads[id] > 1:
                    self._wait_for_next()
                if time.monotonic() > deadline:
                    raise OutOfTime
                swapped = self._rng.random() < 0.5
                first.append("head" if swapped else "base")
                log_ratios[name], seconds[name] = in_turns(id, one, other, swapped, processor)
            if self._next:
                self._next.hurry()
        took = time.monotonic() - started
        orders = f"{first.count('base')} base first, {first.count('head')} head first"
        return Pair(log_ratios, seconds, round(took, 3), watch.reading(), orders)

    def _started(self, ids: Sequence[str]) -> Processes:
        """Those that were started for ``ids`` and perhaps others; new ones where there are none."""
        waiting, self._next = self._next, None
        if waiting and set(ids) <= set(waiting.ids):
            return waiting
        if waiting:
            waiting.close()
        return Processes(self._checkouts, self._device, self._rng, ids)

    def _others(self, processor: int | None) -> set[int]:
        """Where the next ones can start without a share in what this pair is timed on."""
        if processor is None or self._device == "cuda":
            return set()
        return os.sched_getaffinity(0) - {processor}

    def _wait_for_next(self) -> None:
        if self._next:
            self._next.hurry()
            self._next.ready()


def a_processor(rng: random.Random) -> int | None:
    """Both processes of a pair step on the same one: processors need not be equally fast."""
    with suppress(AttributeError):  # not on macOS and Windows
        return rng.choice(sorted(os.sched_getaffinity(0)))
    return None


def in_turns(
    id: str, one: Worker, other: Worker, swapped: bool, processor: int | None
) -> tuple[float, list[float]]:
    """log(seconds of other / seconds of one), and the median seconds of each."""
    both = (one, other)
    settled = settle(id, both, swapped, processor)
    if (shortest := float(np.min(settled))) < SHORTEST:
        raise UserError(f"{id} measures nothing: a call takes {shortest:.1g} s; give it work")
    turns: Turns = []
    while not enough(turns):
        turns += two_turns(id, both, swapped, processor)
    of_each = np.array(turns)  # (turns, 2)
    ratios = np.log(of_each[:, 1] / of_each[:, 0])
    return middle(ratios), [float(each) for each in np.median(of_each, axis=0)]


def settle(id: str, both: tuple[Worker, Worker], swapped: bool, processor: int | None) -> Turns:
    """The turns before those that count: fewer where calls are so long that a few of them do."""
    turns = two_turns(id, both, swapped, processor)
    while len(turns) < SETTLING and spent(turns) < LEAST_SECONDS:
        turns += two_turns(id, both, swapped, processor)
    return turns


def two_turns(id: str, both: tuple[Worker, Worker], swapped: bool, processor: int | None) -> Turns:
    """One turn in each order; ``swapped`` begins with the other."""
    turns = []
    for first in (int(swapped), int(not swapped)):
        seconds = {at: _seconds(both[at], id, processor) for at in (first, 1 - first)}
        turns.append((seconds[0], seconds[1]))
    return turns


def spent(turns: Turns) -> float:
    """Seconds of calls and of asking for them."""
    return float(np.sum(turns)) + 2 * len(turns) * ASKING


def enough(turns: Turns) -> bool:
    """Whether all turns so far decide a pair's ratio.

    Which of the two is the slower plays no part: a rule that stopped earlier for one sign would
    shift what it stops at.
    """
    if len(turns) < TURNS_TO_SEE:
        return False
    if (taken := spent(turns)) > MOST_SECONDS or len(turns) >= MOST_TURNS:
        return True
    if taken < LEAST_SECONDS:
        return False
    of_each = np.array(turns)
    ratios = np.log(of_each[:, 1] / of_each[:, 0])
    if abs(float(np.median(ratios))) > SEVERAL_TIMES:
        return True
    return len(turns) >= TURNS_TO_KNOW and error(ratios) < SMALL


def error(ratios: Floats) -> float:
    """The standard error of the middle of ``ratios``, an even number of them, robustly.

    From means of two successive ones: who is the first of a turn changes between them, and finds
    other caches.
    """
    twos = ratios.reshape(-1, 2).mean(1)
    low, high = np.quantile(twos, (0.25, 0.75))
    return float(1.02 * (high - low) / 1.349 / math.sqrt(len(twos)))


def middle(x: Floats) -> float:
    """Hodges and Lehmann's estimate of location: the median of all means of two.

    A call that met something else hardly moves it, and it takes ratios as a whole where the median
    would have to choose between those of base's first calls and of head's.
    """
    first, second = np.triu_indices(len(x))
    return float(np.median((x[first] + x[second]) / 2))


def _seconds(worker: Worker, id: str, processor: int | None) -> float:
    """Of one call, as the other process left the caches: each finds them so every second time."""
    answer = worker.ask("measure", id=id, calls=1, warmup=0, processor=processor)
    (seconds,) = answer["seconds"]
    if not math.isfinite(seconds) or seconds <= 0:
        raise UserError(f"{worker.checkout.name}: {id} measures nothing: {seconds}")
    return float(seconds)
