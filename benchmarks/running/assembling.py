"""results.json out of the record, at any moment: what is finished, and what is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.executors.cell import one_line
from benchmarks.experiments.experiment import Settings
from benchmarks.judging.claims import Claim
from benchmarks.judging.findings import finding
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import SCHEMA_VERSION, Measurement
from benchmarks.record.store import Line, as_json
from benchmarks.running.plan import PlannedClaim
from benchmarks.running.runner import State


@dataclass(frozen=True)
class Outcome:
    """What became of one claim's experiment; without measurements, ``absent`` says why."""

    measurements: list[Measurement]
    seconds: float | None
    absent: str


def results_of(
    planned: Sequence[PlannedClaim], state: State, settings: Settings, environment: dict[str, Any]
) -> dict[str, Any]:
    """results.json of these claims. A claim that another run measured says of which it is."""
    environment = _of_most(planned, state, environment)
    measurements, claims = [], []
    for each in planned:
        outcome = _outcome(each, state, settings)
        entry = claim_entry(each.claim, outcome)
        if outcome.measurements:
            entry |= _origin(each, state, environment)
            if each.subject is not None:
                entry["subject"] = each.subject
        measurements += [m.as_json() for m in outcome.measurements]
        claims.append(entry)
    return {
        "schema": SCHEMA_VERSION,
        "environment": environment,
        "measurements": measurements,
        "claims": claims,
    }


def _of_most(planned: Sequence[PlannedClaim], state: State, own: dict[str, Any]) -> dict[str, Any]:
    """The environment of the run that measured most claims; this run's ``own`` where none did."""
    counts = Counter(
        as_json(_newest(each, state).environment)
        for each in planned
        if any(key in state.lines for _, key in each.cells)
    )
    (found, _), *_ = counts.most_common(1) or [(as_json(own), 0)]
    environment: dict[str, Any] = json.loads(found)
    return environment


def _newest(planned: PlannedClaim, state: State) -> Line:
    lines = [state.lines[key] for _, key in planned.cells if key in state.lines]
    return max(lines, key=lambda line: line.utc)


def _outcome(planned: PlannedClaim, state: State, settings: Settings) -> Outcome:
    cells = planned.cells
    if planned.absent or planned.experiment is None:
        return Outcome([], None, planned.absent)
    for _, key in cells:
        if key in state.unavailable:
            return Outcome([], None, state.unavailable[key])
    lines = [state.lines[key] for _, key in cells if key in state.lines]
    failed = [line for line in lines if line.outcome == "failed"]
    if failed:
        more = f" ({len(failed)} of {len(cells)} cells failed)" if len(cells) > 1 else ""
        return Outcome([], None, f"failed: {failed[0].found}{more}")
    if len(lines) < len(cells):
        done = f": {len(lines)} of {len(cells)} cells are done" if len(cells) > 1 else ""
        return Outcome([], None, f"not finished{done}")
    found = [(task.cell.parameters, state.lines[key].found) for task, key in cells]
    try:
        measurements = planned.experiment.combine(settings, found)
        _check(planned.claim, measurements)
    except Exception as error:
        return Outcome([], None, f"failed: {one_line(error)}")
    seconds = sum(line.seconds for line in lines)
    return Outcome(measurements, seconds, planned.missing_requirement)


def _check(claim: Claim, measurements: Sequence[Measurement]) -> None:
    """Raises ValueError on measurements that are not those of one claim, each once."""
    if not measurements:
        raise ValueError("it measured nothing")
    seen: set[str] = set()
    for m in measurements:
        if m.claim != claim.id:
            raise ValueError(f"it returned a measurement of {m.claim}")
        if m.id in seen:
            raise ValueError(f"it returned {m.id} more than once")
        seen.add(m.id)


def _origin(planned: PlannedClaim, state: State, environment: dict[str, Any]) -> dict[str, Any]:
    """Where a claim's numbers are from, where it is not this run, and whether they are stale."""
    own = [(key, state.lines[key]) for _, key in planned.cells]
    found: dict[str, Any] = {}
    if (newest := _newest(planned, state)).environment != environment:
        found["environment"] = newest.environment
    commits = {str(line.environment["commit"]): None for _, line in own}
    if len(commits) > 1:
        found["commits"] = list(commits)
    if any(line.key.code != key.code for key, line in own):
        found["stale"] = True
    return found


def claim_entry(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    """What stands in results.json about a claim."""
    found = outcome.measurements
    judgement, parts = judge_claim(claim, found, outcome.absent)
    return {
        "id": claim.id,
        "lesson": claim.lesson,
        "statement": claim.statement,
        "said_in": claim.said_in,
        "sources": claim.sources,
        "scale": claim.scale,
        "region": "; ".join(requirement.text for requirement in claim.requirements),
        "verdict": judgement.verdict,
        "finding": finding(claim, judgement.verdict, parts, found, outcome.absent),
        "because": judgement.because,
        "measurements": judgement.measurements,
        "requirements": [
            {
                "text": requirement.text,
                "role": requirement.role,
                "metric": requirement.metric,
                "where": requirement.where,
                "region": requirement.region.as_json(),
                "verdict": part.verdict,
                "because": part.because,
                "measurements": part.measurements,
            }
            for requirement, part in zip(claim.requirements, parts, strict=True)
        ],
        "seconds": None if outcome.seconds is None else round(outcome.seconds, 3),
    }
