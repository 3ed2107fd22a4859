"""By whose benchmarks a commit is judged: by head's, and where base's differ by base's as well.

Who is judged does not bring the ruler. There are four ways to put a model (of base, of head) and
benchmarks (of base, of head) together, and fewer where some are equal:

                     base's benchmarks    head's benchmarks
    base's model     A                    B
    head's model     D                    C

B and C tell what head's model changed, by head's benchmarks; A and D the same by base's. A and B
are one model: a number that differs there is measured otherwise, which fails unless the benchmark
has a new version. C and D are one model as well: where they agree, base's number stands for B's,
and B is asked only the others. Numbers of the suite's own functions are those of base's code in A
and of head's in C; where head's cases differ from base's, head's functions are asked base's cases,
too (E). What differs there is asked of base's model as well: a function is right that gives the old
number with either model.

A number that both benchmarks measure by the same code has one ruler (`same_code`): C is all that is
asked of it, and B where the models differ. With one ruler nothing is asked of a suite's own
function, or of a model that is the same.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks.gate_suite import Exactness
from reference_model.errors import UserError
from reports.gate.checkouts import Checkout
from reports.gate.exact import FAILING, Difference, Value, differences, in_order
from reports.gate.revisions import BENCHMARKS, MODEL
from reports.gate.same_code import SameCode, same_code
from reports.gate.workers import Answer, Device, Worker

# Of benchmarks/: what the suite's functions are asked. The first is where it was before suite/.
CASES = ("bench_exact.py", "suite/bench_exact.py", "exact_cases")
SAME = "the suite's own functions and experiments are the same in both commits"
ONE_RULER = "numbers that rest on the same code in both commits were not asked for"
AT_ONCE = 50  # requests that wait in a pipe
Values = Mapping[str, Value]


@dataclass
class Compared:
    """All differences, and what was not compared or is measured in another way on purpose."""

    base: Values
    head: Values
    differences: list[Difference]
    notes: list[str] = field(default_factory=list)
    own: Answer | None = None  # what base's own suite has, where it is not head's,
    own_values: Values = field(default_factory=dict)  # and its numbers of base's model
    alike: int = 0  # numbers that were not asked for, since nothing of theirs differs


def compare_exactly(
    workers: Sequence[Worker],
    how: Mapping[str, Exactness],
    versions: Mapping[str, str],
    device: Device,
    layout: random.Random,
) -> Compared:
    """Every number of ``how`` by every ruler; ``workers`` are those of B and C."""
    base, head = (worker.checkout for worker in workers)
    same_model = base.model_tree == head.model_tree
    others = base.own_suite is not None and base.suite_differs
    of_model = [id for id, each in how.items() if each.of == "model"]
    with ExitStack() as stack:
        own = stack.enter_context(_own(base, device, layout)) if others else None
        if own is None:
            return _by_one(workers, how, of_model)
        # C is asked of a model that differs in any case: it does so while the others look.
        first = [] if same_model else of_model
        workers[1].send("exact", ids=first)
        known = own.ask("suite")
        same = _same(same_code(own, workers[0]), known, how)
        unasked = {id for id in same.whole if same_model or how[id].of == "suite"}
        workers[1].send("exact", ids=[id for id in how if id not in unasked.union(first)])
        workers[0].send("exact", ids=[id for id in first if id in same.whole])
        alone = _alone(known, own, base, head, same, device, layout, stack)
        after = workers[1].receive()["values"] | workers[1].receive()["values"]
        before = workers[0].receive()["values"]
        if alone.cases is not None:  # of the same case C's number is E's
            alone.cases |= {id: after[id] for id in same.cases - same.whole if id in after}
        if same_model:  # B is C
            before = {id: after[id] for id in of_model if id in after}
        else:
            before |= _by_heads(
                workers[0], [id for id in of_model if id not in before], alone, after
            )
            suite = {id: each for id, each in how.items() if each.of == "suite" and id in after}
            after |= _as_before(lambda: workers[0], alone.base, after, suite)
            if alone.cases is not None:
                assert base.own_suite is not None
                ask = partial(_on_cases, base.own_suite, base, head, device, layout, stack)
                alone.cases |= _as_before(ask, alone.base, alone.cases, suite)
        found = _by_both(before, after, how, versions, known, alone)
        if unasked:
            found.notes.append(f"{ONE_RULER}: {len(unasked)}")
        return replace(found, own=known, own_values=alone.base, alike=len(unasked))


def _by_one(
    workers: Sequence[Worker], how: Mapping[str, Exactness], of_model: Sequence[str]
) -> Compared:
    """The benchmarks are one, and so are their own functions."""
    for worker in workers:
        worker.send("exact", ids=of_model)
    before, after = (worker.receive()["values"] for worker in workers)
    alike = len(how) - len(of_model)
    notes = [f"{SAME}; their numbers ({alike}) were not asked for"] if alike else []
    return Compared(before, after, differences(before, after, how), notes, alike=alike)


def _same(found: SameCode, known: Answer, how: Mapping[str, Exactness]) -> SameCode:
    """Of those, the ones that are asked for, and that both suites judge in one way."""
    own = {id: Exactness(**each) for id, each in known["exact"].items()}
    alike = {id for id, each in how.items() if own.get(id) == each}
    return SameCode(found.whole & alike, found.cases & alike)


def _by_heads(worker: Worker, ids: Sequence[str], alone: _Alone, after: Values) -> Values:
    """Base's model by head's benchmarks: asked where base's own give another number of head's."""
    by_base = alone.head or {}
    known = {id: alone.base[id] for id in ids if id in alone.base and id in by_base}
    agreed = {id: value for id, value in known.items() if by_base[id] == after[id]}
    missing = [id for id in ids if id not in agreed]
    return agreed | worker.ask("exact", ids=missing)["values"] if missing else agreed


def _as_before(
    ask: Callable[[], Worker], before: Values, after: Values, how: Mapping[str, Exactness]
) -> dict[str, Value]:
    """Of the suite's numbers that are not what they were: those that are, with another model."""
    shared = [id for id in how if id in before and id in after]
    changed = _failing(before, {id: after[id] for id in shared}, how)
    found = _one_by_one(ask(), changed, [], "") if changed else {}
    still = _failing(before, found, how)
    return {id: value for id, value in found.items() if id not in still}


