"""Verdicts in English: figures and intervals rounded no further than the verdict bears."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.claims import Region, Requirement
from benchmarks.results import Measurement, Parameter

Judged = Sequence[tuple[Measurement, str]]

# What a value does to a region: one word each for within, without and across its border.
PHRASES = {
    "inside": {
        "confirmed": "lies inside {}",
        "refuted": "lies outside {}",
        "open": "reaches across a border of {}",
    },
    "outside": {
        "confirmed": "lies outside {}",
        "refuted": "stays inside {}",
        "open": "reaches across a border of {}",
    },
    "at_least": {
        "confirmed": "is at least {}",
        "refuted": "is below {}",
        "open": "reaches across {}",
    },
    "at_most": {
        "confirmed": "is at most {}",
        "refuted": "is above {}",
        "open": "reaches across {}",
    },
    "equals": {
        "confirmed": "= {}",
        "refuted": "differs from {}",
        "open": "cannot be told from {}",
    },
}
NAMED_AT_MOST = 6
WOULD_DECIDE = "; more observations would decide it"  # by a narrower interval


def figures(measurement: Measurement, region: Region | None = None) -> str:
    """The value with its interval, "1.84 (95 % 1.79 to 1.90, n = 7)", and what that speaks of.

    Rounded to two digits of the interval's half-width at most, and less only where rounding would
    carry the value or an end of the interval over the region's border.
    """
    interval = measurement.interval
    numbers = [measurement.value, *(interval or ())]
    first = 4 if interval is None else _decimals_of_interval(interval)
    write = _exact if interval is None else _fixed
    texts = [write(number, first) for number in numbers]
    for digits in range(first, first + 12):
        texts = [write(number, digits) for number in numbers]
        if region is None or all(
            region.side(n, n) == region.side(float(t), float(t))
            for n, t in zip(numbers, texts, strict=True)
        ):
            break
    texts = [_grouped(text) for text in texts]
    unit = "" if measurement.unit == measurement.metric else _unit(measurement.unit)
    if interval is None:
        return f"{texts[0]}{unit}"
    of = f", {measurement.population}" if measurement.population else ""
    return f"{texts[0]}{unit} (95 % {texts[1]} to {texts[2]}, n = {measurement.n}{of})"


def agreement(requirement: Requirement, measurements: Sequence[Measurement], verdict: str) -> str:
    """One sentence on measurements that all have the same verdict."""
    text = _agreement(requirement, measurements, verdict)
    return f"{text}{WOULD_DECIDE}" if verdict == "open" else text


def _agreement(requirement: Requirement, measurements: Sequence[Measurement], verdict: str) -> str:
    subject, region = _subject(requirement), requirement.region
    phrase = _phrase(region, verdict)
    as_stated = region.kind == "equals" and verdict == "confirmed"
    if len(measurements) == 1:
        only = measurements[0]
        if as_stated:
            return f"{subject} = {figures(only)}"
        return f"{subject} {figures(only, region)} {phrase}"
    count = "both" if len(measurements) == 2 else f"all {len(measurements)}"
    every = f"{subject} {phrase} in {count} cases"
    if as_stated:
        return every
    nearest = min(measurements, key=lambda m: _reach(m, region))
    if len({(m.value, m.interval) for m in measurements}) == 1:
        return f"{every}: {figures(nearest, region)}"
    return (
        f"{every}, nearest to the border with {figures(nearest, region)} "
        f"at {_labels(nearest, measurements)}"
    )


def undecided(requirement: Requirement, judged: Judged) -> str:
    """One sentence on measurements of which some are decided, all to one side, and some are not."""
    region = requirement.region
    open_ones = [m for m, verdict in judged if verdict == "open"]
    decided = next(verdict for _, verdict in judged if verdict != "open")
    example, total = open_ones[0], len(judged)
    return (
        f"{_subject(requirement)} {_phrase(region, decided)} in {total - len(open_ones)} of "
        f"{total} cases, but {figures(example, region)} "
        f"at {_labels(example, [m for m, _ in judged])} {_phrase(region, 'open')}{WOULD_DECIDE}"
    )


def border(requirement: Requirement, judged: Judged) -> str:
    """One sentence on what separates the measurements that confirm from those that refute."""
    region = requirement.region
    holds, fails, across = (
        [m for m, given in judged if given == verdict]
        for verdict in ("confirmed", "refuted", "open")
    )
    everything = [m for m, _ in judged]
    good, bad = _split(holds, fails) or (_list(holds, everything), _list(fails, everything))
    if region.kind != "equals":
        good += f" ({_range(holds, region)})"
    text = (
        f"{_subject(requirement)} {_phrase(region, 'confirmed')} for {good} "
        f"but not for {bad} ({_range(fails, region)})"
    )
    return f"{text}, undecided for {_list(across, everything)}" if across else text


def conjunction(parts: Sequence[tuple[str, str]]) -> str:
    """The requirements' verdicts and reasons as one sentence, led by those that decide."""
    kinds = [kind for kind in ("refuted", "confirmed", "depends", "open") if kind in dict(parts)]
    groups = {kind: ", and ".join(why for given, why in parts if given == kind) for kind in kinds}
    if len(groups) == 1:
        return sentence(groups[kinds[0]])
    return sentence("; ".join(f"{kind}: {reasons}" for kind, reasons in groups.items()))


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _split(holds: list[Measurement], fails: list[Measurement]) -> tuple[str, str] | None:
    """The one label whose values tell the two sides apart, as a bound where it is a number."""
    for key in (k for k in holds[0].labels if all(k in m.labels for m in (*holds, *fails))):
        good, bad = (sorted({m.labels[key] for m in side}, key=_order) for side in (holds, fails))
        if set(good) & set(bad):
            continue
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in (*good, *bad)):
            if _order(good[-1]) < _order(bad[0]):
                return _bound(key, "up to", good), _bound(key, "from", bad)
            if _order(bad[-1]) < _order(good[0]):
                return _bound(key, "from", good), _bound(key, "up to", bad)
        return _values(key, good), _values(key, bad)
    return None


