"""Cells in processes of this machine, as many at once as it has cores.

On Linux without CUDA a server imports torch once and each cell is forked from it: no cell waits for
the import, and none sees what another left behind. Elsewhere each cell's process begins anew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.executors.cell import measure_cell, printing_into
from benchmarks.executors.executor import Answer, Ended, Order, Task

# What a machine is left with beside the cells, as a share of its memory.
SPARE = 0.15
PRELOAD = "benchmarks.executors.preload"
# How many threads libraries start as they are imported.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class _Running:
    task: Task
    process: Any
    pipe: Connection
    log: Path
    since: float = field(default_factory=monotonic)


class Processes:
    """``jobs`` cells side by side; a timed one alone."""

    def __init__(self, jobs: int, device: str, memory: int | None) -> None:
        """``memory``: bytes that this machine has; None: unknown, and nothing waits for it."""
        self.jobs, self._memory = jobs, memory
        self._running: list[_Running] = []
        self._forks = sys.platform == "linux" and device == "cpu"
        if self._forks:
            multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOAD])
        self._logs = tempfile.TemporaryDirectory(prefix="llm-design-bench-")

    def has_room_for(self, task: Task) -> bool:
        if not self._running:
            return True
        if task.cell.timed or any(each.task.cell.timed for each in self._running):
            return False
        taken = sum(each.task.cell.memory for each in self._running) + task.cell.memory
        fits = self._memory is None or taken <= self._memory * (1 - SPARE)
        return fits and len(self._running) < self.jobs

    def start(self, task: Task) -> None:
        ours, theirs = multiprocessing.Pipe()
        log = Path(self._logs.name) / f"{id(task)}"
        # What takes times has a process that nobody prepared, as a user's program has.
        own = task.cell.timed or not self._forks
        context: Any = multiprocessing.get_context("spawn" if own else "forkserver")
        process = context.Process(target=_work, args=(theirs, log, task.order))
        with _environment({} if task.cell.timed else dict.fromkeys(THREADS, "1")):
            process.start()
        theirs.close()
        self._running.append(_Running(task, process, ours, log))

    def ended(self, within: float) -> Sequence[Ended]:
        if not self._running:
            return []
        wait([each.pipe for each in self._running], within)
        found = []
        for each in list(self._running):
            if each.pipe.poll():
                self._running.remove(each)
                found.append(self._end_of(each))
        return found

    def _end_of(self, each: _Running) -> Ended:
        try:
            answer = each.pipe.recv()
        except (EOFError, OSError):  # it died before it answered
            each.process.join()
            code = each.process.exitcode
            how = f"exit status {code}" if code >= 0 else f"signal {-code}"
            told = f"its process ended with {how}; the system may have had too little memory"
            answer = Answer("failed", told, monotonic() - each.since, each.task.threads)
        each.pipe.close()
        each.process.join()
        log = each.log.read_text("utf-8", "replace") if each.log.exists() else ""
        each.log.unlink(missing_ok=True)
        return Ended(each.task, replace(answer, log=f"{log}{answer.log}"))

    def close(self) -> None:
        for each in self._running:
            each.pipe.close()  # which ends it with all its children
        for each in self._running:
            each.process.join(1)
            if each.process.is_alive():
                each.process.kill()
        self._running = []
        self._logs.cleanup()


def _work(pipe: Connection, log: Path, order: Order) -> None:
    """In the cell's process: measure, answer, and end as soon as nobody waits for the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setsid"):
        os.setsid()  # so that its children can be ended with it
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    with printing_into(log):
        answer = measure_cell(order)
    pipe.send(answer)


def _end_with(pipe: Connection) -> None:
    """Wait for the other end of ``pipe`` to close, as it does whatever ends its process."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
