"""One series as the few numbers that an inline SVG needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from reports.history.series import Series
from reports.history.steps import Step

WIDTH, HEIGHT = 320, 84  # units of the drawing
TOP, BOTTOM = 14, 72  # where the largest and the smallest value lie; above and below stand texts
LEFT, RIGHT = 8, 312
# Of the axis, as a share of the level: scatter of less than this should not look like much.
LEAST_REACH = {True: 0.001, False: 0.05}  # exact, noisy


def drawing(series: Series, steps: Sequence[Step], told: Callable[[float], str]) -> dict[str, Any]:
    """Paths in units of WIDTH x HEIGHT; a gap interrupts the line."""
    measured = series.measured
    values = [value for _, value in measured]
    low, high = min(values), max(values)
    reach = LEAST_REACH[series.exactness is not None] * max(abs(low), abs(high))
    if high - low < reach or high == low:
        middle, reach = (high + low) / 2, reach or 1.0
        bottom, top = middle - reach / 2, middle + reach / 2
    else:
        bottom, top = low, high
    apart = (RIGHT - LEFT) / max(len(series.points) - 1, 1)

    def x(at: float) -> str:
        return f"{LEFT + apart * at:.1f}" if len(series.points) > 1 else f"{WIDTH / 2}"

    def y(value: float) -> str:
        share = (min(max(value, bottom), top) - bottom) / (top - bottom)
        return f"{BOTTOM - (BOTTOM - TOP) * share:.1f}"

    runs = (
        list(run) for _, run in groupby(enumerate(measured), key=lambda item: item[1][0] - item[0])
    )
    lines = [" ".join(f"{x(at)} {y(value)}" for _, (at, value) in run) for run in runs]
    ends = [step.at for step in steps] + [len(series.points)]
    starts = [measured[0][0], *ends[:-1]]
    levels = [steps[0].before, *(step.after for step in steps)] if steps else []
    return {
        "line": "".join(f"M{line}" for line in lines),
        "dots": "".join(f"M{x(at)} {y(value)}h0" for at, value in measured),
        "whiskers": "".join(
            f"M{x(at)} {y(point.interval[0])}V{y(point.interval[1])}"
            for at, point in enumerate(series.points)
            if point.interval
        ),
        "levels": "".join(
            f"M{x(start)} {y(level)}H{x(max(at for at, _ in measured if at < end))}"
            for start, end, level in zip(starts, ends, levels, strict=False)
        ),
        "marks": [x(step.at - 0.5) for step in steps],
        "spread": told(low) if low == high else f"{told(low)} to {told(high)}",
    }
