"""Which exact numbers base's and head's benchmarks measure by the same code.

There is one ruler for such a number: base's word on it is head's. Both suites say where the code of
a number begins, and the gate itself reads what it reaches in either commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record.reach import Reach
from reference_model.errors import UserError
from reports.gate.revisions import BENCHMARKS
from reports.gate.workers import Answer, Worker

# By these a suite says what its numbers are: where one differs, nothing is taken for the same.
SAYING = (
    "gate_worker.py",
    "suite/benchmark.py",
    "suite/bench_exact.py",
    "exact_cases/begins.py",
    "exact_cases/case.py",
    "exact_cases/tables.py",
)
CASES = f"{BENCHMARKS}.exact_cases"


@dataclass(frozen=True)
class SameCode:
    """Exact ids: those that rest on the same code, and those whose cases alone do."""

    whole: frozenset[str] = frozenset()
    cases: frozenset[str] = frozenset()


def same_code(own: Worker, heads: Worker) -> SameCode:
    """Of a process with base's own suite and one with head's, whatever model they have.

    Of no number where one of them does not say where code begins.
    """
    folders = [worker.checkout.folder for worker in (own, heads)]
    changed = _changed(*folders)
    if changed & {*SAYING}:
        return SameCode()
    told = _told((own, heads))
    if told is None:
        return SameCode()
    readers = [Reach(folder, BENCHMARKS, told[0]["aside"]) for folder in folders]
    if any(len({reader.by_itself(_module(path)) for reader in readers}) > 1 for path in changed):
        return SameCode()  # what runs when it is imported may alter anything
    begins = [answer["begins"] for answer in told]
    shared = [id for id in begins[0] if id in begins[1]]
    whole, cases = (
        frozenset(id for id in shared if _same(readers, [each[id] for each in begins], within))
        for within in ("", CASES)
    )
    return SameCode(whole, cases)


def _changed(one: Path, other: Path) -> set[str]:
    """Of the benchmarks' modules those that are not in both, as they are."""
    texts = [
        {
            file.relative_to(folder / BENCHMARKS).as_posix(): file.read_bytes()
            for file in (folder / BENCHMARKS).rglob("*.py")
        }
        for folder in (one, other)
    ]
    return {path for path in texts[0].keys() | texts[1] if len({*(t.get(path) for t in texts)}) > 1}


def _module(path: str) -> str:
    return ".".join((BENCHMARKS, *path.removesuffix("/__init__.py").removesuffix(".py").split("/")))


def _told(workers: Sequence[Worker]) -> list[Answer] | None:
    """Where the code of each number begins; a suite that is older than the question fails on it."""
    for worker in workers:  # both at once
        worker.send("begins")
    found = []
    for worker in workers:
        with suppress(UserError):
            found.append(worker.receive())
    return found if len(found) == 2 else None


def _same(readers: list[Reach], starts: list[list[str]], within: str = "") -> bool:
    try:
        before, after = (
            reader.digest(each, within) for reader, each in zip(readers, starts, strict=True)
        )
    except ValueError:  # it begins, or leads, where only one of them has something
        return False
    return before == after
