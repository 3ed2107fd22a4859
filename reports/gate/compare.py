"""Two revisions -> a report: the exact layer first, then pairs until the rule decides."""

from __future__ import annotations

import fnmatch
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.data.git import top_of
from benchmarks.gate_suite import Exactness
from reference_model.errors import UserError
from reports.gate.acceptances import Slowness, accepted, read_acceptances
from reports.gate.checkouts import Checkout, Checkouts, checked_out
from reports.gate.decision import Decision, Rule, as_plain
from reports.gate.exact import FAILING, Difference, Value, fails
from reports.gate.machine import troubles
from reports.gate.pairs import CONTROL, Pairs
from reports.gate.rulers import Compared, compare_exactly
from reports.gate.timed import Timed, run_pairs
from reports.gate.verdict import NotComparable, Verdict
from reports.gate.workers import OF_SUITE, Answer, Device, Worker, running

Report = dict[str, Any]
SCHEMA = 1
BUDGET = 450.0  # seconds for everything, within the eight minutes that a gate may take
CONTROLLED_BY = "bench_gate.Step.time_step(decode)"  # if it is selected, else the first
NOTHING_TIMED: Report = {
    "skipped": {},
    "timed": [],
    "control": None,
    "pairs": [],
    "troubles": [],
    "notes": [],
}


@dataclass(frozen=True)
class Request:
    """What is asked of a gate."""

    base: str
    head: str
    select: str = "*"
    budget: float = BUDGET
    device: Device = "cpu"
    seed: int | None = None  # of orders and layouts
    base_python: str | None = None
    head_python: str | None = None
    rule: Rule = field(default_factory=Rule)
    model: str | None = None  # instead of the suite's own, for a suite that reads `OF_SUITE`
    dtype: str | None = None

    @property
    def variables(self) -> dict[str, str]:
        """By which the suite is told of model and dtype."""
        asked = zip(OF_SUITE, (self.model, self.dtype), strict=True)
        return {name: value for name, value in asked if value}


def compare(repository: Path, request: Request, tell: Callable[[str], None]) -> Report:
    """The whole gate. `UserError` for whatever keeps it from a verdict."""
    started, rng = time.monotonic(), random.Random(request.seed)
    repository = top_of(repository)
    made = checked_out(
        repository,
        request.base,
        request.head,
        request.base_python,
        request.head_python,
        request.variables,
    )
    with made as checkouts:
        report = _head_of_report(request, checkouts)
        acceptances = read_acceptances(repository, checkouts[1].commit)
        with running(checkouts, request.device, rng) as (workers, hellos):
            report["versions"] = _versions(request, hellos)
            selected, how, versions = _selected(workers, request.select)
            tell(f"{len(how)} exact numbers, {len(selected)} timed benchmarks")
            exact = compare_exactly(workers, how, versions, request.device, rng)
            values = before, after = exact.base, exact.head
            compared = exact.differences
            timed, uneven, untimed = _on_both_sides(workers, selected)
            skipped = _skipped_numbers(before, after) | untimed
            if exact.own is None:  # the suite is one
                exact.own = workers[0].ask("suite")
            compared += uneven + _vanished(
                checkouts[0], exact, request, rng, [*selected, *how], skipped
            )
            if not selected and not how and not compared:
                raise UserError(_matches_nothing(workers, request.select))
        gone = {difference.id for difference in compared if difference.kind == "gone"}
        report["skipped"] = {id: why for id, why in skipped.items() if id not in gone}
        numbers = [id for id in how if all(isinstance(side.get(id), float) for side in values)]
        if not numbers and not exact.alike and not timed and not fails(compared):
            raise UserError(_nothing_compared(skipped, compared, exact.notes))
        report["exact"] = {
            "compared": len(numbers),
            "differences": [asdict(difference) for difference in compared],
            "seconds": round(time.monotonic() - started, 1),
        }
        compared, told = accepted(compared, acceptances, repository, checkouts[0].commit)
        report["exact"]["differences"] = [asdict(difference) for difference in compared]
        asked = [f"measured with {name}={value}" for name, value in request.variables.items()]
        report["notes"] = [*asked, *exact.notes, *told]
        for difference in compared:
            tell(f"{difference.kind}: {difference.id} {difference.base} -> {difference.head}")
        if fails(compared):
            return _finished(report, Verdict.REGRESSION, _why_exact(compared), started)
        if not timed:
            return _finished(report, Verdict.PASS, "nothing timed was selected", started)
        control = CONTROLLED_BY if CONTROLLED_BY in timed else timed[0]
        left = request.budget - (time.monotonic() - started)
        slowness = Slowness(acceptances, timed, repository, checkouts[0].commit)
        with Pairs(checkouts, request.device, rng, control) as pairs:
            found = run_pairs(
                lambda ids: slowness.taken_off(pairs.measure(ids, started + request.budget)),
                timed,
                request.rule,
                left,
                lambda pairs, decision: tell(_progress(pairs, decision, started)),
            )
    report |= timed_part(found)
    report["notes"] += slowness.told(found)
    return _finished(report, *_verdict_on(found), started)


