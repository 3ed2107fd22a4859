"""python -m tests.reports.history.big_history FOLDER: a made-up history as large as real ones are.

FOLDER/repository has empty commits, FOLDER/results what asv would have stored of them. The same
seed makes the same files. Shapes: `django`, as large as the public history of that project in
November 2026, 4,675 files of 1,772 commits with 543 series; `dense`, as many of each, where nearly
every commit has a value of every series; `small`, for the tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

RUNS = 10  # samples of each value, whose two largest and smallest are asv's interval of 99 %
COLUMNS = [
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b",
    "stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile",
]  # fmt: skip


class Part(NamedTuple):
    """One machine and environment: so many files from a commit on, and so many series."""

    machine: str
    python: str
    first: int
    files: int
    series: int


SHAPES = {
    "django": [
        Part("ubuntu-latest", "3.8", 81, 759, 53),
        Part("ubuntu-latest", "3.9", 81, 759, 53),
        Part("ubuntu-latest", "3.10", 81, 960, 59),
        Part("ubuntu-latest", "3.11", 840, 201, 59),
        Part("ubuntu-latest", "3.12", 870, 902, 62),
        Part("ubuntu-latest", "3.13", 1014, 758, 62),
        *(Part("ubuntu-22.04", python, 0, 81, 45) for python in ("3.8", "3.9", "3.10")),
        *(Part(name, "3.10.0", 0, 31, 20) for name in ("macos-12", "windows-2022", "ubuntu-20.04")),
    ],
    "dense": [
        Part("one", "3.12", 0, 1772, 181),
        Part("two", "3.12", 0, 1772, 181),
        Part("three", "3.12", 0, 1131, 181),
    ],
    "small": [Part("one", "3.12", 0, 950, 2), Part("two", "3.12", 300, 20, 7)],
}


def write(folder: Path, shape: str = "django", seed: int = 0) -> tuple[Path, Path]:
    """Folder of results, and repository."""
    parts, random = SHAPES[shape], np.random.default_rng(seed)
    results, repository = folder / "results", folder / "repository"
    results.mkdir(parents=True)
    hashes = _commits(repository, max(part.first + part.files for part in parts))
    names = [
        f"group_{n % 9}.Benchmark{n}.time_operation" for n in range(max(p.series for p in parts))
    ]
    suite: dict[str, Any] = {
        name: {
            "name": name, "version": "1", "unit": "seconds", "type": "time", "code": "pass",
            "params": [], "param_names": [], "timeout": 60,
        }
        for name in names
    }  # fmt: skip
    suite["version"] = 2
    (results / "benchmarks.json").write_text(json.dumps(suite))
    for part in parts:
        home = results / part.machine
        home.mkdir(exist_ok=True)
        (home / "machine.json").write_text(json.dumps({"machine": part.machine, "version": 1}))
        values = np.column_stack([_values(random, part.files) for _ in range(part.series)])
        if shape != "dense":
            values[_failures(random, values.shape)] = np.nan
        for at, row in enumerate(values):
            commit = hashes[part.first + at]
            content = {
                "commit_hash": commit, "env_name": f"py{part.python}", "date": 1000 * at,
                "params": {"machine": part.machine, "python": part.python},
                "python": part.python, "requirements": {}, "env_vars": {},
                "result_columns": COLUMNS, "durations": {}, "version": 2,
                "results": dict(zip(names, map(_row, row, _runs(random, row)), strict=False)),
            }  # fmt: skip
            path = home / f"{commit[:8]}-py{part.python}.json"
            path.write_text(json.dumps(content))
    return results, repository


def _values(random: Generator, n: int) -> NDArray[np.float64]:
    """Levels that change now and then, scattered by some percent, slow runs among them."""
    steps = random.random(n) < 1 / 400
    levels = 10 ** random.uniform(-6, 0) * np.exp(np.cumsum(steps * random.normal(0, 0.15, n)))
    slow = (random.random(n) < 0.05) * random.exponential(0.2, n)
    values = levels * np.exp(random.uniform(0.005, 0.05) * random.standard_normal(n) + slow)
    return np.asarray(values, dtype=np.float64)


def _failures(random: Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """One in a hundred; of a fifth of the series the oldest, and of a few the newest, too."""
    n, series = shape
    failed = random.random(shape) < 0.01
    for column in np.flatnonzero(random.random(series) < 0.2):
        failed[: random.integers(n), column] = True
    for column in np.flatnonzero(random.random(series) < 0.03):
        failed[-random.integers(1, 6) :, column] = True
    return failed


def _runs(random: Generator, values: NDArray[np.float64]) -> list[list[float]]:
    scatter = 1 + 0.02 * random.standard_normal((len(values), RUNS))
    return [[float(f"{run:.12g}") for run in row] for row in values[:, None] * scatter]


def _row(value: float, runs: list[float]) -> list[Any]:
    """As asv stores it: what failed has neither statistics nor samples."""
    if np.isnan(value):
        return [None, [], "1", 1_660_000_000_000, 2.3613]
    ordered = [float(f"{run:.5g}") for run in sorted(runs)]
    ends = [[ordered[0]], [ordered[-1]], [ordered[2]], [ordered[-3]]]
    return [[float(value)], [], "1", 1_660_000_000_000, 2.3613, *ends, [1], [RUNS], [runs]]


def _commits(folder: Path, n: int) -> list[str]:
    """Their hashes, the oldest first."""
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    stream = "".join(
        f"commit refs/heads/main\ncommitter N <n@example.org> {1_600_000_000 + 40_000 * at} +0000\n"
        f"data {len(message)}\n{message}\n"
        for at in range(n)
        for message in [f"Fixed #{20_000 + at} -- A message that is as long as they usually are."]
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream.encode(), check=True)
    listed = subprocess.run(
        ["git", "rev-list", "--reverse", "HEAD"], cwd=folder, capture_output=True, check=True
    )
    return listed.stdout.decode().split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), default="django")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for path in write(given.folder, given.shape, given.seed):
        print(path)


if __name__ == "__main__":
    main()
