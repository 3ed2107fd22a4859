"""The finding of a claim: one sentence that a person can repeat, computed and never typed.

"Refuted: 15 tokens are 1.36× as fast with a cache (1.33–1.40), not 2×." Its words stand in
its lesson's claims.toml, for the claim or for the requirement that decides, by verdict; its numbers
are those of the measurements and of the region, put in where the words name them:

{value} {interval}      the case nearest to the border, of those that decide; interval is empty or
                        " (1.33–1.40)"
{number}                the value without its unit
{least} {most} {range}  of all cases
{case}                  that case's labels, as far as they tell it from the others
{holds} {fails}         the values of the cases that confirm, and that refute; {holds.case} and
                        {fails.case} what tells them apart
{said} {bound}          what was said, "2×" or "0.005 or less"; the bare bound
{cases} {holding} {failing}   how many there are
{rank}, ...             what the requirement fixes
{subject}               the model that was measured
{2.value}               the same of the second requirement

Where a text is missing, lacks a number or becomes too long, a plainer sentence says the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.judging.claims import Claim, Requirement, Verdict
from benchmarks.judging.label_words import case_words, plain_values
from benchmarks.judging.sentences import (
    CLAIMED,
    amount,
    bounds,
    in_scale,
    nearest_to_border,
    quantity,
    short,
    sides,
    unit_of,
)
from benchmarks.judging.verdicts import Judgement, judge_measurement
from benchmarks.record.results import Measurement

LONGEST = 110  # characters
NAME = re.compile(r"\{([\w.]+)\}")
ONE = re.compile(r"\b(1 (?:case|size))s\b")
PLAIN: dict[tuple[str, str], tuple[str, ...]] = {
    ("confirmed", "one"): (
        "{quantity} is {value}{interval}, as said ({said})",
        "{quantity} is {value}{interval}",
        "{quantity} is {value}, as said ({said})",
    ),
    ("confirmed", "at_least"): (
        "{quantity} is {value}{interval} or more in {cases} cases, as said ({said})",
        "{quantity} is {value}{interval} or more in {cases} cases",
    ),
    ("confirmed", "at_most"): (
        "{quantity} is {value}{interval} at most in {cases} cases, as said ({said})",
        "{quantity} is {value}{interval} at most in {cases} cases",
    ),
    ("confirmed", "other"): (
        "{quantity} is {range} in {cases} cases, as said ({said})",
        "{quantity} is {range} in {cases} cases",
    ),
    ("refuted", "one"): (
        "{quantity} is {value}{interval}, not {said}",
        "{quantity} is {value}{interval}",
    ),
    ("refuted", "at_least"): (
        "{quantity} is {value}{interval} at most in {cases} cases, not {said}",
        "{quantity} is {value}{interval} at most in {cases} cases",
    ),
    ("refuted", "at_most"): (
        "{quantity} is {value}{interval} or more in {cases} cases, not {said}",
        "{quantity} is {value}{interval} or more in {cases} cases",
    ),
    ("refuted", "other"): (
        "{quantity} is {range} in {cases} cases, not {said}",
        "{quantity} is {range} in {cases} cases",
    ),
    ("depends", ""): (
        "{quantity} is {holds} for {holds.case}, {fails} for {fails.case}; said: {said}",
        "{quantity} is {holds} for {holds.case}, {fails} for {fails.case}",
        "{quantity} is {holds} in {holding} cases, {fails} in {failing}; said: {said}",
        "{quantity} is {holds} in {holding} cases, {fails} in {failing}",
    ),
    ("open", "one"): (
        "{quantity} is {value}{interval}, so {said} is undecided",
        "{quantity} is {value}, so {said} is undecided",
        "{quantity} is not decided",
    ),
    ("open", "many"): (
        "{quantity} is {value}{interval} for {case}, so {said} is undecided",
        "{quantity} is {value}{interval} in one case, so {said} is undecided",
        "{quantity} is not decided in {undecided} of {cases} cases",
    ),
}
BARELY = {  # short enough for any number
    "confirmed": "{quantity} is {said}, as said",
    "refuted": "{quantity} is not {said}",
    "depends": "{quantity} is {said} in {holding} of {cases} cases",
    "open": "{quantity} is not decided",
}


@dataclass(frozen=True)
class Part:
    """A requirement with what was measured for it, and how each of that was judged."""

    requirement: Requirement
    verdict: Verdict
    judged: Sequence[tuple[Measurement, Verdict]]

    def of(self, *verdicts: str) -> list[Measurement]:
        return [m for m, verdict in self.judged if verdict in verdicts]

    def figure(self, name: str) -> str:
        """What stands for ``{name}``; LookupError where there is none."""
        group, _, what = name.rpartition(".")
        if name == "subject" and self.requirement.words.subject:
            return self.requirement.words.subject
        if group in ("holds", "fails"):
            return self._side(group, what)
        if group or (not self.judged and name not in self.requirement.where):
            raise LookupError(name)
        if name in ("holds", "fails"):
            return self._range(self.of("confirmed" if name == "holds" else "refuted"))
        wanted = self.requirement.where.get(name)
        if wanted is not None:
            return plain_values(wanted if isinstance(wanted, list) else [wanted])
        return self._named(name)

    def _named(self, name: str) -> str:
        requirement, everything = self.requirement, [m for m, _ in self.judged]
        deciding = nearest_to_border(self.of(self.verdict) or everything, requirement.region)
        told = amount(deciding, requirement)
        match name:
            case "quantity":
                return quantity(requirement)
            case "value":
                return told.told
            case "number":
                return told.value
            case "interval":
                return f" ({told.interval})" if told.interval else ""
            case "least" | "most":
                pick = min if name == "least" else max
                return amount(pick(everything, key=lambda m: m.value), requirement).told
            case "range":
                return self._range(everything)
            case "case":
                return case_words(deciding, everything)
            case "said":
                return self._said(deciding)
            case "bound":
                return bounds(requirement)
            case "cases":
                return str(len(everything))
            case "holding" | "failing" | "undecided":
                verdict = {"holding": "confirmed", "failing": "refuted"}.get(name, "open")
                return str(len(self.of(verdict)))
        raise LookupError(name)

    def _side(self, group: str, what: str) -> str:
        holds, fails = self.of("confirmed"), self.of("refuted")
        if not holds or not fails:
            raise LookupError(group)
        own = holds if group == "holds" else fails
        if what == "case":
            told = sides(holds, fails)
            if told is None:
                raise LookupError(f"{group}.case")
            return told[0 if group == "holds" else 1]
        if what in ("least", "most"):
            pick = min if what == "least" else max
            return amount(pick(own, key=lambda m: m.value), self.requirement).told
        values = list(dict.fromkeys(m.labels[what] for m in own))
        return plain_values(values)

    def _range(self, measurements: Sequence[Measurement]) -> str:
        """From the least to the most, "0.82 to 32×"; of a single case with its interval."""
        if not measurements:
            raise LookupError("range")
        ordered = sorted(measurements, key=lambda m: m.value)
        low, high = (amount(m, self.requirement) for m in (ordered[0], ordered[-1]))
        if low.value == high.value:
            interval = f" ({low.interval})" if low.interval and len(ordered) == 1 else ""
            return f"{low.told}{interval}"
        return f"{low.value} to {high.told}"

    def _said(self, measurement: Measurement) -> str:
        requirement = self.requirement
        unit = unit_of(measurement, requirement)
        if requirement.words.said is not None:
            return f"{in_scale(requirement.words.said, requirement)}{short(unit)}"
        return CLAIMED[requirement.region.kind].format(bounds(requirement, unit))


def finding(
    claim: Claim,
    verdict: Verdict,
    parts: Sequence[Judgement],
    measurements: Sequence[Measurement],
    because: str = "",
) -> str:
    """What was found of ``claim``, in LONGEST characters at most, led by its verdict.

    ``parts`` are the requirements' judgements in turn, ``because`` why nothing was measured.
    """
    known = {m.id: m for m in measurements}
    told = [
        Part(r, p.verdict, [(m, judge_measurement(m, r.region)) for m in _of(p, known)])
        for r, p in zip(claim.requirements, parts, strict=True)
    ]
    if not any(part.judged for part in told):
        return _led(verdict, _cut(_plain(because) or "not measured", LONGEST - 7))
    texts = list(_texts(claim, verdict, told, because))
    return next((t for t in (_led(verdict, x) for x in texts) if len(t) <= LONGEST), None) or _led(
        verdict, _cut(texts[-1], LONGEST - len(verdict) - 3)
    )


def _texts(claim: Claim, verdict: Verdict, parts: Sequence[Part], because: str) -> Iterator[str]:
    """Sentences that say it, the best one first; the last one always is one."""
    unproven = [p for p in parts if p.requirement.role == "instrument" and p.verdict != "confirmed"]
    if verdict == "open" and unproven:
        yield from _unproven(unproven[0])
        return
    own = [part for part in parts if part.requirement.role == "claim"]
    decides = next((part for part in own if part.verdict == verdict), None)
    for words in (claim.finding, decides.requirement.words.finding if decides else {}):
        if verdict in words:
            yield from _filled(words[verdict], decides or own[0], parts)
    if decides is None:  # they stand apart, and some hold
        pair = [next((p for p in own if p.verdict == v), None) for v in ("confirmed", "refuted")]
        ends = [list(_plainly(p)) for p in pair if p is not None]
        yield from ("; ".join(each) for each in zip(*ends, strict=False))
        yield "it holds in one part of what was measured and not in another"
        return
    if not decides.judged:
        yield f"not measured: {decides.requirement.text}"
        yield f"not measured: {quantity(decides.requirement)}"
        return
    yield from _plainly(decides)


def _unproven(part: Part) -> Iterator[str]:
    if part.judged:
        for text in _plainly(part):
            yield f"the instrument missed its known answer: {text}"
            yield f"the instrument is off: {text}"
    yield f"the instrument is not proven: {quantity(part.requirement)}"


def _plainly(part: Part) -> Iterator[str]:
    """Without words of the claim's own."""
    kind, verdict = part.requirement.region.kind, part.verdict
    if verdict == "depends":
        form = ""
    elif len(part.judged) == 1:
        form = "one"
    elif verdict == "open":
        form = "many"
    else:
        form = kind if kind in ("at_least", "at_most") else "other"
    for text in PLAIN[verdict, form]:
        yield from _filled(text, part, [part])
    yield from _filled(BARELY[verdict], part, [part])


def _filled(text: str, part: Part, parts: Sequence[Part]) -> Iterator[str]:
    """``text`` with its numbers; nothing where one of them was not measured."""

    def figure(found: re.Match[str]) -> str:
        first, _, rest = found[1].partition(".")
        if first.isdecimal():
            return parts[int(first) - 1].figure(rest)
        return part.figure(found[1])

    try:
        yield ONE.sub(r"\1", NAME.sub(figure, text))
    except LookupError:
        return


def _of(judgement: Judgement, known: dict[str, Measurement]) -> list[Measurement]:
    return [known[name] for name in judgement.measurements]


def _led(verdict: Verdict, text: str) -> str:
    return f"{verdict.capitalize()}: {text.removesuffix('.')}."


def _plain(reason: str) -> str:
    """A reason as the rest of a sentence: "Too long for ..." -> "too long for ..."."""
    reason = " ".join(reason.split()).removesuffix(".")
    return f"{reason[:1].lower()}{reason[1:]}" if reason[1:2].islower() else reason


def _cut(text: str, most: int) -> str:
    """Whole words, and a sign that something is missing."""
    if len(text) <= most:
        return text
    kept = text[: most - 1]
    return f"{kept.rpartition(' ')[0] or kept}…"
