"""asv's files of results.

Of format 2, as asv 0.6.6 writes and reads it (asv/results.py and asv/benchmarks.py):
``benchmarks.json`` describes the suite, ``MACHINE/COMMIT-ENVIRONMENT.json`` holds what one run
measured. ``machine.json`` is not read: each run repeats what it says.

The standard library alone: the job that may push the results has nothing else.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

from reports.history.result_files import (
    MOST_VALUES,
    Benchmark,
    Damaged,
    Measured,
    Results,
    Run,
    Values,
    json_files,
    numbers_of,
    object_of,
    parse,
    read_bytes,
    runs_of,
    text_of,
    texts_of,
)

SUITE, MACHINE = "benchmarks.json", "machine.json"
FORMAT = 2


def read_results(folder: Path) -> Results:
    """Of asv's folder of results; `Damaged` where it describes no suite."""
    suite, skipped = read_suite(folder)
    paths = (path for path in json_files(folder) if path.name not in (MACHINE, SUITE))
    return Results(suite, skipped, runs_of(folder, paths, read_run, skipped))


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
    facts = {**object_of(content, "params"), **object_of({"env_vars": {}, **content}, "env_vars")}
    columns = {name: at for at, name in enumerate(texts_of(content, "result_columns"))}
    if "result" not in columns:
        raise Damaged("no column of results")
    measured, room = {}, MOST_VALUES
    for name, cells in object_of(content, "results").items():
        if not isinstance(cells, list):
            raise Damaged(f"a row that is no list ({name})")
        row = {column: cells[at] for column, at in columns.items() if at < len(cells)}
        try:
            measured[name] = _measured(row, room)
        except Damaged as error:
            raise Damaged(f"{error} ({name})") from None
        room -= max(1, len(measured[name].values))
    return Run(
        text_of(content, "commit_hash"),
        text_of(facts, "machine"),
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
    file, _, title = (name := text_of(described, "name")).partition(".")
    return Benchmark(
        name,
        described.get("version"),
        text_of(described, "unit"),
        texts_of(described, "param_names"),
        file,
        title,
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
    values = numbers_of([None] * number if given is None else given, "result")
    if len(values) != number:
        raise Damaged("values and parameters of different number")
    started = row.get("started_at")
    if started is not None:
        numbers_of([started], "started_at")
    # Absent or short where asv knew none; without end where its runs were too few.
    ends = (numbers_of(row.get(f"stats_ci_99_{end}") or [], "ci_99") for end in "ab")
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
