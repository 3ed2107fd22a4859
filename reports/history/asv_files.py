"""asv's files of results, bounded and checked before anything is made of them.

Of format 2, as asv 0.6.6 writes and reads it (asv/results.py and asv/benchmarks.py):
``benchmarks.json`` describes the suite, ``MACHINE/COMMIT-ENVIRONMENT.json`` holds what one run
measured. Whatever is wrong with one of them is `Damaged`, so that its reader can pass it over.
``machine.json`` is not read: each run repeats what it says.

The standard library alone: the job that may push the results has nothing else.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

SUITE, MACHINE = "benchmarks.json", "machine.json"
FORMAT = 2
MOST_BYTES = 16_000_000  # of a file; the largest known, pandas', have a tenth of it
MOST_VALUES = 100_000  # of a run: lists of parameters multiply, and a few bytes name billions
LARGEST_NUMBER = 1e300  # what is drawn needs room above it
LONGEST_REASON = 200  # characters
KINDS = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}

Values = dict[str, Any]


class Damaged(Exception):
    """Why a file cannot be used, in one short line; in brackets what differs from file to file."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split())[:LONGEST_REASON])


@dataclass(frozen=True)
class Benchmark:
    """What today's suite says of one."""

    name: str
    version: Any
    unit: str
    parameter_names: list[str]


@dataclass(frozen=True)
class Measured:
    """What one benchmark gave in one run: beside each combination of its parameters a value.

    None is a failure, NaN what was skipped: so asv stores them. Intervals are its ``ci_99``.
    """

    version: Any
    combinations: list[tuple[str, ...]]
    values: list[float | None]
    intervals: list[tuple[float, float] | None]


@dataclass(frozen=True)
class Run:
    commit: str
    machine: str
    facts: dict[str, str]  # of the machine, its packages and variables
    measured: dict[str, Measured]


