"""Verdicts case by case, in the words of a person: "44 of 44 cases within 0.98 to 1.02; the worst,
rank 1, has 1.007". Figures are rounded no further than the verdict bears.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from benchmarks.judging.claims import Region, Requirement
from benchmarks.judging.label_words import bound, case_words, enumeration, phrases, spaced
from benchmarks.judging.rounding import Figures, figures, in_full, number
from benchmarks.record.results import Measurement, Parameter

Judged = Sequence[tuple[Measurement, str]]

# Where a value lies: within the region, without it, or across its border.
PLACES = {
    "inside": ("within {}", "outside {}", "across a border of {}"),
    "outside": ("outside {}", "within {}", "across a border of {}"),
    "at_least": ("at least {}", "below {}", "across {}"),
    "at_most": ("at most {}", "above {}", "across {}"),
    "equals": ("exactly {}", "not {}", "across {}"),
}
PLACE_OF_VERDICT = {"confirmed": 0, "refuted": 1, "open": 2}
# The region as what was claimed.
CLAIMED = {
    "inside": "{}",
    "outside": "outside {}",
    "at_least": "{} or more",
    "at_most": "{} or less",
    "equals": "{}",
}
SCALES = {"percent": 100.0, "million": 1e-6}
UNITS = {
    "1": "",
    "ratio": "",
    "": "",
    "percent": " %",
    "%": " %",
    "nats/token": " nats a token",
}
WOULD_DECIDE = "; more observations would decide it"  # by a narrower interval


class Amount(NamedTuple):
    """A measurement as people are told it: "1.36", "1.33–1.40" and "×"."""

    value: str
    interval: str  # empty where the value is exact
    unit: str

    @property
    def told(self) -> str:
        return f"{self.value}{self.unit}"


def amount(measurement: Measurement, requirement: Requirement) -> Amount:
    """In the requirement's unit, with each number on its own side of the region's border."""
    rounded = scaled(measurement, requirement)
    return Amount(rounded.value, rounded.interval, unit_of(measurement, requirement))


def scaled(measurement: Measurement, requirement: Requirement) -> Figures:
    scale = SCALES.get(requirement.words.shown_as, 1.0)
    interval = measurement.interval
    side = partial(_side, requirement.region, scale)
    times = (lambda x: x) if scale == 1 else (lambda x: x * scale)
    ends = None if interval is None else (times(interval[0]), times(interval[1]))
    return figures(times(measurement.value), ends, side)


def unit_of(measurement: Measurement, requirement: Requirement) -> str:
    words = requirement.words
    if words.unit is not None:
        return words.unit
    if words.shown_as:
        return {"percent": " %", "million": f" M {measurement.unit}"}[words.shown_as]
    unit = "" if measurement.unit == measurement.metric else measurement.unit
    return UNITS.get(unit, f" {unit}")


def in_scale(value: float, requirement: Requirement) -> str:
    """A bound of the region, or what was said, as the measurements are told."""
    return in_full(value * SCALES.get(requirement.words.shown_as, 1))


def bounds(requirement: Requirement, unit: str = "") -> str:
    """The ends of the region, "38 to 39"; with ``unit`` where that is short enough to repeat."""
    ends = " to ".join(in_scale(end, requirement) for end in requirement.region.bounds)
    return f"{ends}{short(unit)}"


def short(unit: str) -> str:
    return unit if len(unit.strip()) <= 2 else ""


def quantity(requirement: Requirement) -> str:
    """What is measured, "the speed-up over 15 tokens"; of a claim without words its metric."""
    if requirement.words.quantity:
        return fill_in(requirement.words.quantity, requirement)
    meant = [
        phrases(key, wanted if isinstance(wanted, list) else [wanted])
        for key, wanted in requirement.where.items()
    ]
    metric = spaced(requirement.metric)
    return f"{metric} ({', '.join(meant)})" if meant else metric


def fill_in(text: str, requirement: Requirement) -> str:
    """What the requirement fixes, where ``text`` names it: "{rank}"."""

    def value(found: re.Match[str]) -> str:
        if found[1] == "subject" and requirement.words.subject:
            return requirement.words.subject
        wanted = requirement.where.get(found[1])
        if wanted is None or isinstance(wanted, list):
            return found[0]
        return number(wanted) if isinstance(wanted, int | float) else str(wanted)

    return re.sub(r"\{(\w+)\}", value, text)


def figures_of(measurement: Measurement, requirement: Requirement) -> str:
    """The value with its interval, "1.84 (95 % interval 1.79–1.90, n = 7)", and of what."""
    told = amount(measurement, requirement)
    if not told.interval or measurement.n is None:
        return told.told
    of = f", {measurement.population}" if measurement.population else ""
    return f"{told.told} (95 % interval {told.interval}, n = {number(measurement.n)}{of})"


def agreement(requirement: Requirement, measurements: Sequence[Measurement], verdict: str) -> str:
    """One sentence on measurements that all have the same verdict."""
    text = _agreement(requirement, measurements, verdict)
    return f"{text}{WOULD_DECIDE}" if verdict == "open" else text


def _agreement(requirement: Requirement, measurements: Sequence[Measurement], verdict: str) -> str:
    subject, region = quantity(requirement), requirement.region
    as_stated = region.kind == "equals" and verdict == "confirmed"
    first = measurements[0]
    if len(measurements) == 1:
        if as_stated:
            return f"{subject} is exactly {amount(first, requirement).told}"
        place = _place(requirement, verdict, first)
        return f"{subject} is {figures_of(first, requirement)}, {place}"
    count = len(measurements)
    cases = "none" if verdict == "refuted" else f"{count}"
    place = _place(requirement, "confirmed" if verdict == "refuted" else verdict, first)
    every = f"{subject}: {cases} of {count} cases {place}"
    if as_stated:
        return every
    nearest = nearest_to_border(measurements, region)
    if len({(m.value, m.interval) for m in measurements}) == 1:
        return f"{every}; each has {figures_of(nearest, requirement)}"
    name = "the nearest" if verdict == "refuted" else "the worst"
    which = case_words(nearest, measurements)
    return f"{every}; {name}, {which}, has {figures_of(nearest, requirement)}"


def undecided(requirement: Requirement, judged: Judged) -> str:
    """One sentence on measurements of which some are decided, all to one side, and some are not."""
    open_ones = [m for m, verdict in judged if verdict == "open"]
    decided = next(verdict for _, verdict in judged if verdict != "open")
    example, total = open_ones[0], len(judged)
    which = case_words(example, [m for m, _ in judged])
    return (
        f"{quantity(requirement)}: {total - len(open_ones)} of {total} cases "
        f"{_place(requirement, decided, example)}; {which} has "
        f"{figures_of(example, requirement)}, {_place(requirement, 'open', example)}{WOULD_DECIDE}"
    )


def border(requirement: Requirement, judged: Judged) -> str:
    """One sentence on what separates the measurements that confirm from those that refute."""
    holds, fails, across = (
        [m for m, given in judged if given == verdict]
        for verdict in ("confirmed", "refuted", "open")
    )
    everything = [m for m, _ in judged]
    good, bad = sides(holds, fails) or (_list(holds, everything), _list(fails, everything))
    if requirement.region.kind != "equals":
        good += f" ({_range(holds, requirement)})"
    text = (
        f"{quantity(requirement)}: {_place(requirement, 'confirmed', holds[0])} for {good}, "
        f"{_place(requirement, 'refuted', holds[0])} for {bad} ({_range(fails, requirement)})"
    )
    return f"{text}, undecided for {_list(across, everything)}" if across else text


def conjunction(parts: Sequence[tuple[str, str]]) -> str:
    """The requirements' verdicts and reasons, a sentence each, led by those that decide."""
    kinds = [kind for kind in ("refuted", "confirmed", "depends", "open") if kind in dict(parts)]
    if len(kinds) == 1:
        return " ".join(sentence(why) for _, why in parts)
    told = [f"{kind}: {why}" for kind in kinds for given, why in parts if given == kind]
    return " ".join(map(sentence, told))


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def nearest_to_border(measurements: Sequence[Measurement], region: Region) -> Measurement:
    """The one of which a value, or an end of its interval, comes nearest to the border."""
    return min(
        measurements,
        key=lambda m: min(region.distance(x) for x in (m.interval or (m.value,))),
    )


