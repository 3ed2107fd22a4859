"""What the charts of all claims share: choosing, splitting and naming measurements, and rows of
dots and bars that show where the claim's region ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.render.formats import words
from reports.render.marks import (
    MOST_SERIES,
    Measurement,
    Panel,
    bars,
    dots,
    labels,
    name_of,
    varying,
)

Claim = dict[str, Any]
Panels = list[Panel]
CURVE_NEEDS = 4  # values of a numeric parameter; fewer make rows of dots


def of(measurements: Sequence[Measurement], *metrics: str) -> list[Measurement]:
    return [m for m in measurements if m["metric"] in metrics]


def borders(claim: Claim, metric: str) -> list[float]:
    """Where the region for ``metric`` ends; none if its requirements disagree or name a point."""
    ends = {
        tuple(bounds) if isinstance(bounds, list) else (bounds,)
        for requirement in claim["requirements"]
        if requirement["metric"] == metric
        for kind, bounds in requirement["region"].items()
        if kind != "equals"
    }
    return [float(end) for end in ends.pop()] if len(ends) == 1 else []


def bordered_dots(
    title: str, chosen: list[Measurement], claim: Claim, x_title: str, log: bool = False
) -> Panel:
    ends = borders(claim, chosen[0]["metric"])
    return dots(title, chosen, x_title=x_title, log_x=log, borders=ends)


def bordered_bars(title: str, chosen: list[Measurement], claim: Claim, x_title: str) -> Panel:
    """Shares of one are shown in percent."""
    metric, percent = chosen[0]["metric"], chosen[0]["unit"] == "ratio"
    return bars(title, chosen, x_title=x_title, percent=percent, borders=borders(claim, metric))


def split(
    chosen: list[Measurement], x: str, title: str, by: str | None = None
) -> list[tuple[str, list[Measurement]]]:
    """One part, or one per value of a label where a single chart would have too many lines."""
    keys = [key for key in varying(chosen) if key != x]
    series = {name_of(m, keys) for m in chosen}
    if by is None and (len(series) <= MOST_SERIES or not keys):
        return [(title, chosen)]
    key = by or min(keys, key=lambda k: len({str(labels(m).get(k)) for m in chosen}))
    parts: dict[str, list[Measurement]] = {}
    for measurement in chosen:
        parts.setdefault(name_of(measurement, [key]), []).append(measurement)
    return [(f"{title}, {name}", part) for name, part in parts.items()]


def numbers(chosen: Sequence[Measurement], key: str) -> int:
    values = {labels(m).get(key) for m in chosen}
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return len(values) if plain else 0


def by_factors(chosen: Sequence[Measurement], key: str) -> bool:
    """Was the parameter varied by factors rather than by steps?"""
    values = sorted({labels(m)[key] for m in chosen})
    return len(values) > 2 and values[0] > 0 and values[-1] / values[0] >= 8 * len(values) / 4


def spans_decades(chosen: Sequence[Measurement]) -> bool:
    ends = [m["interval"] or (m["value"], m["value"]) for m in chosen]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return low > 0 and high / low > 50


def axis_title(chosen: Sequence[Measurement]) -> str:
    metric, unit = words(chosen[0]["metric"]), chosen[0]["unit"]
    return metric if unit in ("1", "ratio", metric) else f"{metric} ({unit})"