def _head_of_report(request: Request, checkouts: Checkouts) -> Report:
    base, head = checkouts
    return {
        "schema": SCHEMA,
        "base": {"revision": request.base, "commit": base.commit, "model": base.model_tree},
        "head": {"revision": request.head, "commit": head.commit, "model": head.model_tree},
        "select": request.select,
        "variables": request.variables,
        "budget": request.budget,
        "device": request.device,
        "rule": asdict(request.rule),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **NOTHING_TIMED,
    }


def _versions(request: Request, hellos: Sequence[Answer]) -> list[dict[str, Any]]:
    """Of both sides; `NotComparable` where they differ and were not both asked for."""
    base, head = ({k: hello[k] for k in ("torch", "python", "cuda")} for hello in hellos)
    if base != head and not (request.base_python and request.head_python):
        raise NotComparable(
            f"base runs on {base} and head on {head}: what is faster then is not the model alone; "
            "name one interpreter, or both with --base-python and --head-python"
        )
    return [base, head]


def _selected(
    workers: Sequence[Worker], pattern: str
) -> tuple[list[str], dict[str, Exactness], dict[str, str]]:
    """Timed ids that match, exact ones with what makes each worse, and versions by name.

    The suite is head's on both sides: one is asked.
    """
    known = workers[-1].ask("suite")
    if not isinstance(known["exact"], dict):
        raise UserError("head's benchmarks/gate_worker.py is older than this gate; copy the newer")
    timed = [id for id in known["timed"] if fnmatch.fnmatchcase(id, pattern)]
    exact = {
        id: Exactness(**how)
        for id, how in known["exact"].items()
        if fnmatch.fnmatchcase(id, pattern)
    }
    return timed, exact, known.get("versions", {})


def _matches_nothing(workers: Sequence[Worker], pattern: str) -> str:
    known = workers[-1].ask("suite")
    return (
        f"--select {pattern!r} matches none of {len(known['timed']) + len(known['exact'])} "
        "benchmarks; such as bench_gate.Step* or '*turboquant*' would"
    )


def _on_both_sides(
    workers: Sequence[Worker], ids: Sequence[str]
) -> tuple[list[str], list[Difference], dict[str, str]]:
    """The timed ones that both sides have, those new or gone, and why neither has the others."""
    for worker in workers:
        for id in ids:
            worker.send("prepare", id=id)
    base, head = ([worker.receive().get("skipped") for _ in ids] for worker in workers)
    both, uneven, skipped = [], [], {}
    for id, missing_before, missing_after in zip(ids, base, head, strict=True):
        if missing_before is None and missing_after is None:
            both.append(id)
        elif missing_after is None:
            uneven.append(Difference(id, "new", None, None, str(missing_before)))
        elif missing_before is None:
            uneven.append(Difference(id, "gone", None, None, str(missing_after)))
        else:
            skipped[id] = str(missing_after)
    return both, uneven, skipped


def _skipped_numbers(base: Mapping[str, Value], head: Mapping[str, Value]) -> dict[str, str]:
    """Why neither side has a number, by id."""
    return {
        id: value["skipped"]
        for id, value in head.items()
        if isinstance(value, dict) and isinstance(base.get(id), dict)
    }


