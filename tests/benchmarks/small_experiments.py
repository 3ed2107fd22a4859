"""Experiments that take no time, for runs in real processes.

As a program it is `python -m benchmarks` with these alone. What is measured adds a line to the file
that SMALL_LOG names, so that a test sees how often.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from benchmarks.experiments.experiment import (
    PROFILES,
    Cell,
    CellsFound,
    Experiment,
    Found,
    Settings,
    experiment,
    experiment_of_cells,
)
from benchmarks.record.results import Measurement, Parameter

CELLS = 8
SECONDS = dict.fromkeys(PROFILES, 0.1)
GRID, TIMED, FAILING, ENDED = (
    "tying.saving-large",
    "cache.fifteen-tokens",
    "tying.saving-small",
    "tying.quality",
)
STAGED, SHARING = "norm.quality", "norm.variants"


def note(text: str) -> None:
    if "SMALL_LOG" in os.environ:
        with Path(os.environ["SMALL_LOG"]).open("a", encoding="utf-8") as log:
            log.write(f"{text}\n")


def number(claim: str, value: float, **parameters: Parameter) -> Measurement:
    return Measurement(
        claim, "number", "1", value, None, None, "none", "head", "any", parameters, "counted"
    )


def cells(settings: Settings) -> list[Cell]:
    return [Cell({"index": index}) for index in range(CELLS)]


def drawn(settings: Settings, index: int) -> Found:
    """A number that the seed, the cell and the number of threads decide; says that it was drawn."""
    note(f"cell {index}")
    waiting = Path(os.environ.get("SMALL_WAIT", ""))
    if index == 2 and waiting.is_fifo():
        note(f"waits {os.getpid()}")
        waiting.read_bytes()  # until a writer has closed it
    print(f"drawing {index}")
    torch.manual_seed(settings.seed + index)
    return [float(torch.randn(1 << 16).sum()), torch.get_num_threads()]


@experiment_of_cells(GRID, cells=cells, measure=drawn, **SECONDS)
def grid(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Each cell's number."""
    return [number(GRID, value, threads=threads, **labels) for labels, (value, threads) in found]


@experiment(TIMED, **SECONDS, timed=PROFILES)
def timed(settings: Settings) -> list[Measurement]:
    """As many threads as it has."""
    note("timed")
    return [number(TIMED, torch.get_num_threads())]


class Unspeakable(Exception):
    """It cannot be made again from its message alone, as unpickling an exception does."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


@experiment(FAILING, **SECONDS)
def failing(settings: Settings) -> list[Measurement]:
    """Raises what no other process can unpickle."""
    note("failing")
    raise Unspeakable("this", "that")


@experiment(ENDED, **SECONDS)
def ended(settings: Settings) -> list[Measurement]:
    """Ends as a process ends that the system kills."""
    note("ended")
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def rates(settings: Settings) -> list[Cell]:
    return [Cell({"rate": rate}, shared=__name__) for rate in (1, 2, 4)]


def at_the_best(settings: Settings, found: CellsFound) -> list[Cell]:
    """Two seeds at the rate with the least loss."""
    if len(found) > len(rates(settings)):
        return []
    best, _ = min(found, key=lambda each: each[1][0])
    return [Cell({**best, "seed": seed}, shared=__name__) for seed in range(2)]


def loss(settings: Settings, rate: int, seed: int = 7) -> Found:
    note(f"rate {rate}, seed {seed}")
    return [abs(rate - 2) + seed / 100]


def _staged(claim: str) -> Experiment:
    def combine(settings: Settings, found: CellsFound) -> list[Measurement]:
        return [number(claim, value, **labels) for labels, (value,) in found]

    decorate = experiment_of_cells(claim, cells=rates, measure=loss, further=at_the_best, **SECONDS)
    return decorate(combine)


staged, sharing = _staged(STAGED), _staged(SHARING)
GOOD = [grid, timed]
ALL = [*GOOD, failing, ended]

if __name__ == "__main__":
    from benchmarks.__main__ import main
    from benchmarks.experiments import catalogue

    catalogue.all_experiments = lambda: GOOD
    sys.exit(main())
