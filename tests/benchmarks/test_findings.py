"""Findings: a short sentence a claim, led by its verdict, without a number nobody measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments.catalogue import all_experiments
from benchmarks.judging.claims import Claim, Region, Requirement, Words, load_claims
from benchmarks.judging.findings import LONGEST, finding
from benchmarks.judging.rounding import figures, in_full, number
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from reports.reading import of_today

CLAIMS = {claim.id: claim for claim in load_claims()}
NUMBER = re.compile(r"(?<![\w-])−?\d[\d,]*(?:\.\d+)?(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?|10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
LEFT_OVER = re.compile(
    r"[{}]|(?<!int)_|\b1 cases|\bNone\b|\bnan\b|  |\.\.|\( | \)|\(\)|, ?[.;]|: ?[.;]"
)


@pytest.fixture(scope="module")
def published(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file, its results in the words of today) of everything that is published."""
    found = []
    for path in sorted((root / "reports/published").glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(results, dict) and "claims" in results:
            found.append((path.name, of_today(results)))
    assert len(found) >= 10
    return found


def told(claim: Claim, measurements: Sequence[Measurement], absent: str = "") -> str:
    judgement, parts = judge_claim(claim, measurements, absent or "not measured")
    return finding(claim, judgement.verdict, parts, measurements, absent)


def problems(text: str, verdict: str) -> list[str]:
    """What is wrong with a finding as a sentence."""
    found = []
    if len(text) > LONGEST:
        found.append(f"{len(text)} characters")
    if not text.startswith(f"{verdict.capitalize()}: ") or not text.endswith("."):
        found.append(f"neither begins with {verdict} nor ends with a full stop")
    if LEFT_OVER.search(text):
        found.append("left-overs")
    if text.count("(") != text.count(")"):
        found.append("brackets")
    return found


# ---- published results


def without_name(entry: dict[str, Any]) -> str:
    """The finding, with a short word for the name of another model, which may be any text."""
    name = entry.get("subject", {}).get("name", "")
    finding: str = entry["finding"]
    return finding.replace(name, "it") if name else finding


def test_every_published_finding_is_a_short_sentence_that_begins_with_its_verdict(
    published: list[tuple[str, dict[str, Any]]],
) -> None:
    wrong, seen = [], set()
    for name, results in published:
        for claim in results["claims"]:
            seen.add(claim["id"])
            for problem in problems(without_name(claim), claim["verdict"]):
                wrong.append((name, claim["finding"], problem))
            if claim["measurements"] and "…" in claim["finding"]:
                wrong.append((name, claim["finding"], "cut"))
    assert wrong == []
    assert seen <= set(CLAIMS)
    # What quick has no time for may not be published yet.
    assert set(CLAIMS) - seen <= {e.claim for e in all_experiments() if e.seconds["quick"] is None}


def test_no_published_finding_has_a_number_that_was_neither_measured_nor_claimed(
    published: list[tuple[str, dict[str, Any]]],
) -> None:
    strange = []
    for name, results in published:
        own: dict[str, list[dict[str, Any]]] = {claim["id"]: [] for claim in results["claims"]}
        for m in results["measurements"]:
            own[m["claim"]].append(m)
        for claim in results["claims"]:
            if claim["measurements"]:
                known = allowed(CLAIMS[claim["id"]], own[claim["id"]])
                strange += [
                    (name, claim["finding"], n)
                    for n in NUMBER.findall(claim["finding"])
                    if n not in known
                ]
    assert strange == []


def told_shortly(entry: dict[str, Any], results: dict[str, Any]) -> str:
    """The finding of another model, as if its name were short: a long one may take the words' room.

    With the words of today, from the measurements of the file.
    """
    claim = CLAIMS[entry["id"]].about(entry["subject"]["name"], entry["scale"])
    requirements = [replace(r, words=replace(r.words, subject="it")) for r in claim.requirements]
    own = [Measurement.from_json(m) for m in results["measurements"] if m["claim"] == claim.id]
    return told(replace(claim, requirements=requirements), own)


def test_words_written_for_a_verdict_are_short_enough_for_what_was_measured(
    published: list[tuple[str, dict[str, Any]]],
) -> None:
    unused, used = [], 0
    for name, results in published:
        for entry in results["claims"]:
            claim, verdict = CLAIMS[entry["id"]], entry["verdict"]
            parts = zip(claim.requirements, entry["requirements"], strict=False)
            own = [
                r.words.finding
                for r, p in parts
                if p["verdict"] == verdict and p["role"] == "claim"
            ]
            texts = [words[verdict] for words in (claim.finding, *own[:1]) if verdict in words]
            if entry["measurements"] and texts:
                used += 1
                text = told_shortly(entry, results) if "subject" in entry else entry["finding"]
                patterns = [re.sub(r"\\{[\w.\\]+\\}", ".*", re.escape(text)) for text in texts]
                # As findings say it of one.
                patterns = [re.sub(r"\b(case|size)s\b", r"\1s?", each) for each in patterns]
                if not any(re.search(f": {pattern}\\.", text) for pattern in patterns):
                    unused.append((name, text, texts))
    assert unused == []
    assert used > 30


def allowed(claim: Claim, measurements: Sequence[dict[str, Any]]) -> set[str]:
    """All numbers that may stand in it: measured ones, of the region, of the claim's words."""
    words = [claim.statement, claim.scale, *(r.text for r in claim.requirements)]
    found = set(NUMBER.findall(" ".join(words)))
    for scale in (1, 100, 1e-6):
        for m in measurements:
            ends = m["interval"] and tuple(scale * end for end in m["interval"])
            found |= {text for text in figures(scale * m["value"], ends) if text}
        for requirement in claim.requirements:
            said = requirement.words.said
            ends = (*requirement.region.bounds, *(() if said is None else (said,)))
            found |= {in_full(scale * end) for end in ends}
    for m in measurements:
        labels = [v for v in m["parameters"].values() if isinstance(v, int | float)]
        found |= {number(v) for v in labels} | set(NUMBER.findall(str(m["parameters"])))
    return found | {str(count) for count in range(len(measurements) + 1)}


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (
            "cache.fifteen-tokens",
            r"Refuted: 15 tokens of GPT-2 small are [\d.]+× as fast with a cache"
            r" \([\d.–]+\), not 2×\.",
        ),
        (
            "turboquant.memory",
            r"Depends: 3 bits make the cache 5.03× smaller for heads 128 wide, 4.87× for 64; said: "
            r"5 to 6×\.",
        ),
        ("position.quality", r"Open: no experiment measures it yet\."),
        ("lora.rank-pays", r"Open: too long for the quick profile; run full\."),
    ],
)
def test_a_finding_can_be_repeated(
    published: list[tuple[str, dict[str, Any]]], claim: str, text: str
) -> None:
    (quick,) = [results for name, results in published if name == "quick.json"]
    (found,) = [each["finding"] for each in quick["claims"] if each["id"] == claim]
    assert re.fullmatch(text, found)