def _vanished(
    base: Checkout,
    exact: Compared,
    request: Request,
    rng: random.Random,
    known: Sequence[str],
    skipped: Mapping[str, str],
) -> list[Difference]:
    """What base's own suite had and head's has no more, by name or because it is skipped there."""
    if base.own_suite is None or exact.own is None:
        return []
    listed = exact.own
    found = [
        Difference(id, "gone", None, None, "not in head's suite")
        for id in (*listed["timed"], *listed["exact"])
        if id not in known and fnmatch.fnmatchcase(id, request.select)
    ]
    if not base.suite_differs:
        return found
    had = [id for id in skipped if id in listed["exact"] and id in exact.own_values]
    untimed = [id for id in skipped if id in listed["timed"]]
    if untimed:
        own = Worker(replace(base, folder=base.own_suite), request.device, rng)
        try:
            had += [id for id in untimed if "skipped" not in own.ask("prepare", id=id)]
        finally:
            own.close()
    return found + [
        Difference(id, "gone", None, None, f"head's suite: {skipped[id]}") for id in had
    ]


def _nothing_compared(
    skipped: Mapping[str, str], compared: Sequence[Difference], notes: Sequence[str]
) -> str:
    reasons = [*skipped.values(), *(difference.because for difference in compared), *notes]
    return f"nothing was measured on both sides: {reasons[0] if reasons else 'no benchmark'}"


def timed_ids(checkouts: Checkouts, pattern: str) -> list[str]:
    """The timed benchmarks of two checkouts that match."""
    with running([checkouts[1]], "cpu", random.Random(0)) as (workers, _):
        timed, *_ = _selected(workers, pattern)
    if not timed:
        raise UserError(f"--select {pattern!r} matches no timed benchmark")
    return timed


def timed_part(found: Timed) -> Report:
    """What a report says of the timed layer."""
    *own, control = as_plain(found.decision)["benchmarks"]
    return {
        "timed": [{"id": id, **judged} for id, judged in zip(found.ids, own, strict=True)],
        "control": {"id": CONTROL, **control},
        "pairs": [asdict(pair) for pair in found.pairs],
        "troubles": troubles([pair.machine for pair in found.pairs]),
    }


def _verdict_on(found: Timed) -> tuple[Verdict, str]:
    decision = found.decision
    if decision.outcome == "regression":
        worse = [
            f"{id} by {100 * (judged.effect - 1):.1f} %"
            for id, judged in zip(found.ids, decision.benchmarks, strict=False)
            if judged.outcome == "regression"
        ]
        return Verdict.REGRESSION, f"slower: {', '.join(worse)}"
    if decision.outcome == "pass":
        return Verdict.PASS, f"nothing is slower, by {decision.pairs} pairs of processes"
    return Verdict.INCONCLUSIVE, decision.reason


def _why_exact(compared: Sequence[Difference]) -> str:
    failing = [d for d in compared if d.kind in FAILING]
    more = f" and {len(failing) - 1} more" if len(failing) > 1 else ""
    cheaper = sum(d.kind == "better" for d in compared)
    verify = any(d.kind == "changed: verify" for d in failing) and cheaper
    also = (
        f"; {cheaper} numbers got less, which is no gain before that is verified" if verify else ""
    )
    return f"{failing[0].kind}: {failing[0].id}{more}, by exact numbers{also}"


def _progress(pairs: int, decision: Decision, started: float) -> str:
    is_open = sum(judged.outcome == "inconclusive" for judged in decision.benchmarks[:-1])
    return f"pair {pairs}, {is_open} undecided, {time.monotonic() - started:.0f} s"


def _finished(report: Report, verdict: Verdict, reason: str, started: float) -> Report:
    if report["base"]["commit"] == report["head"]["commit"]:
        reason = f"{reason}; base and head are one commit"
    return report | {
        "verdict": verdict.words,
        "exit_status": int(verdict),
        "reason": reason,
        "seconds": round(time.monotonic() - started, 1),
    }


def failed(request: Request | None, verdict: Verdict, reason: str) -> Report:
    """The report of a gate that came to no comparison: the same fields, as far as known."""
    asked = request or Request("", "")
    nobody = {"commit": None, "model": None}
    return {
        "schema": SCHEMA,
        "base": {"revision": asked.base, **nobody},
        "head": {"revision": asked.head, **nobody},
        "select": asked.select,
        "budget": asked.budget,
        "device": asked.device,
        "rule": asdict(asked.rule),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "exact": {"compared": 0, "differences": [], "seconds": 0.0},
        **NOTHING_TIMED,
        "verdict": verdict.words,
        "exit_status": int(verdict),
        "reason": reason,
        "seconds": 0.0,
    }
