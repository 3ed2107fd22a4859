"""`make history` has asv measure slice by slice: what a kill leaves, and where the next goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asv.machine import Machine

from reports.history import measure
from tests.benchmarks.test_asv_suite import SUITE

# The second file of a suite kills asv, whose child a benchmark is, when it is first measured.
SUITE_THAT_KILLS = {
    "bench_a.py": "def track_a():\n    return 1\n",
    "bench_b.py": "import os, pathlib, signal\n"
    "def track_b():\n"
    "    mark = pathlib.Path(os.environ['MARK'])\n"
    "    if not mark.exists():\n"
    "        mark.touch()\n"
    "        os.kill(os.getppid(), signal.SIGKILL)\n"
    "    return 2\n",
    "__init__.py": "",
}


def test_each_benchmark_is_in_one_slice() -> None:
    slices = measure.slices()
    for name in SUITE:  # asv searches in the name with the parameters
        found = [each for each in slices if re.search(each, f"{name}('bench_gate.x', bench_int8.)")]
        assert len(found) == 1
    assert all(any(re.search(each, name) for name in SUITE) for each in slices)


def test_a_killed_history_keeps_the_slices_that_were_finished_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"version": 1, "project": "p", "repo": ".", "environment_type": "virtualenv"}
    settings["benchmark_dir"] = "benchmarks/suite"
    (tmp_path / "asv.conf.json").write_text(json.dumps({**settings, "branches": ["main"]}))
    suite = tmp_path / "benchmarks" / "suite"
    suite.mkdir(parents=True)
    for name, text in SUITE_THAT_KILLS.items():
        (suite / name).write_text(text)
    machine = {**Machine.get_defaults(), "machine": "m"}
    (tmp_path / ".asv-machine.json").write_text(json.dumps({"m": machine, "version": 1}))
    commit = one_commit(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    words = ("run", "--machine", "m", "--skip-existing-successful", "--set-commit-hash", commit)
    words += ("--environment", f"existing:{sys.executable}")

    statuses = [measure._asv(*words, "--bench", each) for each in measure.slices()]
    assert statuses == [0, -signal.SIGKILL]
    kept = stored(tmp_path)
    assert {name: row["result"] for name, row in kept.items()} == {"bench_a.track_a": [1]}
    statuses = [measure._asv(*words, "--bench", each) for each in measure.slices()]
    assert statuses == [0, 0]
    both = stored(tmp_path)
    assert both.pop("bench_b.track_b")["result"] == [2]
    assert both == kept  # with the times at which they were measured: not again


def one_commit(folder: Path) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=N", "-c", "user.email=n@example.org"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "One"], check=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return told.stdout.strip()


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of a benchmark → what asv stored of it, by column."""
    (file,) = (folder / "results" / "m").glob("*-*.json")
    read = json.loads(file.read_text())
    columns = read["result_columns"]
    return {name: dict(zip(columns, row, strict=False)) for name, row in read["results"].items()}