# ---- results that nobody has measured yet


def cases(claim: Claim, known: Sequence[Measurement]) -> dict[int, list[Measurement]]:
    """Of each requirement what was measured for it, or two made-up cases."""
    found = {}
    for index, requirement in enumerate(claim.requirements):
        own = [m for m in known if requirement.matches(m)]
        found[index] = own or [made_up(claim, requirement, seed) for seed in (1, 2)]
    return found


def made_up(claim: Claim, requirement: Requirement, seed: int) -> Measurement:
    where = {k: v[0] if isinstance(v, list) else v for k, v in requirement.where.items()}
    option = str(where.pop("option", "any"))
    return Measurement(
        claim=claim.id,
        metric=requirement.metric,
        unit="ratio",
        value=0.0,
        interval=None,
        n=None,
        direction="none",
        choice="any",
        option=option,
        parameters={**where, "layer": seed},
        source="made up",
    )


def inside(region: Region) -> float:
    """A value within the region."""
    first, last = region.bounds[0], region.bounds[-1]
    spread = abs(last) or 1.0
    return {
        "inside": (first + last) / 2,
        "outside": last + spread,
        "at_least": first + spread / 3,
        "at_most": first - spread / 3,
        "equals": first,
    }[region.kind]


def outside(region: Region) -> float:
    first, last = region.bounds[0], region.bounds[-1]
    spread = abs(last) or 1.0
    return {
        "inside": last + spread,
        "outside": (first + last) / 2,
        "at_least": first - spread / 3,
        "at_most": first + spread / 3,
        "equals": first + spread / 7,
    }[region.kind]


def at(m: Measurement, value: float, half: float | None) -> Measurement:
    interval = None if half is None else (value - half, value + half)
    return replace(m, value=value, interval=interval, n=None if half is None else 5)


def mutations(known: Sequence[Measurement], claim: Claim) -> Iterator[list[Measurement]]:
    """Each requirement in turn confirmed, refuted, split and across; others as they should be."""
    own = cases(claim, known)
    regions = [requirement.region for requirement in claim.requirements]
    good = {i: [at(m, inside(regions[i]), None) for m in ms] for i, ms in own.items()}
    for half in (None, 1e-12, 1e-3):
        yield [at(m, inside(regions[i]), half) for i, ms in own.items() for m in ms]
        yield [
            at(m, (inside if claim.requirements[i].role == "instrument" else outside)(region), half)
            for i, region in enumerate(regions)
            for m in own[i]
        ]
    for i, ms in own.items():
        region = regions[i]
        rest = [m for j, others in good.items() if j != i for m in others]
        split = [at(m, (inside, outside)[n % 2](region), None) for n, m in enumerate(ms)]
        for changed in (
            [at(m, outside(region), 1e-9) for m in ms],
            split,
            [at(m, region.bounds[0], 1e5) for m in ms],
            [at(m, region.bounds[0], 1e-9) for m in ms],
            [at(ms[0], region.bounds[0], 123.456), *(at(m, inside(region), None) for m in ms[1:])],
            [at(ms[0], 1e300, 1e299)],
            [at(ms[0], -1.23456e-200, None)],
            [],
        ):
            yield rest + changed


