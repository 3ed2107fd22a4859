"""Cells in processes of their own: side by side, alone, failed, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.executors.executor import Ended, Task
from benchmarks.executors.processes import Processes
from benchmarks.experiments.experiment import GIGABYTE, Cell, Experiment, Settings
from tests.benchmarks import small_experiments as small

SETTINGS = Settings("smoke", "cpu", 3)


def tasks_of(each: Experiment, threads: int = 1) -> list[Task]:
    return [Task(each, cell, SETTINGS, threads, 0.1) for cell in each.cells(SETTINGS)]


@pytest.fixture
def processes() -> Iterator[Processes]:
    executor = Processes(2, "cpu", None)
    yield executor
    executor.close()


def all_ended(executor: Processes, tasks: list[Task]) -> list[Ended]:
    waiting, found = list(tasks), []
    while waiting or len(found) < len(tasks):
        while waiting and executor.has_room_for(waiting[0]):
            executor.start(waiting.pop(0))
        found += executor.ended(60)
    return sorted(found, key=lambda end: tasks.index(end.task))


def test_a_cell_has_the_seed_of_the_run_the_threads_of_its_task_and_a_log(
    processes: Processes,
) -> None:
    first, second = all_ended(processes, tasks_of(small.grid)[:2])
    assert (first.answer.kind, second.answer.kind) == ("done", "done")
    assert first.answer.found == [*small.drawn(SETTINGS, 0)[:1], 1]
    assert second.answer.found != first.answer.found
    assert "drawing 0" in first.answer.log
    assert 0 < first.answer.seconds < 60


def test_an_error_that_cannot_be_unpickled_is_that_cells_error(processes: Processes) -> None:
    (end,) = all_ended(processes, tasks_of(small.failing))
    assert (end.answer.kind, end.answer.found) == ("failed", "Unspeakable: this and that")
    assert "small_experiments.py" in end.answer.log


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_cell_is_a_failed_one_and_the_others_go_on(processes: Processes) -> None:
    killed, *others = all_ended(processes, [*tasks_of(small.ended), *tasks_of(small.grid)[:3]])
    assert killed.answer.kind == "failed"
    assert killed.answer.found.startswith("its process ended with signal 9")
    assert [end.answer.kind for end in others] == ["done"] * 3


def test_a_timed_cell_runs_alone_and_with_the_threads_of_the_machine(
    processes: Processes,
) -> None:
    (timed,), (plain, *_) = tasks_of(small.timed, threads=2), tasks_of(small.grid)
    assert processes.has_room_for(timed)
    processes.start(plain)
    assert not processes.has_room_for(timed)
    while not processes.ended(60):
        pass
    processes.start(timed)
    assert not processes.has_room_for(plain)
    (end,) = processes.ended(60)
    assert end.answer.found[0]["value"] == 2


def test_a_cell_that_does_not_fit_into_the_memory_waits() -> None:
    large = Task(small.grid, Cell({"index": 0}, memory=3 * GIGABYTE), SETTINGS, 1, 0.1)
    executor = Processes(2, "cpu", 4 * GIGABYTE)
    assert executor.has_room_for(large)  # alone it runs, whatever it needs
    executor.start(large)
    assert not executor.has_room_for(large)
    small_one = Task(small.grid, Cell({"index": 1}, memory=GIGABYTE // 4), SETTINGS, 1, 0.1)
    assert executor.has_room_for(small_one)
    executor.close()


PROGRAM = """
import os, subprocess, sys
from benchmarks.executors.executor import Task
from benchmarks.executors.processes import Processes
from benchmarks.experiments.experiment import Cell, Experiment, Settings

def wait(settings):
    pipe = os.open(sys.argv[1], os.O_WRONLY)
    sleep = "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", sleep], pass_fds=[pipe])
    os.write(pipe, b"both live")
    child.wait()

each = Experiment("tying.quality", "driver", wait, lambda _: [Cell()], lambda *_: [], {})
if __name__ == "__main__":
    executor = Processes(1, "cpu", None)
    executor.start(Task(each, Cell(), Settings("smoke", "cpu", 0), 1, 1.0))
    executor.ended(600)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_killed_driver_takes_its_cells_and_their_children_with_it(
    tmp_path: Path, root: Path
) -> None:
    program, pipe = tmp_path / "driver.py", tmp_path / "pipe"
    program.write_text(PROGRAM)
    os.mkfifo(pipe)
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    driver = subprocess.Popen([sys.executable, program, pipe], env=environment)
    with pipe.open("rb") as reading:
        assert reading.read(9) == b"both live"
        driver.kill()
        driver.wait()
        assert reading.read() == b""  # which comes once nobody has it open any more
