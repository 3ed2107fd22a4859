"""asv's results as series: one value a commit, of one machine, environment, benchmark, parameters.

Whatever is not a number stays a gap that says why: failed, skipped, not measured. It is never 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.results import Results
from asv.util import UserError as AsvError

from benchmarks.gate_suite import EXACT, EXACT_BUT_LONG, Exactness
from benchmarks.git import git
from reference_model.errors import UserError

State = Literal["measured", "failed", "skipped", "not measured"]
# What reading JSON of unknown shape can raise.
DAMAGE = (
    AsvError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
# What differs between two starts of the same machine, or with an update of its kernel.
PASSING = ("os", "ram")


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


NOT_MEASURED = Point("not measured")


@dataclass
class Series:
    """``points`` stand beside the commits of the setting, the oldest first."""

    benchmark: str
    parameters: tuple[tuple[str, str], ...]  # name, value
    unit: str
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


def read_history(folder: Path, repository: Path) -> History:
    """``folder``: asv's results. ``repository``: whose first parents of HEAD order them."""
    suite = _suite(folder)
    line = first_parents(repository)
    places = {commit.hash: commit.place for commit in line}
    skipped: list[tuple[str, str]] = []
    elsewhere: set[str] = set()
    others: set[str] = set()
    groups: dict[tuple[str, ...], dict[str, dict[str, dict[tuple[str, ...], Point]]]] = {}
    facts: dict[tuple[str, ...], dict[str, str]] = {}
    for path in _result_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            results = Results.load(str(path), machine_name=path.parent.name)
            own = _facts(results)
            values = dict(_values(results, suite))
            stale = set(results.get_all_result_keys()) - values.keys()
            commit = str(results.commit_hash)
        except DAMAGE as error:
            skipped.append((name, _reason(error, path)))
            continue
        if commit not in places:
            elsewhere.add(commit)
            continue
        key = (path.parent.name, *(f"{k}={v}" for k, v in own.items() if k not in PASSING))
        if commit in groups.setdefault(key, {}):
            skipped.append((name, "a second file of this commit and environment"))
            continue
        others |= stale
        groups[key][commit] = values
        facts[key] = own
    settings = [
        _setting(key[0], facts[key], groups[key], line, places, suite)
        for key in sorted(groups)
        if groups[key]
    ]
    return History(settings, skipped, len(elsewhere), sorted(others))


def first_parents(repository: Path) -> list[Commit]:
    """Of HEAD, the oldest first."""
    log = ("--first-parent", "--reverse", "-z", "--format=%H%x1f%cs%x1f%s")
    lines = git(repository, "log", *log).split("\0")
    found = []
    for place, line in enumerate(filter(None, lines)):
        commit, date, subject = line.split("\x1f", 2)
        found.append(Commit(commit, date, subject, place))
    return found


def _suite(folder: Path) -> dict[str, dict[str, Any]]:
    """Benchmark -> asv's description of it, as of the last run."""
    try:
        configuration = Config()
        configuration.results_dir = str(folder)
        found = Benchmarks.load(configuration)
        for name, benchmark in found.items():
            lists = [benchmark["param_names"], *benchmark["params"]]
            if not (isinstance(name, str) and all(isinstance(each, list) for each in lists)):
                raise TypeError(f"{name} is described in another way")
            json.dumps([benchmark["param_names"], benchmark["unit"], benchmark["version"]])
    except DAMAGE as error:
        reason = _reason(error, folder)
        raise UserError(
            f"{folder} is no folder of asv's results ({reason}); run make history first"
        ) from None
    return dict(found)


def _result_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*/*.json")):
        if path.name != "machine.json":
            yield path


def _facts(results: Any) -> dict[str, str]:
    """Machine, packages and variables of one run."""
    parts = [results.params, results.env_vars]
    if not all(isinstance(part, Mapping) for part in parts) or not results.commit_hash:
        raise TypeError("another shape than asv's")
    merged = {str(k): str(v) for part in parts for k, v in part.items()}
    return {k: merged[k] for k in sorted(merged) if k != "machine"}


def _values(
    results: Any, suite: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[tuple[str, ...], Point]]]:
    """Of each benchmark of today's suite: parameters, as asv spells them, and what they gave.

    The parameters are those of the run: another profile's stand in the suite.
    """
    for name in results.get_result_keys(suite):
        params = results.get_result_params(name) or []
        combinations = list(product(*params))
        given = results.get_result_value(name, params)
        stats = results.get_result_stats(name, params)
        yield (
            name,
            {
                tuple(str(p) for p in combination): _point(value, stat)
                for combination, value, stat in zip(combinations, given, stats, strict=True)
            },
        )


def _point(value: Any, stats: Any) -> Point:
    if value is None:
        return Point("failed")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    number = float(value)
    if math.isnan(number):
        return Point("skipped")
    if math.isinf(number):
        return Point("failed")
    low, high = (stats or {}).get("ci_99_a"), (stats or {}).get("ci_99_b")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Point("measured", number)
    return Point("measured", number, (float(low), float(high)))


def _setting(
    machine: str,
    facts: dict[str, str],
    values: Mapping[str, Mapping[str, Mapping[tuple[str, ...], Point]]],
    line: list[Commit],
    places: Mapping[str, int],
    suite: Mapping[str, dict[str, Any]],
) -> Setting:
    measured = sorted(places[commit] for commit in values)
    commits = line[measured[0] : measured[-1] + 1]
    keys = {
        (name, parameters): None
        for commit in commits
        for name, found in sorted(values.get(commit.hash, {}).items())
        for parameters in found
    }
    series = [
        Series(
            name,
            tuple(zip(_names(suite[name], parameters), parameters, strict=True)),
            str(suite[name]["unit"]),
            EXACT.get(name) or EXACT_BUT_LONG.get(name),
            [
                values.get(commit.hash, {}).get(name, {}).get(parameters, NOT_MEASURED)
                for commit in commits
            ],
        )
        for name, parameters in sorted(keys, key=lambda key: key[0])
    ]
    return Setting(machine, facts, commits, series)


def _names(benchmark: Mapping[str, Any], parameters: tuple[str, ...]) -> list[str]:
    """A run of an older suite may have had another number of them."""
    known = [str(name) for name in benchmark["param_names"]]
    return (known + ["parameter"] * len(parameters))[: len(parameters)]


def _reason(error: BaseException, path: Path) -> str:
    """In one line; asv's messages name the file in full, which the reader knows already."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error).replace(str(path.resolve()), path.name).replace(str(path), path.name)
    return (" ".join(text.split()) or type(error).__name__)[:200]