def json_files(folder: Path) -> Iterator[Path]:
    """All that is called *.json in ``folder`` and in the folders in it, ordered by name.

    Links to folders are among them, so that they are named as damaged, and are not entered.
    """
    for entry in _listed(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from (Path(e.path) for e in _listed(Path(entry)) if e.name.endswith(".json"))
        elif entry.name.endswith(".json") or (entry.is_symlink() and entry.is_dir()):
            yield Path(entry)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def read_bytes(path: Path) -> bytes:
    """Of a plain file. Links, FIFOs and devices are `Damaged` without being opened."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise Damaged("a link, which is not followed")
        if not stat.S_ISREG(found.st_mode):
            is_folder = stat.S_ISDIR(found.st_mode)
            raise Damaged("a folder" if is_folder else "a FIFO or device, and no file")
        if found.st_size > MOST_BYTES:
            raise Damaged(f"larger than {MOST_BYTES // 10**6} MB")
        with path.open("rb") as file:
            return file.read(found.st_size)
    except OSError as error:
        raise Damaged(f"not readable ({error.strerror})") from None


def parse(content: bytes) -> Values:
    """The object that ``content`` holds as JSON, with asv's NaN and Infinity."""
    try:
        document = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise Damaged(f"no JSON ({error})") from None
    except UnicodeDecodeError:
        raise Damaged("no UTF-8") from None
    except ValueError:  # Python's own limit
        raise Damaged("it holds a number of thousands of digits") from None
    except RecursionError:
        raise Damaged("nested too deeply") from None
    if not isinstance(document, dict):
        raise Damaged("no object of JSON")
    return document


def read_suite(folder: Path) -> tuple[dict[str, Benchmark], list[tuple[str, str]]]:
    """Today's benchmarks by name; what is not understood, and why. `Damaged` if nothing is."""
    found: dict[str, Benchmark] = {}
    skipped: list[tuple[str, str]] = []
    described = parse(read_bytes(folder / SUITE))
    _check_format(described)
    for key, value in described.items():
        if key == "version":
            continue
        try:
            benchmark = _benchmark(value)
        except Damaged as error:
            skipped.append((f"{SUITE}, {key}", str(error)))
        else:
            found[benchmark.name] = benchmark
    if not found:
        raise Damaged("it describes no benchmark")
    return found, skipped


def read_run(path: Path) -> Run:
    """What ``path``, in the folder of its machine, holds."""
    run = as_run(parse(read_bytes(path)))
    if run.machine != path.parent.name:
        raise Damaged("of another machine than its folder")
    return run


def as_run(content: Values) -> Run:
    """A file's content with everything checked that is used of it; `Damaged` where it is amiss."""
    _check_format(content)
    # These are all that asv asks for; what is not used may be anything.
    asked = ("params", "requirements", "date", "python", "env_name", "commit_hash")
    missing = [key for key in (*asked, "results", "result_columns") if key not in content]
    if missing:
        raise Damaged(f"it lacks {missing[0]}")
    facts = {**_object(content, "params"), **_object({"env_vars": {}, **content}, "env_vars")}
    columns = {name: at for at, name in enumerate(_texts(content, "result_columns"))}
    if "result" not in columns:
        raise Damaged("no column of results")
    measured, room = {}, MOST_VALUES
    for name, cells in _object(content, "results").items():
        if not isinstance(cells, list):
            raise Damaged(f"a row that is no list ({name})")
        row = {column: cells[at] for column, at in columns.items() if at < len(cells)}
        try:
            measured[name] = _measured(row, room)
        except Damaged as error:
            raise Damaged(f"{error} ({name})") from None
        room -= max(1, len(measured[name].values))
    return Run(
        _text(content, "commit_hash"),
        _text(facts, "machine"),
        {key: str(facts[key]) for key in sorted(facts) if key != "machine"},
        measured,
    )


def _check_format(content: Values) -> None:
    version = content.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise Damaged("no version of its format")
    if version < FORMAT:
        raise Damaged(f"stored in asv's old format {version}; run asv update on a copy of all")
    if version > FORMAT:
        raise Damaged("stored in a newer format of asv than 2; update llm-design-bench")


def _benchmark(described: Any) -> Benchmark:
    if not isinstance(described, dict):
        raise Damaged("no description of a benchmark")
    return Benchmark(
        _text(described, "name"),
        described.get("version"),
        _text(described, "unit"),
        _texts(described, "param_names"),
    )


def _measured(row: Values, room: int) -> Measured:
    """``room``: as many values at most."""
    lists = row.get("params") or []
    if not (isinstance(lists, list) and all(isinstance(each, list) for each in lists)):
        raise Damaged("parameters that are no lists")
    number = math.prod(map(len, lists))
    if max(1, number) > room:
        raise Damaged(f"more than {MOST_VALUES:,} values")
    given = row.get("result")
    values = _numbers([None] * number if given is None else given, "result")
    if len(values) != number:
        raise Damaged("values and parameters of different number")
    started = row.get("started_at")
    if started is not None:
        _numbers([started], "started_at")
    # Absent or short where asv knew none; without end where its runs were too few.
    ends = (_numbers(row.get(f"stats_ci_99_{end}") or [], "ci_99") for end in "ab")
    intervals = [
        None if a is None or b is None or not math.isfinite(b - a) else (a, b)
        for a, b in zip(*ends, strict=False)
    ]
    return Measured(
        row.get("version"),
        [tuple(map(str, combination)) for combination in product(*lists)],
        values,
        (intervals + [None] * number)[:number],
    )


def _numbers(values: Any, what: str) -> list[float | None]:
    if not isinstance(values, list):
        raise Damaged(f"{what} that is no list")
    for value in values:
        if value is None or (type(value) is float and -LARGEST_NUMBER <= value <= LARGEST_NUMBER):
            continue
        if type(value) not in (int, float):
            raise Damaged(f"{what} that holds {KINDS[type(value)]} instead of a number")
        if LARGEST_NUMBER < abs(value) < math.inf:
            raise Damaged(f"{what} beyond {LARGEST_NUMBER:g}")
    return [None if value is None else float(value) for value in values]


def _object(content: Values, key: str) -> Values:
    value = content[key]
    if not isinstance(value, dict):
        raise Damaged(f"{key} that is no object")
    return value


def _text(content: Values, key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise Damaged(f"{key} that is no text")
    return value


def _texts(content: Values, key: str) -> list[str]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Damaged(f"{key} that is no list of texts")
    return value
