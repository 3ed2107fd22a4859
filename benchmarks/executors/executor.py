"""What measures cells: processes of this machine, or a Ray cluster.

An executor is told to start tasks and says which have ended; what is due, and what counts as done,
is the record's business (`benchmarks/running/runner.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from benchmarks.experiments.experiment import Cell, Experiment, Settings
from benchmarks.record.results import Parameter

Kind = Literal["done", "failed", "unavailable"]


@dataclass(frozen=True)
class Order:
    """What a process has to know to measure a cell; it can be pickled."""

    module: str
    claim: str
    settings: Settings
    parameters: Mapping[str, Parameter]
    threads: int
    timed: bool


@dataclass(frozen=True)
class Answer:
    """``found`` is what the cell returned, or its error in one line."""

    kind: Kind
    found: Any
    seconds: float
    threads: int = 1
    log: str = ""  # what it printed, and where an error came from


@dataclass(frozen=True, eq=False)
class Task:
    """A cell that is to be measured, with how many threads."""

    experiment: Experiment
    cell: Cell
    settings: Settings
    threads: int
    expected: float  # seconds

    @property
    def order(self) -> Order:
        """What the process is told that measures it."""
        return Order(
            self.experiment.module,
            self.experiment.claim,
            self.settings,
            self.cell.parameters,
            self.threads,
            self.cell.timed,
        )

    @property
    def name(self) -> str:
        labels = ",".join(f"{key}={value}" for key, value in self.cell.parameters.items())
        return f"{self.experiment.claim}[{labels}]" if labels else self.experiment.claim


@dataclass(frozen=True)
class Ended:
    """What became of a task."""

    task: Task
    answer: Answer
    environment: dict[str, Any] | None = None  # of the machine, where it is not the run's own


class Executor(Protocol):
    """Each task runs in a process of its own; one that dies is a failed task, and no more."""

    def has_room_for(self, task: Task) -> bool:
        """Whether it could start now."""

    def start(self, task: Task) -> None:
        """Begin with it; returns at once."""

    def ended(self, within: float) -> Sequence[Ended]:
        """Those that have ended; waits for one for so many seconds at most."""

    def close(self) -> None:
        """End what runs, with all its children, within a second."""
