"""pytest-benchmark's files of results.

As its storage of versions 3 to 5 writes them: ``MACHINE/0001_COMMIT_TIME.json`` in a folder called
``.benchmarks``, or wherever ``--benchmark-json`` put one. A benchmark that failed or was skipped is
not in them. Of a benchmark's runs the median is taken, in seconds.
"""

from __future__ import annotations

import re
from dataclasses import replace
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
)

HASH = re.compile(r"[0-9a-f]{40}")
KEYS = ("machine_info", "commit_info", "benchmarks")
UNIT = "seconds"


def are_in(folder: Path) -> bool:
    """Whether the first file that can be read is one of these."""
    for path in json_files(folder):
        try:
            return all(key in parse(read_bytes(path)) for key in KEYS)
        except Damaged:
            continue
    return False


def read_results(folder: Path) -> Results:
    """Of all runs of a commit on one machine the newest, by its number, comes first."""
    suite: dict[str, Benchmark] = {}
    skipped: list[tuple[str, str]] = []

    def read(path: Path) -> Run:
        run = as_run(parse(read_bytes(path)), suite)
        return run if path.parent == folder else replace(run, machine=path.parent.name)

    paths = reversed([*json_files(folder)])
    return Results(suite, skipped, runs_of(folder, paths, read, skipped))


def as_run(content: Values, suite: dict[str, Benchmark]) -> Run:
    """What a file holds; its benchmarks are added to ``suite``. `Damaged` where it is amiss."""
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise Damaged(f"it lacks {missing[0]}")
    commit, machine = object_of(content, "commit_info"), object_of(content, "machine_info")
    if not HASH.fullmatch(text_of(commit, "id")):
        raise Damaged(f"of no commit of git ({commit['id']})")
    if commit.get("dirty"):
        raise Damaged("measured with uncommitted changes")
    rows = content["benchmarks"]
    if not isinstance(rows, list):
        raise Damaged("benchmarks that are no list")
    if len(rows) > MOST_VALUES:
        raise Damaged(f"more than {MOST_VALUES:,} values")
    measured: dict[str, Measured] = {}
    for row in rows:
        described, parameters, seconds = _row(row)
        suite.setdefault(described.name, described)
        of_name = measured.setdefault(described.name, Measured(None, [], [], []))
        of_name.combinations.append(parameters)
        of_name.values.append(seconds)
        of_name.intervals.append(None)
    facts = _facts(machine)
    return Run(commit["id"], facts["system"], facts, measured)


def _row(row: Any) -> tuple[Benchmark, tuple[str, ...], float | None]:
    """What is measured, its parameters as pytest names them, and the median second."""
    parameters: tuple[str, ...]
    if not isinstance(row, dict):
        raise Damaged("a benchmark that is no object")
    whole, parameters = text_of(row, "fullname"), ()
    given, name = row.get("param"), whole
    if isinstance(given, str) and whole.endswith(f"[{given}]"):
        name, parameters = whole.removesuffix(f"[{given}]"), (given,)
    file, _, title = name.partition("::")
    try:
        (seconds,) = numbers_of(
            [object_of({"stats": None, **row}, "stats").get("median")], "median"
        )
    except Damaged as error:
        raise Damaged(f"{error} ({whole})") from None
    names = ["parameters"] * len(parameters)
    return Benchmark(name, None, UNIT, names, file, title or name, "[]"), parameters, seconds


def _facts(machine: Values) -> dict[str, str]:
    """Only within one processor and one Python are seconds compared."""
    cpu = machine.get("cpu")
    brands = [cpu.get("brand_raw"), cpu.get("brand")] if isinstance(cpu, dict) else [cpu]
    told = {
        "cpu": next(filter(None, [*brands, machine.get("processor")]), "unknown"),
        "python": " ".join(
            str(machine.get(f"python_{key}", "")) for key in ("implementation", "version")
        ),
        "system": f"{machine.get('system', '')}-{machine.get('machine', '')}",
        "node": machine.get("node", ""),
        "release": machine.get("release", ""),
    }
    return {key: str(value) for key, value in told.items()}
