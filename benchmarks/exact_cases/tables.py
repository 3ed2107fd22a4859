"""All cases by how near their numbers have to be, and what is asked of one by its name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from benchmarks.exact_cases import (
    caches,
    casts,
    closed_forms,
    device,
    experiments,
    files,
    generation,
    instruments,
    judging,
    miniatures,
    outputs,
    rewrites,
    runs,
    statistics,
    timed,
    training,
)
from benchmarks.exact_cases.begins import begins
from benchmarks.exact_cases.case import Case, fingerprint, result_of
from benchmarks.suite.workloads import start

Table = tuple[Case, ...]
DOUBLE: Table = outputs.DOUBLE
SINGLE: Table = (
    *outputs.SINGLE,
    *caches.SINGLE,
    *rewrites.SINGLE,
    *files.SINGLE,
    *generation.SINGLE,
    *training.SINGLE,
)
ROUNDED: Table = (*caches.ROUNDED, *rewrites.ROUNDED, *training.ROUNDED)
HALF: Table = (*outputs.HALF, *outputs.AUTOCAST, *casts.HALF, *rewrites.HALF)
NUMBERS: Table = closed_forms.NUMBERS
KNOWN: Table = (
    *statistics.CASES,
    *instruments.CASES,
    *device.CASES,
    *experiments.CASES,
    *judging.CASES,
    *runs.CASES,
    *timed.CASES,
)
KNOWN_ROUNDED: Table = (*instruments.ROUNDED, *experiments.ROUNDED, *miniatures.CASES)


def names(table: Sequence[Case]) -> tuple[str, ...]:
    return tuple(case.name for case in table)


def begins_of(table: Table, name: str) -> list[str]:
    """Where the code of a case begins, as `begins` has it."""
    (case,) = (case for case in table if case.name == name)
    return [*begins(fingerprint_of), *begins(case.run), *case.also()]


def fingerprint_of(table: Table, name: str) -> float:
    """Of the result of a case; each is run once in a process."""
    return _fingerprint(next(case for case in table if case.name == name))


@cache
def _fingerprint(case: Case) -> float:
    start()
    return fingerprint(result_of(case))
