"""A real cluster of this machine: the same numbers, and a lost worker costs its own cell alone."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.executors.executor import Executor
from benchmarks.executors.processes import Processes
from benchmarks.executors.ray_cluster import RayCluster
from benchmarks.experiments.experiment import Settings
from benchmarks.instruments.environment import run_stamp
from benchmarks.judging.claims import load_claims
from benchmarks.record.store import Record
from benchmarks.running.assembling import results_of
from benchmarks.running.plan import plan
from benchmarks.running.runner import Rules, State, failures, measure
from tests.benchmarks import small_experiments as small

SETTINGS = Settings("smoke", "cpu", 5)
MODULE = Path(small.__file__).resolve()

ray = pytest.importorskip("ray")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was measured, a line each; workers have its name from their environment."""
    monkeypatch.setenv("SMALL_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def run(folder: Path, executor: Executor, experiments: list) -> tuple[State, dict[str, Any]]:
    stamp = run_stamp(SETTINGS)
    planned = plan(SETTINGS, load_claims(), load_claims(), experiments, stamp)
    record = Record(folder / f"{type(executor).__name__}.sqlite")
    state = measure(planned, record, executor, Rules(), stamp, jobs=2)
    assert len(state.lines) == sum(len(each.cells) for each in planned)
    return state, {
        "failures": dict(failures(planned, state)),
        "measurements": results_of(planned, state, SETTINGS, stamp)["measurements"],
    }


@pytest.fixture
def cluster(request: pytest.FixtureRequest, log: Path) -> Iterator[Callable[[int], RayCluster]]:
    yield lambda workers: RayCluster(None, workers, [MODULE])
    ray.shutdown()


def test_the_numbers_are_those_of_one_process_and_an_error_is_its_cells(
    cluster: Callable[[int], RayCluster], log: Path, tmp_path: Path
) -> None:
    _, here = run(tmp_path, Processes(1, "cpu", None), [small.grid, small.failing])
    log.unlink()
    state, there = run(tmp_path, cluster(2), [small.grid, small.failing])
    assert there == here
    assert there["failures"] == {small.FAILING: "Unspeakable: this and that"}
    assert Counter(log.read_text().split("\n"))["cell 0"] == 1
    commits = {line.environment["commit"] for line in state.lines.values()}
    assert commits == {run_stamp(SETTINGS)["commit"]}  # which no worker knows


def test_a_lost_worker_costs_its_own_cell_alone(
    cluster: Callable[[int], RayCluster],
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe = tmp_path / "wait"
    os.mkfifo(pipe)
    monkeypatch.setenv("SMALL_WAIT", str(pipe))  # of the third cell, for a worker that is killed
    executor = cluster(4)
    started = executor.ended

    def kill_the_one_that_waits(within: float) -> Any:
        if pipe.exists() and log.exists() and "waits " in log.read_text():
            os.kill(int(log.read_text().rpartition("waits ")[2].split()[0]), signal.SIGKILL)
            pipe.unlink()
        return started(within)

    monkeypatch.setattr(executor, "ended", kill_the_one_that_waits)
    _, there = run(tmp_path, executor, [small.grid, small.timed])
    measured = Counter(line for line in log.read_text().splitlines() if "waits" not in line)
    assert measured == {"timed": 1, "cell 2": 2} | {
        f"cell {index}": 1 for index in range(small.CELLS) if index != 2
    }
    assert "lost its process, and is measured again" in capsys.readouterr().err
    monkeypatch.delenv("SMALL_WAIT")
    _, here = run(tmp_path, Processes(2, "cpu", None), [small.grid, small.timed])
    assert there["failures"] == here["failures"] == {}
    of_grid = [
        [m for m in found["measurements"] if m["claim"] == small.GRID] for found in (here, there)
    ]
    assert of_grid[0] == of_grid[1]
