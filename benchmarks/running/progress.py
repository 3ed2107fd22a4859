"""How far a run is: what is done, what is running, and how long the rest will take."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from time import monotonic

from benchmarks.executors.executor import Task
from reference_model.printing import ErrorsForProgress, clean

EVERY = 60.0  # seconds between two lines of a log


class Progress:
    """On a terminal one line that moves; in a log a line a minute.

    The remaining time is that which the experiments declare, corrected by what this run's finished
    cells took of theirs.
    """

    def __init__(self, due: Sequence[Task], jobs: int) -> None:
        self._due, self._jobs = list(due), jobs
        self._since = {id(task): 0.0 for task in due}  # when each began; 0: it has not
        self._ended: set[int] = set()
        self._declared = self._taken = 0.0
        self._start, self._told = monotonic(), monotonic()
        self._file = ErrorsForProgress()
        self._live = bool(self._file.isatty())

    def began(self, task: Task) -> None:
        self._since[id(task)] = monotonic()

    def ended(self, task: Task, seconds: float) -> None:
        self._ended.add(id(task))
        self._declared += task.expected
        self._taken += seconds

    @property
    def seconds_left(self) -> float:
        """About how long it will take from now on."""
        pace = self._taken / self._declared if self._declared else 1.0
        left = 0.0
        for task in self._due:
            if id(task) in self._ended:
                continue
            began = self._since[id(task)]
            spent = monotonic() - began if began else 0.0
            # Who is over its time is about to end, as far as anybody knows.
            rest = max(task.expected * pace - spent, task.expected * pace * 0.05)
            left += rest if task.cell.timed else rest / self._jobs
        return left

    def show(self) -> None:
        """Call it often: it decides what is written, and when."""
        now = monotonic()
        if not self._live:
            if now - self._told >= EVERY:
                self._told = now
                self._file.write(f"{self._line()}\n")
                self._file.flush()
            return
        width = max(20, shutil.get_terminal_size().columns - 1)
        self._file.write(f"\r{self._line()[:width]:{width}}")
        self._file.flush()

    def _line(self) -> str:
        names = [t.name for t in self._due if self._since[id(t)] and id(t) not in self._ended]
        running = f"; running {', '.join(map(clean, names))}" if names else ""
        spent = duration(monotonic() - self._start)
        return (
            f"{len(self._ended)} of {len(self._due)} cells in {spent}, "
            f"about {duration(self.seconds_left)} left{running}"
        )

    def say(self, text: str) -> None:
        """Lines between the others, cleaned."""
        if self._live:
            width = max(20, shutil.get_terminal_size().columns - 1)
            self._file.write(f"\r{'':{width}}\r")
        self._file.write(f"{clean(text, lines=True)}\n")
        self._file.flush()

    def close(self) -> None:
        if self._live:
            self._file.write("\n")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
