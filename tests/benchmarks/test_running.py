"""A run: what it measures, what it keeps, and what its results say of what is not there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.experiments import catalogue
from benchmarks.experiments.experiment import Experiment, Settings
from benchmarks.instruments.environment import run_stamp
from benchmarks.judging.claims import load_claims
from benchmarks.record.results import read_results
from benchmarks.record.store import Record
from benchmarks.running import plan as planning
from benchmarks.running.ending import Ended, ending_is_raised
from benchmarks.running.progress import Progress, duration
from tests.benchmarks import small_experiments as small
from tests.benchmarks.inline import Inline
from tests.run_killed import heed_all

SETTINGS = Settings("smoke", "cpu", 0)


class Run:
    """`python -m benchmarks run` of some experiments in this process, with a record of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.record, self.out = folder / "cells.sqlite", folder / "results.json"
        self.log = folder / "log"
        monkeypatch.setenv("SMALL_LOG", str(self.log))
        self.executor = Inline()
        monkeypatch.setattr(command_line, "_executor", lambda *_: self.executor)

    def __call__(self, experiments: Sequence[Experiment], *arguments: str) -> int:
        self._patch.setattr(catalogue, "all_experiments", lambda: list(experiments))
        where = ["--record", str(self.record), "--out", str(self.out)]
        return command_line.main(["run", "--profile", "smoke", *where, *arguments])

    @property
    def measured(self) -> Counter[str]:
        """How often each cell was measured, and forget it."""
        found = Counter(self.log.read_text().splitlines() if self.log.exists() else [])
        self.log.unlink(missing_ok=True)
        return found

    def results(self) -> dict[str, Any]:
        return read_results(self.out)

    def claim(self, name: str) -> dict[str, Any]:
        return next(claim for claim in self.results()["claims"] if claim["id"] == name)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


CELLS = {f"cell {index}": 1 for index in range(small.CELLS)}


def test_what_is_in_the_record_is_not_measured_again_and_gives_the_same_results(run: Run) -> None:
    assert run(small.GOOD) == 0
    first = run.results()
    assert run.measured == CELLS | {"timed": 1}
    assert run(small.GOOD) == 0
    assert run.measured == {}
    second = run.results()
    assert second["measurements"] == first["measurements"]
    assert second["claims"] == first["claims"]
    assert second["environment"]["utc"] == first["environment"]["utc"]


RATES = {"rate 1, seed 7": 1, "rate 2, seed 7": 1, "rate 4, seed 7": 1}
AT_THE_BEST = {"rate 2, seed 0": 1, "rate 2, seed 1": 1}


def test_cells_that_follow_from_others_are_measured_after_them(run: Run) -> None:
    assert run([small.staged]) == 0
    assert run.measured == RATES | AT_THE_BEST
    assert len(run.results()["measurements"]) == 5
    assert run([small.staged]) == 0
    assert run.measured == {}
    where = ["--record", str(run.record), "--profile", "smoke", "--out", str(run.out)]
    assert command_line.main(["record", "results", *where]) == 0
    assert len(run.results()["measurements"]) == 5
    assert len(small.staged(SETTINGS)) == 5  # in this process


def test_cells_that_claims_share_are_measured_once(run: Run) -> None:
    assert run([small.staged, small.sharing]) == 0
    assert run.measured == RATES | AT_THE_BEST
    claims = Counter(each["claim"] for each in run.results()["measurements"])
    assert claims == {small.STAGED: 5, small.SHARING: 5}


def test_a_shard_leaves_what_follows_from_the_others_to_them(run: Run) -> None:
    for shard in ("1/2", "2/2", "1/2"):
        assert run([small.staged], "--shard", shard) == 0
    assert run([small.staged]) == 0
    assert run.measured == RATES | AT_THE_BEST


def test_fresh_measures_all_of_it_anew(run: Run) -> None:
    run(small.GOOD)
    assert run.measured
    assert run(small.GOOD, "--fresh") == 0
    assert run.measured == CELLS | {"timed": 1}


