"""Results as series: one value a commit, of one machine, environment, benchmark, parameters.

Whatever is not a number stays a gap that says why: failed, skipped, not measured. It is never 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.data.git import git
from benchmarks.gate_suite import Exactness
from reference_model.errors import UserError
from reports.history import asv_files, pytest_benchmark_files
from reports.history.result_files import Benchmark, Damaged, Measured, Results

State = Literal["measured", "failed", "skipped", "not measured"]
# What differs between two starts of the same machine, or with an update of its kernel.
NOISY: Mapping[str, Exactness] = {}
PASSING = ("os", "ram", "node", "release")


@dataclass(frozen=True)
class Commit:
    hash: str
    date: str  # ISO 8601, of the day
    subject: str
    place: int  # in the line of first parents, the oldest 0


@dataclass(frozen=True)
class Point:
    """What one commit gave. ``interval``: asv's, of 99 %, of the runs in its one process."""

    state: State
    value: float | None = None
    interval: tuple[float, float] | None = None


FAILED, SKIPPED, NOT_MEASURED = Point("failed"), Point("skipped"), Point("not measured")
Values = dict[tuple[str, ...], Point]  # by the values of the parameters, as asv spells them


@dataclass
class Series:
    """``points`` stand beside the commits of the setting, the oldest first."""

    benchmark: Benchmark
    parameters: tuple[tuple[str, str], ...]  # name, value
    exactness: Exactness | None  # None: noisy
    points: list[Point]

    @property
    def measured(self) -> list[tuple[int, float]]:
        """Place in ``points`` and value."""
        return [(at, p.value) for at, p in enumerate(self.points) if p.value is not None]

    def count(self, state: State) -> int:
        return sum(point.state == state for point in self.points)


@dataclass
class Setting:
    """One machine and environment: only within one are values compared."""

    machine: str
    facts: dict[str, str]
    commits: list[Commit] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)


@dataclass
class History:
    settings: list[Setting]
    skipped_files: list[tuple[str, str]]  # name within the folder, reason
    commits_elsewhere: int  # measured, but not on this line of first parents
    other_benchmarks: list[str]  # measured by a version of the suite that is not today's


def read_history(
    folder: Path, repository: Path, exactness: Mapping[str, Exactness] = NOISY
) -> History:
    """``folder``: results of asv or pytest-benchmark. ``repository``: its first parents of HEAD
    order them. ``exactness``: of benchmarks that count; all others are noisy.

    A `UserError` where nothing can be shown, with what is in the way of most of the files.
    """
    results = _results(folder)
    suite, skipped = results.suite, results.skipped
    line = first_parents(repository)
    places = {commit.hash: commit.place for commit in line}
    elsewhere: set[str] = set()
    others: set[str] = set()
    groups: dict[tuple[str, ...], dict[str, dict[str, Values]]] = {}
    facts: dict[tuple[str, ...], dict[str, str]] = {}
    for name, run in results.runs:
        if run.commit not in places:
            elsewhere.add(run.commit)
            continue
        key = (run.machine, *(f"{k}={v}" for k, v in run.facts.items() if k not in PASSING))
        if run.commit in groups.setdefault(key, {}):
            skipped.append((name, "a second file of its commit and environment"))
            continue
        today = {
            benchmark: measured
            for benchmark, measured in run.measured.items()
            # As asv has it: what no version stands beside is of any.
            if benchmark in suite and measured.version in (None, suite[benchmark].version)
        }
        others |= run.measured.keys() - today.keys()
        groups[key][run.commit] = {name: _points(measured) for name, measured in today.items()}
        facts[key] = run.facts
    if not groups:
        raise UserError(_nothing_to_show(folder, skipped, len(elsewhere)))
    settings = [
        _setting(key[0], facts[key], groups[key], line, places, suite, exactness)
        for key in sorted(groups)
    ]
    return History(settings, skipped, len(elsewhere), sorted(others))


def _nothing_to_show(folder: Path, skipped: list[tuple[str, str]], elsewhere: int) -> str:
    """In one line, with the commonest reason and what to do."""
    if not skipped and not elsewhere:
        return f"{folder} has no results; run make history first"
    reasons = Counter(reason.partition(" (")[0] for _, reason in skipped)
    reason, count = reasons.most_common(1)[0] if reasons else ("", 0)
    if elsewhere >= count:
        return (
            f"{folder} has no result of HEAD or of its first parents, but of {elsewhere} other "
            f"commits ({len(skipped)} files not readable); name their repository by --repository"
        )
    return f"{folder} has no result that can be shown; {count} of {len(skipped)} files: {reason}"


def first_parents(repository: Path) -> list[Commit]:
    """Of HEAD, the oldest first."""
    log = ("--first-parent", "--reverse", "-z", "--format=%H%x1f%cs%x1f%s")
    lines = git(repository, "log", *log).split("\0")
    found = []
    for place, line in enumerate(filter(None, lines)):
        commit, date, subject = line.split("\x1f", 2)
        found.append(Commit(commit, date, subject, place))
    return found


def _results(folder: Path) -> Results:
    """By the first importer that knows the folder."""
    if pytest_benchmark_files.are_in(folder):
        return pytest_benchmark_files.read_results(folder)
    try:
        return asv_files.read_results(folder)
    except Damaged as error:
        advice = "" if "asv update" in str(error) else "; run make history first"
        raise UserError(
            f"{folder} is no folder of asv's results ({asv_files.SUITE}: {error}) nor of "
            f"pytest-benchmark's{advice}"
        ) from None


def _points(measured: Measured) -> Values:
    """The parameters are those of the run: another profile's stand in the suite."""
    return {
        combination: _point(value, interval)
        for combination, value, interval in zip(
            measured.combinations, measured.values, measured.intervals, strict=True
        )
    }


def _point(value: float | None, interval: tuple[float, float] | None) -> Point:
    if value is None or math.isinf(value):
        return FAILED
    return SKIPPED if math.isnan(value) else Point("measured", value, interval)


def _setting(
    machine: str,
    facts: dict[str, str],
    values: Mapping[str, Mapping[str, Values]],
    line: list[Commit],
    places: Mapping[str, int],
    suite: Mapping[str, Benchmark],
    exactness: Mapping[str, Exactness],
) -> Setting:
    measured = sorted(places[commit] for commit in values)
    commits = line[measured[0] : measured[-1] + 1]
    points: dict[tuple[str, tuple[str, ...]], list[Point]] = {}
    for at, commit in enumerate(commits):
        for name, found in sorted(values.get(commit.hash, {}).items()):
            for parameters, point in found.items():
                if (name, parameters) not in points:
                    points[name, parameters] = [NOT_MEASURED] * len(commits)
                points[name, parameters][at] = point
    series = [
        Series(
            suite[name],
            tuple(zip(_names(suite[name], parameters), parameters, strict=True)),
            exactness.get(name),
            points[name, parameters],
        )
        for name, parameters in sorted(points, key=lambda key: key[0])
    ]
    return Setting(machine, facts, commits, series)


def _names(benchmark: Benchmark, parameters: tuple[str, ...]) -> list[str]:
    """A run of an older suite may have had another number of them."""
    known = benchmark.parameter_names
    return (known + ["parameter"] * len(parameters))[: len(parameters)]
