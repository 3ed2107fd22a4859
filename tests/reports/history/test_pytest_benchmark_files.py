"""pytest-benchmark's files: read as it writes them, and what is amiss is told in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reference_model.errors import UserError
from reports.history.pytest_benchmark_files import are_in, as_run, read_results
from reports.history.result_files import Benchmark, Damaged
from reports.history.series import read_history
from reports.history.view import history_view, name, steps_of
from tests.reports.history.small_history import STEP, with_another

pytestmark = pytest.mark.K8

MACHINE = "Linux-CPython-3.12-64bit"
RUN: dict[str, Any] = {
    "machine_info": {
        "node": "runner-1",
        "processor": "x86_64",
        "machine": "x86_64",
        "python_implementation": "CPython",
        "python_version": "3.12.1",
        "release": "6.1",
        "system": "Linux",
        "cpu": {"brand_raw": "A processor"},
    },
    "commit_info": {"id": "a" * 40, "dirty": False},
    "benchmarks": [
        {
            "fullname": "tests/test_add.py::TestOf::test_add[1-b[2]]",
            "params": {"n": 1, "x": "b[2]"},
            "param": "1-b[2]",
            "stats": {"min": 1e-3, "median": 2e-3, "mean": 3e-3},
        },
        {
            "fullname": "tests/test_add.py::test_plain",
            "params": None,
            "param": None,
            "stats": {"median": 5},
        },
    ],
    "version": "5.2.3",
}
changed = partial(with_another, RUN)


def write(folder: Path, number: int, commit: str, seconds: float, node: str = "runner-1") -> None:
    content = changed("commit_info", "id", to=commit)
    content["benchmarks"][1]["stats"]["median"] = seconds
    content["machine_info"]["node"] = node
    path = folder / MACHINE / f"{number:04}_{commit}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_benchmark_has_its_file_its_parameters_and_the_median_second() -> None:
    suite: dict[str, Benchmark] = {}
    run = as_run(RUN, suite)
    of_class, plain = suite.values()
    assert of_class.name == "tests/test_add.py::TestOf::test_add"
    assert of_class.title == "TestOf::test_add"
    assert (plain.file, plain.title, plain.unit) == ("tests/test_add.py", "test_plain", "seconds")
    assert run.measured[of_class.name].combinations == [("1-b[2]",)]
    assert run.measured[of_class.name].values == [2e-3]
    assert run.measured[plain.name].combinations == [()]
    assert run.facts["cpu"] == "A processor"
    assert run.facts["python"] == "CPython 3.12.1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed("benchmarks"), "it lacks benchmarks"),
        (changed("commit_info", "id", to="unversioned"), "of no commit of git (unversioned)"),
        (changed("commit_info", "dirty", to=True), "measured with uncommitted changes"),
        (changed("benchmarks", to={"a": 1}), "benchmarks that are no list"),
        (changed("benchmarks", 0, to=[1]), "a benchmark that is no object"),
        (changed("benchmarks", 1, "fullname", to=7), "fullname that is no text"),
        (changed("benchmarks", 1, "stats", to=[1]), "stats that is no object"),
        (
            changed("benchmarks", 1, "stats", "median", to="1"),
            "median that holds a text instead",
        ),
        (changed("machine_info", to=["x"]), "machine_info that is no object"),
    ],
)
def test_what_is_amiss_is_named(content: dict[str, Any], reason: str) -> None:
    with pytest.raises(Damaged) as raised:
        as_run(content, {})
    assert str(raised.value).startswith(reason)


def test_a_benchmark_that_has_no_number_failed() -> None:
    run = as_run(changed("benchmarks", 1, "stats", "median"), {})
    assert run.measured["tests/test_add.py::test_plain"].values == [None]


def test_a_folder_of_them_becomes_series_with_their_steps(
    tmp_path: Path, repository: Path, hashes: list[str]
) -> None:
    for number, (commit, seconds) in enumerate(zip(hashes, STEP, strict=False), 1):
        write(tmp_path, number, commit, seconds, node=f"runner-{number}")
    write(tmp_path, 99, hashes[0], STEP[0])  # measured once more, and later
    (tmp_path / MACHINE / "0100_broken.json").write_text("{")
    assert are_in(tmp_path)
    history = read_history(tmp_path, repository)
    (setting,) = history.settings  # runners of one kind are one machine
    assert setting.machine == MACHINE
    of_class, plain = setting.series
    assert name(of_class) == "tests/test_add.py::TestOf::test_add[1-b[2]]"
    assert name(plain) == "tests/test_add.py::test_plain"
    (step,) = steps_of(plain)
    assert (step.at, step.after) == (6, pytest.approx(1.3e-3))
    reasons = dict(history.skipped_files)
    assert reasons[f"{MACHINE}/0001_{hashes[0]}.json"] == (
        "a second file of its commit and environment"
    )
    assert reasons[f"{MACHINE}/0100_broken.json"].startswith("no JSON")
    view = history_view(history)
    assert [file["file"] for file in view["settings"][0]["files"]] == ["tests/test_add.py"]


def test_other_processors_are_other_machines(
    tmp_path: Path, repository: Path, hashes: list[str]
) -> None:
    write(tmp_path, 1, hashes[0], 1.0)
    other = changed("machine_info", "cpu", "brand_raw", to="Another")
    other["commit_info"]["id"] = hashes[1]
    (tmp_path / MACHINE / "0002.json").write_text(json.dumps(other))
    settings = read_history(tmp_path, repository).settings
    assert sorted(each.facts["cpu"] for each in settings) == ["A processor", "Another"]


def test_a_folder_without_either_says_so(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert not are_in(tmp_path)
    with pytest.raises(UserError, match=r"no folder of asv's results .* nor of pytest-benchmark's"):
        read_history(tmp_path, repository)


def test_what_pytest_benchmark_itself_stores_is_read(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=N", "-c", "user.email=n@example.org", "-C", str(tmp_path)]
    test = "import pytest\n\n@pytest.mark.parametrize('n', [1, 2])\n"
    test += "def test_sum(benchmark, n):\n    benchmark(sum, range(n))\n"
    (tmp_path / "test_it.py").write_text(test)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "One"]):
        subprocess.run([*git, *arguments], check=True)
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-autosave", "test_it.py"]
    quick = ["--benchmark-max-time=0.001", "--benchmark-min-rounds=2", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *quick],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    results = read_results(tmp_path / ".benchmarks")
    ((_, run),) = results.runs
    assert results.skipped == []
    (measured,) = run.measured.values()
    assert measured.combinations == [("1",), ("2",)]
    assert all(value is not None and 0 < value < 1 for value in measured.values)
    (setting,) = read_history(tmp_path / ".benchmarks", tmp_path).settings
    assert [name(series) for series in setting.series] == [
        "test_it.py::test_sum[1]",
        "test_it.py::test_sum[2]",
    ]
