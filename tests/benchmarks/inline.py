"""An executor that measures in this process, for experiments that a test defines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.executors.cell import measure_cell
from benchmarks.executors.executor import Ended, Task
from benchmarks.experiments.experiment import (
    PROFILES,
    Cell,
    Experiment,
    Profile,
    Settings,
    as_found,
    joined,
)
from benchmarks.instruments.environment import run_stamp
from benchmarks.judging.claims import load_claims
from benchmarks.record.results import Measurement
from benchmarks.running.assembling import results_of
from benchmarks.running.plan import plan
from benchmarks.running.runner import State


class Inline:
    def __init__(self) -> None:
        self.begun: list[Task] = []
        self._due: list[Task] = []

    def has_room_for(self, task: Task) -> bool:
        return not self._due

    def start(self, task: Task) -> None:
        self.begun.append(task)
        self._due.append(task)

    def ended(self, within: float) -> Sequence[Ended]:
        found = []
        for task in self._due:
            answer = measure_cell(task.order, lambda _, each=task.experiment: each)
            found.append(Ended(task, answer))
        self._due = []
        return found

    def close(self) -> None:
        self._due = []


def one_cell(
    claim: str,
    function: Callable[[Settings], list[Measurement]],
    seconds: dict[Profile, float | None] | None = None,
) -> Experiment:
    return Experiment(
        claim,
        __name__,
        lambda settings: as_found(function(settings)),
        lambda settings: [Cell()],
        joined,
        seconds or dict.fromkeys(PROFILES, 0.1),
    )


def nothing_measured(settings: Settings) -> dict[str, Any]:
    """results.json of a run that selected no claim."""
    stamp = run_stamp(settings)
    planned = plan(settings, load_claims(), [], [], stamp)
    return results_of(planned, State(planned), settings, stamp)