def _bound(key: str, direction: str, values: list[Parameter]) -> str:
    if len(values) == 1:
        return _values(key, values)
    return f"{_words(key)} {direction} {values[0] if direction == 'from' else values[-1]}"


def _values(key: str, values: list[Parameter]) -> str:
    listed = _enumeration([str(value) for value in values])
    return listed if key == "option" else f"{_words(key)} = {listed}"


def _list(measurements: list[Measurement], among: Sequence[Measurement]) -> str:
    return _enumeration([f"({_labels(m, among)})" for m in measurements])


def _enumeration(texts: list[str]) -> str:
    if len(texts) > NAMED_AT_MOST:
        return f"{', '.join(texts[: NAMED_AT_MOST - 1])} and {len(texts) - NAMED_AT_MOST + 1} more"
    if len(texts) == 1:
        return texts[0]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _range(measurements: list[Measurement], region: Region) -> str:
    low, high = (pick(measurements, key=lambda m: m.value) for pick in (min, max))
    if low.value == high.value:
        return figures(low, region)
    return f"{figures(low, region)} to {figures(high, region)}"


def _labels(measurement: Measurement, among: Sequence[Measurement]) -> str:
    """The labels in which ``measurement`` differs from any of ``among``, "rope, rank 8"."""
    labels = measurement.labels
    telling = {
        key: value
        for key, value in labels.items()
        if any(other.labels.get(key) != value for other in among)
    }
    option = [str(telling.pop("option"))] if "option" in telling else []
    return ", ".join([*option, *(f"{_words(key)} = {value}" for key, value in telling.items())])


def _reach(measurement: Measurement, region: Region) -> float:
    """How near the measurement, or an end of its interval, comes to the region's border."""
    return min(region.distance(x) for x in (measurement.interval or (measurement.value,)))


def _phrase(region: Region, verdict: str) -> str:
    ends = [_grouped(_exact(bound, 4)) for bound in region.bounds]
    return PHRASES[region.kind][verdict].format(" to ".join(ends))


def _order(value: Parameter) -> tuple[bool, float, str]:
    if isinstance(value, str):
        return True, 0.0, value
    return False, float(value), ""


def _decimals_of_interval(interval: tuple[float, float]) -> int:
    half = (interval[1] - interval[0]) / 2
    if half == 0:
        half = abs(interval[0]) / 1000 or 1.0
    leading = half / 10 ** math.floor(math.log10(half))
    return -math.floor(math.log10(half)) + (1 if leading < 2 else 0)


def _exact(number: float, digits: int) -> str:
    if isinstance(number, int) or (number.is_integer() and abs(number) < 1e15):
        return str(int(number))
    return f"{number:.{digits}g}"


def _fixed(number: float, decimals: int) -> str:
    rounded = round(number, decimals) + 0.0  # no minus before a zero
    if decimals <= 0:
        return str(int(rounded))
    if rounded != 0 and abs(rounded) < 1e-4:
        return f"{rounded:.{max(0, decimals + math.floor(math.log10(abs(rounded))))}e}"
    return f"{rounded:.{decimals}f}"


def _grouped(text: str) -> str:
    """38597376 -> 38,597,376."""
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, point, rest = digits.partition(".")
    return f"{sign}{int(whole):,}{point}{rest}" if whole.isdigit() else text


def _subject(requirement: Requirement) -> str:
    """The metric and the part of its measurements that is meant, "loss increase (bits = 3)"."""
    meant = [
        _values(key, wanted if isinstance(wanted, list) else [wanted])
        for key, wanted in requirement.where.items()
    ]
    metric = _words(requirement.metric)
    return f"{metric} ({', '.join(meant)})" if meant else metric


def _words(name: str) -> str:
    return name.replace("_", " ")


def _unit(unit: str) -> str:
    if unit in ("1", "ratio", ""):
        return ""
    return " %" if unit in ("percent", "%") else f" {unit}"
