"""Claim + measurements -> verdict, and the sentence that explains it. Nothing here is typed in.

A measurement confirms a requirement if its 95 % interval (or its exact value) lies within the
region, refutes it if it lies without, and leaves it open if it reaches across the border. A
requirement looks at all its measurements, a claim at all its requirements, which must hold
together unless the claim says that each stands apart. An instrument that misses its known answer
leaves the claim open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.judging import sentences
from benchmarks.judging.claims import Claim, Region, Requirement, Side, Verdict
from benchmarks.record.results import Measurement

VERDICT_OF_SIDE: Mapping[Side, Verdict] = {
    "within": "confirmed",
    "without": "refuted",
    "across": "open",
}
NOT_BUILT = "no experiment measures it yet"


@dataclass(frozen=True)
class Judgement:
    """A verdict, why, and the ids of the measurements it rests on."""

    verdict: Verdict
    because: str
    measurements: list[str]


def judge_measurement(measurement: Measurement, region: Region) -> Verdict:
    low, high = measurement.interval or (measurement.value, measurement.value)
    return VERDICT_OF_SIDE[region.side(low, high)]


def judge_requirement(
    requirement: Requirement, measurements: Sequence[Measurement], absent: str = NOT_BUILT
) -> Judgement:
    """One requirement; ``absent`` is the reason to give where nothing was measured for it."""
    matched = [m for m in measurements if requirement.matches(m)]
    if not matched:
        return Judgement("open", f"{requirement.text}: {absent}", [])
    judged = [(m, judge_measurement(m, requirement.region)) for m in matched]
    verdicts = {verdict for _, verdict in judged}
    verdict = _of_a_range(verdicts)
    if len(verdicts) == 1:
        because = sentences.agreement(requirement, matched, verdict)
    elif verdict == "depends":
        because = sentences.border(requirement, judged)
    else:
        because = sentences.undecided(requirement, judged)
    return Judgement(verdict, because, [m.id for m in matched])


def _of_a_range(verdicts: set[Verdict]) -> Verdict:
    """Of cases that stand apart: what all say, or `depends` where some confirm and some refute."""
    if len(verdicts) == 1:
        return next(iter(verdicts))
    split = "depends" in verdicts or verdicts >= {"confirmed", "refuted"}
    return "depends" if split else "open"


def judge_claim(
    claim: Claim, measurements: Sequence[Measurement], absent: str = NOT_BUILT
) -> tuple[Judgement, list[Judgement]]:
    """The claim, and each of its requirements in turn."""
    parts = [judge_requirement(part, measurements, absent) for part in claim.requirements]
    both = list(zip(claim.requirements, parts, strict=True))
    verdicts = {part.verdict for requirement, part in both if requirement.role == "claim"}
    instruments = [part for requirement, part in both if requirement.role == "instrument"]
    unproven = [part.because for part in instruments if part.verdict != "confirmed"]
    if unproven:
        verdict: Verdict = "open"
    elif claim.requirements_hold == "apart":
        verdict = _of_a_range(verdicts)
    else:
        precedence: tuple[Verdict, ...] = ("refuted", "open", "depends", "confirmed")
        verdict = next(verdict for verdict in precedence if verdict in verdicts)
    if not measurements:
        return Judgement(verdict, sentences.sentence(absent), []), parts
    if unproven:
        because = sentences.sentence(f"the instrument is not proven: {'; '.join(unproven)}")
    else:
        because = sentences.conjunction([(part.verdict, part.because) for part in parts])
    rests_on = dict.fromkeys(name for part in parts for name in part.measurements)
    return Judgement(verdict, because, list(rests_on)), parts
