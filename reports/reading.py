"""Results as reports show them: those of an older schema, too, in the words of today.

Numbers, regions and verdicts stay those of the file; sentences that it lacks are made from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.judging.claims import Claim, Requirement, load_claims, region_of
from benchmarks.judging.findings import finding
from benchmarks.judging.sentences import sentence
from benchmarks.judging.verdicts import NOT_BUILT, Judgement, judge_claim
from benchmarks.record.results import SCHEMA_VERSION, Measurement, read_results

Entry = dict[str, Any]
Own = dict[str, Measurement]  # of a claim, by the ids of the file
NOT_BUILT_ONCE = "Not built yet."  # as files of schema 1 say it


def read(path: Path) -> dict[str, Any]:
    """Valid results of the newest schema; UserError, in one line, on anything else."""
    return of_today(read_results(path))


def of_today(results: dict[str, Any]) -> dict[str, Any]:
    """``results`` with findings in the words of today, and the newest schema."""
    found: dict[str, Own] = {claim["id"]: {} for claim in results["claims"]}
    for each in results["measurements"]:
        found[each["claim"]][each["id"]] = Measurement.from_json({"population": None, **each})
    told = _told_anew if results["schema"] == SCHEMA_VERSION else _entry
    claims = [told(claim, found[claim["id"]]) for claim in results["claims"]]
    return {**results, "schema": SCHEMA_VERSION, "claims": claims}


def _told_anew(entry: Entry, own: Own) -> Entry:
    """With the finding of today, where the claim still asks for the same and gives the same."""
    known, measurements = _known(entry), list(own.values())
    if known is None or _claim(entry) != known or not measurements:
        return entry
    whole, judged = judge_claim(known, measurements)
    if whole.verdict != entry["verdict"]:
        return entry
    told = finding(known, whole.verdict, judged, measurements)
    return {**entry, "statement": known.statement, "finding": told}


def _entry(entry: Entry, own: Own) -> Entry:
    """With sentences of today, if the rule of today gives the verdict that the file has."""
    claim = _claim(entry)
    requirements = [
        {**part, "role": requirement.role}
        for part, requirement in zip(entry["requirements"], claim.requirements, strict=True)
    ]
    because = sentence(NOT_BUILT) if entry["because"] == NOT_BUILT_ONCE else entry["because"]
    parts = [
        Judgement(part["verdict"], part["because"], [own[name].id for name in part["measurements"]])
        for part in requirements
    ]
    measurements = list(own.values())
    if measurements:
        whole, judged = judge_claim(claim, measurements, _absent(requirements))
        if whole.verdict == entry["verdict"] and _same(judged, parts):
            because, parts = whole.because, judged
            requirements = [
                {**part, "because": today.because}
                for part, today in zip(requirements, judged, strict=True)
            ]
    return {
        **entry,
        "statement": claim.statement,
        "finding": finding(claim, entry["verdict"], parts, measurements, because),
        "because": because,
        "requirements": requirements,
    }


def _absent(requirements: Sequence[Entry]) -> str:
    """Why nothing was measured for some of them, if so."""
    for part in requirements:
        if not part["measurements"]:
            return str(part["because"].removeprefix(f"{part['text']}: "))
    return NOT_BUILT


def _same(judged: Sequence[Judgement], parts: Sequence[Judgement]) -> bool:
    return all(
        (a.verdict, set(a.measurements)) == (b.verdict, set(b.measurements))
        for a, b in zip(judged, parts, strict=True)
    )


def _claim(entry: Entry) -> Claim:
    """The claim of today, where it asks for what the file's did; else as the file has it."""
    requirements = [
        Requirement(part["text"], part["metric"], part["where"], region_of(part["region"]))
        for part in entry["requirements"]
    ]
    known = _known(entry)
    if known is not None and list(map(_asked, known.requirements)) == list(
        map(_asked, requirements)
    ):
        return known
    fields = ("id", "lesson", "statement", "said_in", "sources", "scale")
    own = Claim(**{name: entry[name] for name in fields}, requirements=requirements)
    return own if known is None else replace(own, requirements_hold=known.requirements_hold)


def _known(entry: Entry) -> Claim | None:
    """The claim of today, about the model that the entry names."""
    known = _claims_of_today().get(entry["id"])
    if known is None or "subject" not in entry:
        return known
    return known.about(entry["subject"]["name"], entry["scale"])


def _asked(requirement: Requirement) -> tuple[Any, ...]:
    return requirement.metric, requirement.where, requirement.region


@cache
def _claims_of_today() -> dict[str, Claim]:
    return {claim.id: claim for claim in load_claims()}