def test_whatever_is_measured_makes_a_correct_sentence_for_every_claim(
    published: list[tuple[str, dict[str, Any]]],
) -> None:
    known: dict[str, dict[str, Measurement]] = {name: {} for name in CLAIMS}
    for _, results in published:
        for m in results["measurements"]:
            made = Measurement.from_json({"population": None, **m})
            known[m["claim"]].setdefault(made.id, made)
    wrong, verdicts = [], set()
    for name, claim in CLAIMS.items():
        for measurements in mutations(list(known[name].values()), claim):
            judgement, parts = judge_claim(claim, measurements, "too long for now; run full")
            text = finding(claim, judgement.verdict, parts, measurements)
            verdicts.add((name, judgement.verdict))
            wrong += [(text, problem) for problem in problems(text, judgement.verdict)]
    assert wrong == []
    for verdict in ("confirmed", "refuted", "open"):
        assert {name for name, found in verdicts if found == verdict} == set(CLAIMS)


# ---- the rule, on a claim of its own


def claim_of(*requirements: Requirement, **findings: str) -> Claim:
    parts = list(requirements)
    return Claim("a.b", "L5", "It is so.", [], ["a paper"], "any", parts, finding=findings)


def requires(kind: Any, *bounds: float, words: Words | None = None, **more: Any) -> Requirement:
    more = {"where": {}, "words": words or Words(), **more}
    return Requirement("it is", "speedup", region=Region(kind, bounds), **more)


def measured(value: float, half: float | None = None, **labels: Any) -> Measurement:
    made = made_up(claim_of(), requires("equals", 1), 0)
    return replace(at(made, value, half), option="any", parameters=labels)


FAST = Words("the speed-up", unit="×", said=2)


@pytest.mark.parametrize(
    ("measurements", "text"),
    [
        ([measured(1.36, 0.035)], "Refuted: the speed-up is 1.36× (1.33–1.40), not 2×."),
        ([measured(2.0, 0.1)], "Confirmed: the speed-up is 2.00× (1.90–2.10), as said (2×)."),
        ([measured(1.6, 0.1)], "Open: the speed-up is 1.60× (1.50–1.70), so 2× is undecided."),
        (
            [measured(2.0, width=128), measured(1.2, width=64)],
            "Depends: the speed-up is 2× for 128 wide, 1.2× for 64 wide; said: 2×.",
        ),
        (
            [measured(2.0, 0.1, width=128), measured(1.6, 0.3, width=64)],
            "Open: the speed-up is 1.6× (1.3–1.9) for 64 wide, so 2× is undecided.",
        ),
    ],
)
def test_a_claim_without_words_for_a_verdict_is_told_plainly(
    measurements: list[Measurement], text: str
) -> None:
    assert told(claim_of(requires("inside", 1.6, 2.5, words=FAST)), measurements) == text


def test_the_words_are_those_of_the_requirement_that_decides() -> None:
    first = requires("at_most", 3, words=Words(finding={"refuted": "the first is {value}"}))
    second = requires("at_most", 1, words=Words(finding={"refuted": "the second is {value}"}))
    assert told(claim_of(first, second), [measured(2)]) == "Refuted: the second is 2."
    whole = claim_of(first, second, refuted="both are {1.value}, {2.said} was said")
    assert told(whole, [measured(2)]) == "Refuted: both are 2, 1 or less was said."


def test_words_that_ask_for_what_was_not_measured_are_left() -> None:
    absent = requires("at_most", 1, where={"rank": 8})
    whole = claim_of(requires("at_most", 1), absent, refuted="it is {2.value}")
    assert told(whole, [measured(2)]) == "Refuted: speedup is 2, not 1 or less."


def test_words_that_become_too_long_are_left() -> None:
    whole = claim_of(requires("at_most", 1), refuted=f"{'very ' * 30}{{value}}")
    assert told(whole, [measured(2)]) == "Refuted: speedup is 2, not 1 or less."


def test_what_is_missing_is_said_of_an_open_claim() -> None:
    open_claim = claim_of(requires("at_most", 1, words=Words("the loss")))
    assert told(open_claim, [], "failed: No driver. Install one") == (
        "Open: failed: No driver. Install one."
    )
    long = told(open_claim, [], "failed: " + "a very long story " * 30)
    assert len(long) <= LONGEST
    assert long.endswith("….")


def test_an_instrument_that_missed_its_known_answer_is_named() -> None:
    known = requires("at_least", 9, words=Words("the planted effect"), role="instrument")
    text = told(claim_of(known, requires("at_most", 5)), [measured(2)])
    assert text == (
        "Open: the instrument missed its known answer: the planted effect is 2, not 9 or more."
    )


def test_percent_and_millions_are_told_as_people_count() -> None:
    share = requires("at_least", 0.005, words=Words("the share", shown_as="percent"))
    text = told(claim_of(share), [measured(0.004)])
    assert text == "Refuted: the share is 0.4 %, not 0.5 % or more."