def test_cells_that_take_times_come_last_and_have_all_cores(run: Run) -> None:
    run(small.GOOD)
    names = [task.experiment.claim for task in run.executor.begun]
    assert names == [small.GRID] * small.CELLS + [small.TIMED]
    assert {task.threads for task in run.executor.begun[:-1]} == {1}
    assert run.executor.begun[-1].threads == run.results()["environment"]["threads"]


def test_a_failed_cell_is_kept_as_failed_told_and_tried_again(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run([small.grid, small.failing]) == 1
        assert run.measured["failing"] == 1
        told = capsys.readouterr().err.splitlines()
        assert told[-2] == f"error: {small.FAILING} failed: Unspeakable: this and that"
        assert told[-1].endswith(f"run the same command with --only {small.FAILING}")
    claim = run.claim(small.FAILING)
    assert (claim["verdict"], claim["because"]) == ("open", "Failed: Unspeakable: this and that.")
    assert len(run.results()["measurements"]) == small.CELLS


def test_the_results_of_an_unfinished_run_say_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([small.grid], "--shard", "1/2") == 0
    done = sum(run.measured.values())
    assert 0 < done < small.CELLS
    claim = run.claim(small.GRID)
    assert claim["verdict"] == "open"
    assert claim["because"] == f"Not finished: {done} of {small.CELLS} cells are done."
    assert run.results()["measurements"] == []


def test_the_shards_joined_are_the_whole(run: Run, tmp_path: Path) -> None:
    assert run([small.grid]) == 0
    whole = run.results()
    assert run.measured == CELLS
    parts = []
    for index in range(1, 4):
        run.record = tmp_path / f"{index}.sqlite"
        parts.append(str(run.record))
        run([small.grid], "--shard", f"{index}/3")
    assert run.measured == CELLS  # each of one shard
    joined = tmp_path / "joined.sqlite"
    assert command_line.main(["record", "merge", "--record", str(joined), *parts]) == 0
    out = tmp_path / "joined.json"
    what = ["--profile", "smoke", "--record", str(joined), "--out", str(out)]
    assert command_line.main(["record", "results", *what]) == 0
    assert read_results(out)["measurements"] == whole["measurements"]


def test_cells_of_other_code_are_measured_again_unless_they_are_accepted_and_then_marked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([small.grid])
    assert "stale" not in run.claim(small.GRID)
    assert run.measured == CELLS
    monkeypatch.setattr(planning, "code_digest", lambda module: "other code")
    assert run([small.grid], "--accept-code") == 0
    assert run.measured == {}
    assert run.claim(small.GRID)["stale"] is True
    assert run([small.grid]) == 0
    assert run.measured == CELLS
    assert "stale" not in run.claim(small.GRID)


def test_a_claim_measured_by_other_commits_names_them(run: Run) -> None:
    run([small.grid], "--shard", "1/2")
    record = Record(run.record)
    for line in list(record.lines()):
        record.forget([line.number])
        record.add(replace(line, environment={**line.environment, "commit": "c" * 40}))
    record.close()
    run([small.grid])
    commits = run.claim(small.GRID)["commits"]
    assert len(commits) == 2
    assert "c" * 40 in commits


def test_only_what_takes_times_is_bound_to_its_machine() -> None:
    stamp = run_stamp(SETTINGS)
    planned = planning.plan(SETTINGS, load_claims(), load_claims(), small.GOOD, stamp)
    keys = {key.claim: key for claim in planned for _, key in claim.cells}
    assert keys[small.GRID].machine == ""
    assert json.loads(keys[small.TIMED].machine)["cpu"] == stamp["cpu"]
    assert set(stamp["packages"]) < set(json.loads(keys[small.GRID].versions))
    assert re.fullmatch("reference [0-9a-f]{16}", keys[small.GRID].subject)


def test_people_see_what_is_in_the_record(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run([small.grid, small.failing])
    capsys.readouterr()
    where = ["--record", str(run.record)]
    assert command_line.main(["record", "list", *where]) == 0
    listed = capsys.readouterr().out
    assert re.search(rf"{small.GRID} +smoke .* {small.CELLS} +0 ", listed)
    assert re.search(rf"{small.FAILING} +smoke .* 0 +1 ", listed)
    assert command_line.main(["record", "show", *where, "--only", small.FAILING]) == 0
    assert "failed: Unspeakable: this and that" in capsys.readouterr().out
    assert command_line.main(["record", "prune", *where]) == 0
    assert capsys.readouterr().out == "1 lines deleted\n"
    absent = str(run.folder / "absent.sqlite")
    assert command_line.main(["record", "list", "--record", absent]) == 2
    assert not Path(absent).exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_is_one_of_so_many(run: Run, shard: str) -> None:
    assert run([small.grid], "--shard", shard) == 2
    assert run.measured == {}


def test_the_remaining_time_follows_what_the_cells_of_this_run_took() -> None:
    stamp = run_stamp(SETTINGS)
    planned = planning.plan(SETTINGS, load_claims(), load_claims(), [small.grid], stamp)
    tasks = [replace(task, expected=10.0) for c in planned for task, _ in c.cells]
    progress = Progress(tasks, jobs=2)
    assert progress.seconds_left == pytest.approx(40)
    progress.ended(tasks[0], 30.0)  # three times what was declared
    assert progress.seconds_left == pytest.approx(7 * 30 / 2)
    assert [duration(s) for s in (9.4, 70, 3700)] == ["9 s", "1 min 10 s", "1 h 01 min"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_ends_a_program_is_raised_where_it_is(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.default_int_handler)  # whatever runs the tests has set
    try:
        with pytest.raises((Ended, KeyboardInterrupt)) as ended, ending_is_raised():
            signal.raise_signal(number)
        assert isinstance(ended.value, KeyboardInterrupt) == (name == "SIGINT")
        assert getattr(ended.value, "status", 130) == 128 + number
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


# ---- in real processes


def program(root: Path, tmp_path: Path, *arguments: str, **variables: str) -> Any:
    record, out = str(tmp_path / "cells.sqlite"), str(tmp_path / "results.json")
    command = ["run", "--profile", "smoke", "--record", record, "--out", out, *arguments]
    log = {"SMALL_LOG": str(tmp_path / "log"), "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.small_experiments", *command],
        env={**os.environ, **log, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_all,
    )


def test_runs_at_once_into_one_record_measure_each_cell_once(root: Path, tmp_path: Path) -> None:
    runs = [program(root, tmp_path, "--jobs", "2") for _ in range(2)]
    told = [each.communicate()[1] for each in runs]
    assert [each.returncode for each in runs] == [0, 0], told
    measured = Counter((tmp_path / "log").read_text().splitlines())
    assert measured == CELLS | {"timed": 1}
    assert len(list(Record(tmp_path / "cells.sqlite").lines())) == small.CELLS + 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_an_ended_run_keeps_what_was_finished_and_goes_on_from_there(
    root: Path, tmp_path: Path, run: Run, name: str
) -> None:
    pipe, number = tmp_path / "wait", getattr(signal, name)
    os.mkfifo(pipe)
    first = program(root, tmp_path, "--jobs", "1", SMALL_WAIT=str(pipe))
    with pipe.open("wb"):  # opens once the third cell waits for it
        first.send_signal(number)
        told = first.communicate()[1]
    assert first.returncode == (-number if name == "SIGKILL" else 128 + number)
    assert ("error: interrupted; what was finished is kept" in told) == (name != "SIGKILL")
    kept = [line.key.parameters for line in Record(tmp_path / "cells.sqlite").lines()]
    assert kept == ['{"index": 0}', '{"index": 1}']
    assert run.measured
    assert run(small.GOOD) == 0
    assert run.measured == {"timed": 1} | {f"cell {i}": 1 for i in range(2, small.CELLS)}