def sides(holds: Sequence[Measurement], fails: Sequence[Measurement]) -> tuple[str, str] | None:
    """The one label whose values tell the two sides apart, as a bound where it is a number."""
    for key in (k for k in holds[0].labels if all(k in m.labels for m in (*holds, *fails))):
        good, bad = (sorted({m.labels[key] for m in side}, key=_order) for side in (holds, fails))
        if set(good) & set(bad):
            continue
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in (*good, *bad)):
            if _order(good[-1]) < _order(bad[0]):
                return _bound(key, good, "less"), _bound(key, bad, "more")
            if _order(bad[-1]) < _order(good[0]):
                return _bound(key, good, "more"), _bound(key, bad, "less")
        return phrases(key, good), phrases(key, bad)
    return None


def _bound(key: str, values: Sequence[Parameter], direction: str) -> str:
    if len(values) == 1:
        return phrases(key, values)
    return bound(key, values[-1] if direction == "less" else values[0], direction)


def _list(measurements: Sequence[Measurement], among: Sequence[Measurement]) -> str:
    return enumeration([f"({case_words(m, among)})" for m in measurements])


def _range(measurements: Sequence[Measurement], requirement: Requirement) -> str:
    low, high = (pick(measurements, key=lambda m: m.value) for pick in (min, max))
    if low.value == high.value:
        return amount(low, requirement).told
    return f"{amount(low, requirement).value} to {amount(high, requirement).told}"


def _place(requirement: Requirement, verdict: str, one: Measurement) -> str:
    text = PLACES[requirement.region.kind][PLACE_OF_VERDICT[verdict]]
    return text.format(bounds(requirement, unit_of(one, requirement)))


def _side(region: Region, scale: float, shown: float) -> object:
    value = shown if scale == 1 else shown / scale
    return region.side(value, value)


def _order(value: Parameter) -> tuple[bool, float, str]:
    if isinstance(value, str):
        return True, 0.0, value
    return False, float(value), ""