def _failing(before: Values, after: Values, how: Mapping[str, Exactness]) -> list[str]:
    found = differences({id: before[id] for id in after}, after, how)
    return [each.id for each in found if each.kind in FAILING]


@dataclass
class _Alone:
    """What was asked one by one, so that each failure is one number's: A, D and E."""

    base: Values
    head: Values | None  # None: head's model is base's, or nothing is to be asked
    cases: dict[str, Value] | None  # None: head's cases are base's
    failed: list[str]


def _by_both(
    before: Values,
    after: Values,
    how: Mapping[str, Exactness],
    versions: Mapping[str, str],
    known: Answer,
    alone: _Alone,
) -> Compared:
    own = {id: Exactness(**each) for id, each in known["exact"].items()}
    suite = [id for id, each in how.items() if each.of == "suite"]
    # What base's suite does not have yet is new, and what it fails on is compared to nothing.
    before = dict(before) | {id: alone.base[id] for id in suite if id in alone.base}
    after_compared = {id: value for id, value in after.items() if id in before or id not in own}
    found = differences(before, after_compared, how)
    notes = list(alone.failed)
    # What head's own suite lets pass is no word on what base's does.
    told = {each.id for each in found if each.kind in FAILING}
    for values, whose in (
        (alone.head, "by base's own benchmarks"),
        (alone.cases, "by base's own cases"),
    ):
        if values is not None:
            asked = {id: alone.base[id] for id in values if id in alone.base}
            by_base = differences(asked, {id: values[id] for id in asked}, own)
            said = {(each.id, each.kind) for each in found}
            new = [e for e in by_base if e.id not in told and (e.id, e.kind) not in said]
            found += [replace(each, because=whose) for each in new]
            told |= {each.id for each in by_base if each.kind in FAILING}
    found += _measured_otherwise(alone.base, before, own, how, known, versions, notes)
    return Compared(before, after, in_order(found), notes)


def _measured_otherwise(
    by_base: Values,
    by_head: Values,
    own: Mapping[str, Exactness],
    how: Mapping[str, Exactness],
    known: Answer,
    versions: Mapping[str, str],
    notes: list[str],
) -> Iterator[Difference]:
    """Numbers of base's model that the two suites do not agree on."""
    before = known.get("versions", {})
    raised = set()
    shared = [id for id in own if id in how and how[id].of == "model" and id in by_base]
    two = {id: by_base[id] for id in shared}, {id: by_head[id] for id in shared if id in by_head}
    for each in differences(*two, how):
        name = each.id.partition("(")[0]
        if each.kind == "within tolerance":
            continue
        if before.get(name) != versions.get(name):
            raised.add(name)
            continue
        yield replace(
            each, kind="measured otherwise", because="of base's model, by head's benchmarks"
        )
    notes += [f"{name} has a new version and measures otherwise" for name in sorted(raised)]


# ---- what is asked


@contextmanager
def _own(base: Checkout, device: Device, layout: random.Random) -> Iterator[Worker]:
    assert base.own_suite is not None
    with _worker(replace(base, folder=base.own_suite), device, layout) as worker:
        yield worker


@contextmanager
def _worker(checkout: Checkout, device: Device, layout: random.Random) -> Iterator[Worker]:
    worker = Worker(checkout, device, layout)
    try:
        yield worker
    finally:
        worker.close()


def _alone(
    known: Answer,
    own: Worker,
    base: Checkout,
    head: Checkout,
    same: SameCode,
    device: Device,
    layout: random.Random,
    stack: ExitStack,
) -> _Alone:
    asked = {id: how for id, how in known["exact"].items() if id not in same.whole}
    of_model = [id for id, how in asked.items() if how.get("of", "model") == "model"]
    of_suite = [id for id in asked if id not in of_model]
    of_cases = [id for id in of_suite if id not in same.cases]
    assert base.own_suite is not None
    failed: list[str] = []
    on_head = on_cases = None
    if base.model_tree != head.model_tree and of_model:
        place = _put_together(base.own_suite.parent / "by base", head.folder, base.own_suite)
        on_head = stack.enter_context(_worker(replace(head, folder=place), device, layout))
    if of_cases and _cases_differ(base.own_suite, head.folder):
        on_cases = _on_cases(base.own_suite, head, head, device, layout, stack)
    parts: tuple[tuple[Worker | None, Sequence[str], str], ...] = (
        (own, [*of_model, *of_suite], "base's own benchmarks"),
        (on_head, of_model, "base's benchmarks on head's model"),
        (on_cases, of_cases, "base's cases on head's functions"),
    )
    with ThreadPoolExecutor() as pool:  # nothing is timed: no processor should wait
        found = [
            pool.submit(_one_by_one, worker, ids, failed, what) if worker else None
            for worker, ids, what in parts
        ]
        values, by_base, by_cases = (each.result() if each else None for each in found)
    assert values is not None
    return _Alone(values, by_base, by_cases, sorted(failed))


def _on_cases(
    own_suite: Path,
    model: Checkout,
    head: Checkout,
    device: Device,
    layout: random.Random,
    stack: ExitStack,
) -> Worker:
    """Head's functions, asked base's cases, with the model of either side."""
    place = own_suite.parent / f"cases on {model.name}"
    _put_together(place, model.folder, head.folder)
    _put_cases(own_suite, place)
    return stack.enter_context(_worker(replace(model, folder=place), device, layout))


def _one_by_one(
    worker: Worker, ids: Sequence[str], failed: list[str], what: str
) -> dict[str, Value]:
    """Their numbers; those that cannot be run, or do not apply there, are left out and told."""
    found: dict[str, Value] = {}
    missing, reason = 0, ""
    for start in range(0, len(ids), AT_ONCE):
        part = ids[start : start + AT_ONCE]
        try:
            for id in part:
                worker.send("exact", ids=[id])
            for _ in part:
                try:
                    found |= worker.receive()["values"]
                except UserError as error:
                    reason, missing = str(error), missing + 1
        except UserError as error:
            reason, missing = str(error), missing + len(part)
            break
    if missing:
        failed.append(f"{missing} of {len(ids)} numbers could not be had from {what}: {reason}")
    return {id: value for id, value in found.items() if not isinstance(value, dict)}


def _put_together(place: Path, model: Path, benchmarks: Path) -> Path:
    """A checkout with the model of one and the benchmarks of another."""
    shutil.copytree(model / MODEL, place / MODEL, symlinks=True)
    shutil.copytree(benchmarks / BENCHMARKS, place / BENCHMARKS, symlinks=True)
    return place


def _put_cases(source: Path, place: Path) -> None:
    for name in CASES:
        there = place / BENCHMARKS / name
        shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)
        given = source / BENCHMARKS / name
        if given.is_dir():
            shutil.copytree(given, there, symlinks=True)
        elif given.exists():
            shutil.copyfile(given, there)


def _cases_differ(one: Path, other: Path) -> bool:
    return _texts(one) != _texts(other)


def _texts(checkout: Path) -> dict[str, bytes]:
    folder = checkout / BENCHMARKS
    files = [
        f for name in CASES for f in (folder / name, *(folder / name).rglob("*.py")) if f.is_file()
    ]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}
